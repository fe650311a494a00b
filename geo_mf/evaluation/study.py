"""A search that is kept: Optuna's trials, in a journal that one process holds at a time and a kill cannot spoil.

Importing this module imports optuna, which may not be there.
"""

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from geo_mf.errors import DoesNotFit, FitDiverged, InvalidInput, MissingExtra
from geo_mf.evaluation.space import Space
from geo_mf.evaluation.tuning import TrialRecord
from geo_mf.files import lock

try:
    import optuna
    from optuna.storages import JournalStorage, journal
    from optuna.study import Study
    from optuna.trial import FrozenTrial, TrialState
except ImportError as error:
    raise MissingExtra("tuning needs optuna, which is not installed: pip install 'geo_mf[tune]'") from error

__all__ = ["Report", "opened", "records", "run"]

Report = Callable[[int, float], None]
"""Takes the metric after so many epochs. It ends a fit, by raising, that lags behind the others."""

NAME = "geo_mf"
DIVERGED = "diverged"
BEGINNING = b'{"op_code":'
"""How every line of a journal begins."""
STARTUP = 8
"""Trials drawn at random, the given settings among them, before the sampler goes by what it has seen."""
FINISHED = (TrialState.COMPLETE, TrialState.PRUNED)


@contextmanager
def opened(path: Path | None, search: Mapping[str, str]) -> Iterator[Study]:
    """The study that is kept at `path`, begun if there is none; in memory without a path. Optuna's log is silent.

    Args:
        path: the file, or None.
        search: what is searched, each part under the name that an error calls it by.

    Raises:
        InvalidInput: the file is of another search, is no study, is damaged, or another process has it.
        OSError: it cannot be read or written.
    """
    # Half of the trials go on at each measurement. Successive halving would let a quarter of them go on by their first
    # epochs alone: too harsh here, where strong regularisation and many factors start slowly and overtake later.
    pruner = optuna.pruners.MedianPruner()
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        if path is None:
            yield optuna.create_study(direction="maximize", pruner=pruner)
            return
        with path.open("a+b") as file:
            lock(
                file.fileno(),
                path,
                f"another process is searching in {path}: wait until it has finished, or give another path",
            )
            _mend(file, path)
            storage = _storage(path)
            begun = NAME in (one.study_name for one in storage.get_all_studies())
            begin = optuna.load_study if begun else partial(optuna.create_study, direction="maximize")
            study = begin(storage=storage, study_name=NAME, pruner=pruner)
            _claim(study, search, path)
            for lost in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
                study.tell(lost.number, state=TrialState.FAIL)  # whoever ran it is gone: the file is ours
            yield study
    finally:
        optuna.logging.set_verbosity(before)


def run(
    study: Study,
    space: Space,
    given: Mapping[str, Any],
    seed: int,
    fit: Callable[[Mapping[str, Any], Report], None],
) -> None:
    """One more trial: of the given settings if it is the first, else of those that the sampler draws.

    Args:
        study: where it belongs.
        space: what is varied.
        given: of each setting that is varied, the value to start from.
        seed: of the sampler.
        fit: takes settings and a `Report`, which it calls after some epochs, rising, at least once.
    """
    done = study.get_trials(deepcopy=False, states=FINISHED)
    if not done and not study.get_trials(deepcopy=False, states=(TrialState.WAITING,)):
        study.enqueue_trial(dict(given))
    # A sampler of its own for each trial: a search that was killed draws on what it would have drawn.
    drawn = int(np.random.default_rng([seed, len(done)]).integers(2**32))
    study.sampler = optuna.samplers.TPESampler(n_startup_trials=STARTUP, seed=drawn)
    trial = study.ask(space.distributions())
    twin = next((one for one in done if one.params == trial.params), None)
    if twin is not None:  # where there are only choices; the same settings would give the same fit
        fit = partial(_again, twin)
    best = 0.0

    def report(epoch: int, value: float) -> None:
        nonlocal best
        best = max(best, value)
        trial.report(value, epoch)
        if epoch < space.epochs[-1] and trial.should_prune():
            raise optuna.TrialPruned

    try:
        fit(trial.params, report)
    except optuna.TrialPruned:
        study.tell(trial, state=TrialState.PRUNED)
    except (FitDiverged, DoesNotFit):
        trial.set_user_attr(DIVERGED, True)
        study.tell(trial, 0.0)  # as an empty list would score; the sampler learns to keep away
    else:
        study.tell(trial, best)


def _again(twin: FrozenTrial, settings: Mapping[str, Any], report: Report) -> None:
    """What a fit of the same settings came to."""
    for epoch, value in sorted(twin.intermediate_values.items()):
        report(epoch, value)
    if twin.state == TrialState.PRUNED:
        raise optuna.TrialPruned
    if DIVERGED in twin.user_attrs:
        raise FitDiverged


def records(study: Study) -> tuple[TrialRecord, ...]:
    """Every finished trial, in order."""
    return tuple(map(_record, study.get_trials(deepcopy=False, states=FINISHED)))


def _record(trial: FrozenTrial) -> TrialRecord:
    curve = tuple(sorted(trial.intermediate_values.items()))
    epochs, value = max(curve, key=lambda point: point[1], default=(0, 0.0))
    state = "pruned" if trial.state == TrialState.PRUNED else "complete"
    if DIVERGED in trial.user_attrs:
        state, value = "diverged", 0.0
    seconds = 0.0 if trial.duration is None else trial.duration.total_seconds()
    return TrialRecord({**trial.params, "iterations": epochs}, value, curve, state, seconds)


class _Held(journal.JournalFileOpenLock):
    """No lock for each line: the process holds the file for the whole search, and the kernel frees it, also after a
    kill. Optuna's own lock outlives a killed process and then holds up the next one."""

    def acquire(self) -> bool:
        return True

    def release(self) -> None:
        return None


class _Journal(journal.JournalFileBackend):
    """Optuna's journal, whose errors name the file."""

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        try:
            super().append_logs(logs)
        except OSError as error:
            raise OSError(error.errno, error.strerror, self._file_path) from error


def _mend(file: BinaryIO, path: Path) -> None:
    """Drop a last line that was cut short, which Optuna would not read on from; refuse what is no journal."""
    file.seek(0)
    *lines, last = file.read().split(b"\n")
    if not all(line.startswith(BEGINNING) for line in lines) or not (
        last.startswith(BEGINNING) or BEGINNING.startswith(last)
    ):
        raise InvalidInput(f"{path} is not a study of geo_mf: give another path for the study")
    if last:
        file.truncate(sum(len(line) + 1 for line in lines))
        os.fsync(file.fileno())


def _storage(path: Path) -> JournalStorage:
    try:
        return JournalStorage(_Journal(str(path), _Held(str(path))))
    except (ValueError, LookupError, TypeError, AttributeError, AssertionError) as error:
        raise InvalidInput(f"the study {path} is damaged ({error}): give another path, or delete it") from error


def _claim(study: Study, search: Mapping[str, str], path: Path) -> None:
    """Write down what is searched, or compare it with what was written."""
    found = study.user_attrs.get(NAME)
    if found is None:
        if study.get_trials(deepcopy=False):
            raise InvalidInput(f"{path} is not a study of geo_mf: give another path for the study")
        study.set_user_attr(NAME, dict(search))
        return
    for part, wanted in search.items():
        if found.get(part) != wanted:
            raise InvalidInput(
                f"the study {path} is of another search: its {part} is {found.get(part)}, and now it is {wanted}. "
                "Give another path, or delete it to begin again"
            )
