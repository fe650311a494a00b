"""Compiled programs, kept on disk: the second run of a command does not compile again."""

import os
import warnings

__all__ = ["keep"]

_MOST = 256 * 2**20  # bytes; the oldest programs go first


def keep() -> None:
    """Let JAX keep what it compiles in this user's cache folder. Call it before jax is imported.

    A folder that the user chose (JAX_COMPILATION_CACHE_DIR) stays. Nothing happens where the folder cannot be written.
    It must be the user's own and closed to others, because what lies in it will be run.
    """
    if "JAX_COMPILATION_CACHE_DIR" in os.environ:
        return
    from geo_mf.text.cache import default_folder

    folder = default_folder() / "compiled"
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError:
        return
    state = folder.stat()
    if state.st_uid != os.getuid() or state.st_mode & 0o022 or not os.access(folder, os.W_OK | os.X_OK):
        return
    # A program that cannot be kept costs time and nothing else.
    warnings.filterwarnings("ignore", "Error (reading|writing) persistent compilation cache entry")
    os.environ["JAX_COMPILATION_CACHE_DIR"] = str(folder)
    os.environ.setdefault("JAX_COMPILATION_CACHE_MAX_SIZE", str(_MOST))
    os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.1")
