"""What a fit would take, before it is begun: its memory, from the layout of the histories, and its time."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from statistics import NormalDist

import jax
import numpy as np
from scipy import sparse

from geo_mf.errors import DoesNotFit, InvalidInput
from geo_mf.factorize import blocks, histories, sides, timing
from geo_mf.factorize.fit import Settings
from geo_mf.factorize.matrices import shape
from geo_mf.factorize.parameters import whole

GIB = 2**30

Layout = blocks.Layout | histories.Layout
"""How histories are padded, whichever way rows are solved."""

Need = Callable[[int], tuple[int, dict[str, int]]]
"""Bytes that a fit with so many factors adds at its peak, and what they are for."""

COMPILER_BYTES = 66_000_000
"""What XLA keeps after its first compilation."""

SHAPE_BYTES = 3_500_000
"""What it keeps for each compiled shape more."""

ACTIVITY, POPULARITY = 1.1, 1.6
"""Standard deviations of the logarithm of a typical user's and item's number of interactions, where only their mean is
known."""

MOST_ROWS = 1 << 21
"""Rows of a side that are listed where their lengths are made up anyway."""


@dataclass(frozen=True)
class Plan:
    """What a fit would take.

    Attributes:
        users, items, interactions, factors, iterations: the fit.
        memory: bytes that the fit adds at its peak to what the process holds; `parts` says what for.
        available: bytes that this process may still have.
        epoch_seconds: of one epoch on this machine as busy as it is now; None if not timed, as on accelerators.
        compile_seconds: of compiling, before the first epoch ends, where no compilation cache has it.
        parts: bytes by purpose; what stands at different times does not add up to `memory`.
        advice: what would make it fit; empty when it does.
    """

    users: int
    items: int
    interactions: int
    factors: int
    iterations: int
    memory: int
    available: int
    parts: dict[str, int]
    epoch_seconds: float | None = None
    compile_seconds: float | None = None
    advice: str = ""

    @property
    def fits(self) -> bool:
        """Whether the memory is there."""
        return self.memory <= self.available

    def check(self, held: int = 0) -> None:
        """Raise DoesNotFit, with the advice, if the memory is not there; `held` bytes of it are taken already."""
        if self.memory - held > self.available:
            raise DoesNotFit(
                f"a fit of {self.users:,} users, {self.items:,} items and {self.interactions:,} interactions with "
                f"factors={self.factors} needs about {self.memory / GIB:.1f} GiB more than this process holds, and "
                f"{self.available / GIB:.1f} GiB are free: {self.advice}"
            )

    def __str__(self) -> str:
        lines = [
            f"{self.users:,} users, {self.items:,} items, {self.interactions:,} interactions, {self.factors} factors",
            f"memory   {self.memory / GIB:.2f} GiB at the peak, {self.available / GIB:.1f} GiB free",
        ]
        if self.epoch_seconds is not None and self.compile_seconds is not None:
            total = self.iterations * self.epoch_seconds + self.compile_seconds
            lines.append(
                f"time     {self.epoch_seconds:.2f} s an epoch, {self.compile_seconds:.1f} s of compiling: "
                f"{total:.0f} s for {self.iterations} epochs"
            )
        return "\n".join([*lines, *([f"does not fit: {self.advice}"] if self.advice else [])])


@dataclass(frozen=True)
class Problem:
    """The shape of a fit.

    Attributes:
        shape: users, items, interactions.
        user_lengths, item_lengths: int64, interactions of each user and each item; of one in `part` of them.
        features: numbers of an item's features, 0 for none.
        uniform: whether all weights are equal, so that none has to be kept.
        user_features: numbers of a user's features, 0 for none.
        part: what the lengths have to be multiplied with, above 1 where there are too many rows to list them.
    """

    shape: tuple[int, int, int]
    user_lengths: np.ndarray
    item_lengths: np.ndarray
    features: int = 0
    uniform: bool = True
    part: int = 1
    user_features: int = 0

    @classmethod
    def of(cls, user_items: sparse.csr_array, features: int = 0, user_features: int = 0) -> "Problem":
        """The shape of a fit of this matrix, with so many features of an item and of a user."""
        uniform = bool(user_items.data.min() == user_items.data.max())
        users, items = shape(user_items)
        by_item = np.bincount(user_items.indices, minlength=items)
        size, by_user = (users, items, user_items.nnz), np.diff(user_items.indptr)
        return cls(size, by_user, by_item, features, uniform, user_features=user_features)

    @classmethod
    def asked(cls, shape: tuple[int, ...], features: int = 0) -> "Problem":
        """`typical`, for (users, items, interactions) as a caller of `plan` gives them. Raises InvalidInput."""
        if len(shape) != 3:
            raise InvalidInput(f"a shape is {shape!r}; expected (users, items, interactions)")
        return cls.typical(*shape, features)

    @classmethod
    def typical(cls, users: int, items: int, interactions: int, features: int = 0) -> "Problem":
        """Log-normal histories, where only the numbers of users, items and interactions are known.

        Raises:
            InvalidInput: no matrix has this shape.
        """
        users, items = whole("users", users, 1), whole("items", items, 1)
        if whole("interactions", interactions, 1) > users * items:
            raise InvalidInput(
                f"{interactions:,} interactions of {users:,} users with {items:,} items: there are only "
                f"{users * items:,} pairs"
            )
        part = -(-max(users, items) // MOST_ROWS)
        grid = (np.arange(512) + 0.5) / 512

        def lengths(rows: int, other: int, spread: float) -> np.ndarray:
            normal = np.exp(spread * np.array([NormalDist().inv_cdf(at) for at in grid]))
            shares = np.interp((np.arange(-(-rows // part)) + 0.5) / -(-rows // part), grid, normal)
            return np.minimum(np.round(shares * (interactions / part / shares.sum())), other).astype(np.int64)

        by_user, by_item = lengths(users, items, ACTIVITY), lengths(items, users, POPULARITY)
        return cls((users, items, interactions), by_user, by_item, features, part=part)

    def plan(self, settings: Settings, timed: bool = True) -> Plan:
        """Predict memory, and with `timed`, on a CPU, try a few calls to predict the time."""

        @cache
        def layout(rank: int) -> Layout:
            return sides.layout(self.user_lengths, self.item_lengths, rank, settings.solver)

        plan = self.foreseen(
            settings.rank, settings.epochs, lambda rank: peak_memory(self, rank, layout(rank), settings.loss)
        )
        if not timed or jax.default_backend() != "cpu":
            return plan
        widths = (self.features, self.user_features)
        rows, dense, compiling = timing.epoch(layout(settings.rank), settings, widths, self.uniform)
        return replace(plan, epoch_seconds=self.part * rows + dense, compile_seconds=compiling)

    def foreseen(self, rank: int, epochs: int, need: Need) -> Plan:
        """The plan of a fit that takes `need(factors)`, with advice where that is not there."""
        memory, parts = need(rank)
        free = available()
        return Plan(
            users=self.shape[0],
            items=self.shape[1],
            interactions=self.shape[2],
            factors=rank,
            iterations=epochs,
            memory=memory,
            available=free,
            parts=parts,
            advice="" if memory <= free else _advice(need, rank, free),
        )


def peak_memory(problem: Problem, rank: int, layout: Layout, loss: bool = False) -> tuple[int, dict[str, int]]:
    """Bytes that a fit adds at its peak, and what they are for.

    Four moments are the candidates: taking in the histories (the matrix's transpose, and where they are padded both),
    setting up the tables (the numbers drawn beside the table they go to), the epochs (the histories and both tables),
    and the end (both tables beside the factors of one that is not in order, or too large for what it holds). What has
    to be copied of a matrix that is not float32 CSR, sorted and without duplicates, is not known here.
    """
    users, items, interactions = problem.shape
    balanced = 0 if problem.uniform else 4 * interactions
    if isinstance(layout, histories.Layout):
        kept = problem.part * (layout.users.slots + layout.items.slots) * (4 if problem.uniform else 8)
        transposing = 8 * interactions
    else:
        kept = (4 if problem.uniform else 8) * interactions
        transposing = 2 * interactions if problem.uniform else 0
    orders = 40 * (users + items)
    taking_in = balanced + transposing + kept + orders
    of_users, of_items = (4 * rank * problem.part * side.size for side in (layout.users, layout.items))
    tables = of_users + of_items
    prior = sum(
        4 * size * (3 * width + 3 * rank)
        for size, width in ((items, problem.features), (users, problem.user_features))
        if width
    )
    compiled = COMPILER_BYTES + SHAPE_BYTES * layout.programs
    setup = balanced + kept + orders + max(2 * of_users, of_users + 2 * of_items)
    # An accelerator makes a new table of what is solved; what is computed of the objective is wide, of both tables.
    epochs = balanced + kept + orders + (1 if sides.on_cpu() else 2) * tables + (4 * tables if loss else 0)
    if isinstance(layout, blocks.Layout):
        epochs += 4 * rank * max(layout.users.scratch, layout.items.scratch)
    epochs += 32 * rank**2 + compiled + prior
    copied = max(of_users, of_items) if isinstance(layout, histories.Layout) else min(of_users, of_items)
    end = balanced + orders + tables + copied + compiled + prior
    parts = {
        "balanced weights": balanced,
        "histories": kept,
        "tables of factors": tables,
        "prior": prior,
        "compiler": compiled,
        "taking in": taking_in,
        "setting up": setup,
        "at the end": end,
    }
    return max(taking_in, setup, epochs, end), parts


def available() -> int:
    """Bytes that this process may still have: what the system calls available, or less under a control group; on an
    accelerator, what is left of its memory."""
    device = jax.local_devices()[0].memory_stats() or {}
    free = [2**62]
    if "bytes_limit" in device:
        free.append(device["bytes_limit"] - device["bytes_in_use"])
    for line in _lines("/proc/meminfo"):
        if line.startswith("MemAvailable:"):
            free.append(1024 * int(line.split()[1]))
    group = Path("/sys/fs/cgroup")
    limit, used = _lines(group / "memory.max"), _lines(group / "memory.current")
    if limit and used and limit[0].isdigit():
        cached = [line.split()[1] for line in _lines(group / "memory.stat") if line.startswith("inactive_file ")]
        free.append(int(limit[0]) - int(used[0]) + sum(map(int, cached)))
    return max(0, min(free))


def _lines(path: str | Path) -> list[str]:
    try:
        return Path(path).read_text().splitlines()
    except OSError:  # another system, or no control group
        return []


def _advice(need: Need, rank: int, free: int) -> str:
    """The largest number of factors that fits, or what else could be done."""
    smaller = rank // 2
    while smaller and need(smaller)[0] > free:
        smaller //= 2
    if smaller:
        return f"factors={smaller} would fit"
    return "the interactions alone do not fit: leave out users or items with few of them, or use a larger machine"
