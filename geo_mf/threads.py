"""How many cores this process uses: one number for JAX, torch, Faiss and BLAS.

Each of them would otherwise take all cores of the machine, or of the affinity mask, also in a container whose quota
allows for two.
"""

import math
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from threadpoolctl import threadpool_limits

from geo_mf.errors import InvalidInput

__all__ = ["available", "chosen", "count", "limited", "set_threads"]

VARIABLE = "GEO_MF_THREADS"
QUOTA = Path("/sys/fs/cgroup/cpu.max")

_set: int | None = None
_while: list[int] = []
"""Of the `limited` that are not over yet."""


def set_threads(threads: int | None) -> None:
    """Use at most so many cores in this process from now on; None leaves libraries to their own again.

    The environment variable GEO_MF_THREADS does the same from the start; 0 leaves them to their own. Factors do not
    depend on the number. JAX makes its own pool of threads when it is first used: call this before. geo_mf's fits share
    their work among threads of their own, and obey at any time.

    Raises:
        InvalidInput: the number is not a whole one of at least 1.
    """
    global _set
    _set = _valid(threads, "threads")
    if _set is None:
        os.environ.pop("NPROC", None)
    elif "jax" not in sys.modules:
        os.environ["NPROC"] = str(_set)  # what XLA's pool is made by
    _tell(count())


@contextmanager
def limited(threads: int | None) -> Iterator[None]:
    """Use at most so many cores for a while; None and 0 change nothing.

    JAX's own pool is left alone, and so is BLAS: its sums depend on the number, and a build must not.
    """
    if not threads:
        yield
        return
    torch = sys.modules.get("torch")
    before = None if torch is None else torch.get_num_threads()
    _while.append(threads)
    try:
        if torch is not None:
            torch.set_num_threads(threads)
        yield
    finally:
        _while.remove(threads)
        if (torch := sys.modules.get("torch")) is not None:
            torch.set_num_threads(before or count())


def from_environment() -> None:
    """Hand GEO_MF_THREADS, or a container's quota, on to the libraries that read a variable of their own, unless that
    is set as well, and to those that are loaded already. What is not a number is told where it is needed."""
    told = os.environ.get(VARIABLE, "")
    threads = int(told) if _whole(told) else 0
    names = ("NPROC", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
    if not threads and available() < _affinity():
        threads = available()
    if threads:
        for name in names:
            os.environ.setdefault(name, str(threads))
        _tell(threads)


def chosen() -> int | None:
    """The number that was set, here or by the environment, or that a container's quota imposes; None leaves libraries
    to their own.

    Raises:
        InvalidInput: GEO_MF_THREADS is not a whole number.
    """
    if _while:
        return _while[-1]
    if _set is not None:
        return _set
    told = os.environ.get(VARIABLE, "0")
    if told and (not _whole(told) or int(told) > 0):
        return _valid(int(told) if _whole(told) else told, VARIABLE)
    allowed = available()
    return allowed if allowed < _affinity() else None


def count() -> int:
    """Cores to use: `chosen`, else all that are available."""
    return chosen() or available()


def available() -> int:
    """Cores that this process may use: those of its affinity mask, and no more than its control group's quota."""
    quota = _quota()
    return _affinity() if quota is None else max(1, min(_affinity(), math.ceil(quota)))


def _affinity() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _quota() -> float | None:
    """Cores that the control group grants, such as 1.5; None where there is no limit."""
    try:
        granted, period = QUOTA.read_text().split()
        return None if granted == "max" else int(granted) / int(period)
    except (OSError, ValueError):
        return None


def _tell(threads: int) -> None:
    """Tell the libraries that keep a number of their own, where they are loaded; `chosen` tells the others later."""
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(threads)
    if "numpy" in sys.modules:
        threadpool_limits(threads, "blas")


def _whole(told: str) -> bool:
    return told.isascii() and told.isdecimal()


def _valid(threads: object, name: str) -> int | None:
    if threads is None:
        return None
    if isinstance(threads, bool) or not isinstance(threads, int) or threads < 1:
        raise InvalidInput(f"{name} is {threads!r}; expected a whole number of at least 1, such as 4")
    return threads
