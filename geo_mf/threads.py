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

from geo_mf.errors import InvalidInput

__all__ = ["available", "chosen", "count", "limited", "set_threads"]

VARIABLE = "GEO_MF_THREADS"
QUOTA = Path("/sys/fs/cgroup/cpu.max")

_set: int | None = None


def set_threads(threads: int | None) -> None:
    """Use at most so many cores in this process from now on; None leaves libraries to their own again.

    The environment variable GEO_MF_THREADS does the same from the start. Factors do not depend on the number. JAX makes
    its own pool of threads when it is first used: call this before. geo_mf's fits share their work among threads of
    their own, and obey at any time.

    Raises:
        InvalidInput: the number is not a whole one of at least 1.
    """
    global _set
    _set = _valid(threads, "threads")
    if _set is not None and "jax" not in sys.modules:
        os.environ["NPROC"] = str(_set)  # what XLA's pool is made by
    _tell(count())


@contextmanager
def limited(threads: int | None) -> Iterator[None]:
    """`set_threads` for a while; None and 0 change nothing."""
    if not threads:
        yield
        return
    before = _set
    set_threads(threads)
    try:
        yield
    finally:
        set_threads(before)


def from_environment() -> None:
    """Hand GEO_MF_THREADS on to the libraries that read a variable of their own, unless that is set as well."""
    if told := os.environ.get(VARIABLE):
        for name in ("NPROC", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
            os.environ.setdefault(name, told)


def chosen() -> int | None:
    """The number that was set, here or by the environment, or that a container's quota imposes; None leaves libraries
    to their own.

    Raises:
        InvalidInput: GEO_MF_THREADS is not a whole number of at least 1.
    """
    if _set is not None:
        return _set
    if told := os.environ.get(VARIABLE):
        return _valid(int(told) if told.isdecimal() else told, VARIABLE)
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
        from threadpoolctl import threadpool_limits

        threadpool_limits(threads, "blas")


def _valid(threads: object, name: str) -> int | None:
    if threads is None:
        return None
    if isinstance(threads, bool) or not isinstance(threads, int) or threads < 1:
        raise InvalidInput(f"{name} is {threads!r}; expected a whole number of at least 1, such as 4")
    return threads
