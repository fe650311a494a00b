"""Tuning: the search finds settings, keeps them through a kill, and hands them on to a build."""

import fcntl
import json
import os
import signal
import subprocess
import sys
import time
import tomllib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import TrialState
from scipy import sparse
from typer.testing import CliRunner

import geo_mf as gm
from geo_mf.builder.config import BuildConfig
from geo_mf.cli.app import app
from geo_mf.data import sample
from geo_mf.errors import FitDiverged, InvalidInput
from geo_mf.evaluation import study as kept
from geo_mf.evaluation.space import SEARCHABLE, Space
from geo_mf.evaluation.split import random_split
from geo_mf.evaluation.tuning import TrialRecord

NUMBERS = {"regularization": 0.005, "unobserved_weight": 0.005, "nu": 1.0}
"""Of the objective: named, so that nothing is left to be chosen from the data."""
DISCOUNTS = {"activity_discount": 0.0, "popularity_discount": 0.0}

CONFIG = BuildConfig.of(factors=8, iterations=4, encoder="hash", cache=False, learn_blend=False, **NUMBERS, **DISCOUNTS)
TRIALS = 12

TWO = BuildConfig.of(factors=128, iterations=2, **NUMBERS, **DISCOUNTS)
"""For searches whose fits are made up: measured after 2, 3 and 4 epochs."""


@pytest.fixture(scope="module")
def interactions() -> gm.Interactions:
    return gm.read_interactions(sample.interactions_path())


@pytest.fixture(scope="module")
def catalog(interactions: gm.Interactions) -> gm.Catalog:
    """The articles of the sample that somebody read."""
    everything = gm.read_catalog(sample.articles_path(), text="{title}. {text}")
    return everything.take(np.sort(everything.items.rows_or_missing(interactions.items.ids)))


def searched(interactions: gm.Interactions | gm.Split, catalog: gm.Catalog | None, **how: Any) -> gm.Tuning:
    return gm.tune(interactions, catalog, **{"config": CONFIG, "trials": TRIALS, **how})


@pytest.fixture(scope="module")
def tuning(interactions: gm.Interactions, catalog: gm.Catalog) -> gm.Tuning:
    """A search that nothing interrupted."""
    return searched(interactions, catalog)


def without_time(tuning: gm.Tuning) -> list[tuple[Any, ...]]:
    return [(one.settings, one.value, one.curve, one.state) for one in tuning.trials]


# --- what is searched, and what is found -----------------------------------------------------------------------------


def test_the_first_trial_is_of_the_given_settings(tuning: gm.Tuning) -> None:
    first = tuning.trials[0]
    assert {**CONFIG.model_dump(), **first.settings, "iterations": 4} == CONFIG.model_dump()
    assert set(first.settings) == {
        "regularization",
        "unobserved_weight",
        "nu",
        "prior_regularization",
        "iterations",
    }
    assert tuning.baseline == dict(first.curve)[CONFIG.iterations]
    assert tuning.given == CONFIG


def test_the_best_trial_is_the_answer(tuning: gm.Tuning) -> None:
    assert len(tuning.trials) == TRIALS
    best = max((one for one in tuning.trials if one.state == "complete"), key=lambda one: one.value)
    assert tuning.value == best.value > 1.5 * tuning.baseline > 0
    assert tuning.config == CONFIG.model_copy(update=dict(best.settings))
    assert dict(best.curve)[tuning.config.iterations] == best.value == max(value for _, value in best.curve)
    assert [epochs for epochs, _ in best.curve] == [2, 3, 4, 5, 7, 8]
    assert len({tuple(one.settings.items()) for one in tuning.trials}) == TRIALS


def test_what_is_measured_is_what_a_build_learns(interactions: gm.Interactions, catalog: gm.Catalog) -> None:
    some = interactions.align(items=catalog.items)[0]
    split = random_split(some.select(some.user_rows >= 5), 0.3, seed=5)  # five users have only an id
    assert not split.cold_items.any()  # a build decides how high cold items stand; there are none here
    tuning = searched(split, catalog, trials=2, k=7)
    assert (tuning.validation, tuning.metric, tuning.n_users) == (split.name, "ndcg@7", 395)
    for config, value in ((tuning.given, tuning.baseline), (tuning.config, tuning.value)):
        report = gm.evaluate(config, split, k=7, lists=["overall"], catalog=catalog)
        assert report.row("factors", "ndcg").value == pytest.approx(value, abs=1e-6)


def test_the_seed_decides(tuning: gm.Tuning, interactions: gm.Interactions, catalog: gm.Catalog) -> None:
    again = searched(interactions, catalog)
    assert without_time(again) == without_time(tuning) and again.config == tuning.config
    other = searched(interactions, catalog, config=CONFIG.model_copy(update={"seed": 1}), trials=2)
    assert other.trials[1].settings != tuning.trials[1].settings


def test_a_trial_that_lags_ends_early(tuning: gm.Tuning) -> None:
    pruned = [place for place, one in enumerate(tuning.trials) if one.state == "pruned"]
    assert pruned
    for place in pruned:
        one = tuning.trials[place]
        before = [other for other in tuning.trials[:place] if other.state == "complete"]
        assert len(before) >= 5 and one.epochs < 8
        assert one.value < np.median([dict(other.curve)[one.epochs] for other in before])


def test_validation_follows_the_datetimes(interactions: gm.Interactions) -> None:
    def held_out(users: int, dated: bool) -> tuple[str, int]:
        user, place = np.divmod(np.arange(10 * users), 10)
        item, when = (user + place * place) % 20, place * users + user if dated else None
        data = gm.Interactions.from_arrays(user.tolist(), item.tolist(), datetimes=when)
        found = searched(data, None, trials=1, config=CONFIG.model_copy(update={"iterations": 1, "encoder": None}))
        return found.validation, found.n_users

    assert held_out(600, dated=True) == ("temporal, last 0.2", 600)
    assert held_out(400, dated=True)[0] == "leave last 1"  # a fifth of a history, rounded down
    assert searched(interactions, None, trials=1).validation == "leave last 5"
    assert held_out(400, dated=False)[0] == "random 0.2, seed 0"


def test_no_more_than_some_thousand_users_are_judged() -> None:
    user, place = np.divmod(np.arange(3 * 5200), 3)
    data = gm.Interactions.from_arrays(user.tolist(), ((user + place) % 8).tolist())
    assert searched(data, None, trials=1, config=CONFIG.model_copy(update={"encoder": None})).n_users == 5000


def test_a_look_at_the_factors_after_an_epoch(checkerboard: sparse.csr_array) -> None:
    seen: list[tuple[np.ndarray, np.ndarray]] = []

    def watch(epoch: int, factors: Callable[[], tuple[np.ndarray, np.ndarray]]) -> None:
        seen.append(factors())
        if epoch == 2:
            raise StopIteration

    model = gm.IALS(8, iterations=6, random_state=0)
    with pytest.raises(StopIteration):
        model.fit(checkerboard, watch=watch)
    with pytest.raises(InvalidInput, match="fit"):
        model.recommend(0, checkerboard[[0]])
    assert len(seen) == 3
    for epochs, (users, items) in enumerate(seen, 1):
        whole = gm.IALS(8, iterations=epochs, random_state=0).fit(checkerboard)
        assert np.array_equal(users, whole.user_factors) and np.array_equal(items, whole.item_factors)


# --- the space -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", SEARCHABLE)
def test_every_setting_that_decides_the_factors_can_be_varied_or_kept(name: str) -> None:
    now = getattr(CONFIG, name)
    other = {"solver": "cholesky", "weighting": "uniform"}.get(name, 1 if isinstance(now, int) else 0.25)
    space = Space.of(CONFIG, {name: [other]}, texts=True)
    assert {**space.values, "iterations": list(space.epochs[::-1])}[name] == [now, other]
    assert name not in Space.of(CONFIG, {name: [now]}, texts=True).values


def test_wishes_change_the_default_space() -> None:
    plain = Space.of(CONFIG, None, texts=False)
    assert set(plain.values) == {"regularization", "unobserved_weight", "nu"}
    assert plain.epochs == (2, 3, 4, 5, 7, 8)
    wished = Space.of(CONFIG, {"factors": (16, 32), "iterations": (1, 3), "nu": (1.1, 1.5)}, texts=True)
    assert wished.values["factors"] == (8, 32)  # the given value always takes part
    assert wished.values["nu"] == (1.0, 1.5)
    assert wished.epochs == (1, 2, 3, 4)
    assert isinstance(wished.distributions()["factors"], optuna.distributions.IntDistribution)


@pytest.mark.parametrize(
    ("name", "values", "told"),
    [
        ("factor", (8, 16), "a search can vary factors, regularization"),
        ("seed", (0, 3), "a search can vary factors"),
        ("factors", (0, 16), "greater than or equal to 1"),
        ("factors", (8.5, 16), "holds 8.5; expected a whole number"),
        ("factors", (True, 16), "holds True; expected a whole number"),
        ("factors", [], "has no choices"),
        ("factors", 16, "expected (low, high) or a list of choices"),
        ("regularization", (0.1, 0.01), "goes from 0.1 to 0.01; give the lower end first"),
        ("regularization", (0.0, 0.1), "greater than 0"),
        ("regularization", ("a", "b"), "holds 'a'; expected a number"),
        ("regularization", (0.1, float("nan")), "finite"),
        ("regularization", (0.1, 0.2, 0.3), "expected (low, high)"),
        ("unobserved_weight", (0, 1), "logarithmic scale: begin above 0"),
        ("nu", (0, 3), "less than or equal to 2"),
        ("solver", ("cg", "cholesky"), "expected a list of choices, such as ['cg']"),
        ("weighting", ["loud"], "'log', 'linear' or 'uniform'"),
        ("iterations", (0, 3), "greater than or equal to 1"),
    ],
)
def test_a_space_that_cannot_be_used_is_refused(name: str, values: Any, told: str) -> None:
    with pytest.raises(InvalidInput) as refusal:
        Space.of(CONFIG, {name: values}, texts=True)
    assert name in str(refusal.value) and told in str(refusal.value)


def test_a_search_must_have_something_to_vary(interactions: gm.Interactions) -> None:
    fixed = {name: [getattr(CONFIG, name)] for name in ("regularization", "unobserved_weight", "nu")}
    with pytest.raises(InvalidInput, match="nothing to vary"):
        searched(interactions, None, space=fixed)
    tuning = searched(interactions, None, space={**fixed, "factors": [8, 4], "weighting": ["uniform"]}, trials=5)
    assert {one.settings["factors"] for one in tuning.trials} == {8, 4}
    assert {one.settings["weighting"] for one in tuning.trials} == {"log", "uniform"}
    assert set(tuning.trials[0].settings) == {"factors", "weighting", "iterations"}


@pytest.mark.parametrize(
    ("how", "told"),
    [
        ({"trials": 0}, "trials is 0"),
        ({"trials": True}, "trials is True"),
        ({"seconds": 0}, "seconds is 0"),
        ({"seconds": float("nan")}, "seconds is nan"),
        ({"k": 0}, "k is 0"),
    ],
)
def test_a_budget_that_cannot_be_used_is_refused(
    interactions: gm.Interactions, catalog: gm.Catalog, how: dict[str, Any], told: str
) -> None:
    with pytest.raises(InvalidInput, match=told):
        searched(interactions, catalog, **how)


def test_data_by_which_nobody_can_be_judged_are_refused(interactions: gm.Interactions) -> None:
    with pytest.raises(InvalidInput, match="lists the items of none"):
        searched(interactions, gm.Catalog.from_ids(gm.IdMap(["a", "b"])))
    strangers = gm.Split.of(
        gm.Interactions.from_arrays(["u1", "u2"], ["a", "b"]), gm.Interactions.from_arrays(["u3"], ["a"]), name="apart"
    )
    with pytest.raises(InvalidInput, match="no user has interactions on both sides of the split 'apart'"):
        searched(strangers, None)


def test_no_trial_begins_when_the_time_is_over(interactions: gm.Interactions, catalog: gm.Catalog) -> None:
    tuning = searched(interactions, catalog, seconds=1e-6)
    assert [one.settings["nu"] for one in tuning.trials] == [CONFIG.nu]


# --- trials whose fits are made up -----------------------------------------------------------------------------------


def made_up(
    values: Mapping[str, Any] | None, fits: int, fit: Callable[[Mapping[str, Any], kept.Report], None]
) -> tuple[tuple[TrialRecord, ...], list[float | None]]:
    """The records of a search, and what Optuna was told."""
    space = Space.of(TWO, values, texts=False)
    first = {name: getattr(TWO, name) for name in space.values}
    with kept.opened(None, {}) as study:
        for _ in range(fits):
            kept.run(study, space, first, 0, fit)
        return kept.records(study), [trial.value for trial in study.trials]


def test_the_same_settings_are_not_fitted_again() -> None:
    fitted = []

    def fit(settings: Mapping[str, Any], report: kept.Report) -> None:
        fitted.append(dict(settings))
        for epoch in (2, 3, 4):
            report(epoch, settings["factors"] / 1000 + epoch / 100)

    fixed = {name: [getattr(TWO, name)] for name in ("regularization", "unobserved_weight", "nu")}
    trials, _ = made_up({**fixed, "factors": [16, 32]}, 20, fit)
    assert len(trials) == 20 and len(fitted) == 3  # with the given 128
    for one in trials:
        if one.state == "complete":
            factors = one.settings["factors"] / 1000
            assert one.curve == ((2, factors + 0.02), (3, factors + 0.03), (4, factors + 0.04))


def test_a_fit_that_diverges_ends_its_trial_and_not_the_search() -> None:
    calls = []

    def fit(settings: Mapping[str, Any], report: kept.Report) -> None:
        calls.append(settings)
        report(2, 0.5)
        if len(calls) == 2:
            raise FitDiverged("made up")
        report(4, 0.25)

    trials, told = made_up(None, 3, fit)
    assert [one.state for one in trials] == ["complete", "diverged", "complete"]
    assert [one.value for one in trials] == told == [0.5, 0.0, 0.5]
    assert [one.settings["iterations"] for one in trials] == [2, 2, 2]


@pytest.mark.parametrize(("lags_at", "state"), [(3, "pruned"), (4, "complete")])
def test_a_trial_that_lags_at_its_end_is_complete(lags_at: int, state: str) -> None:
    calls = []

    def fit(settings: Mapping[str, Any], report: kept.Report) -> None:
        calls.append(settings)
        for epoch in (2, 3, 4):
            report(epoch, 0.2 if len(calls) == 7 and epoch >= lags_at else epoch / 10)

    trials, _ = made_up(None, 7, fit)
    assert [one.state for one in trials] == ["complete"] * 6 + [state]
    assert trials[-1].epochs == lags_at


# --- the study -------------------------------------------------------------------------------------------------------

SCRIPT = """
import sys
import numpy as np
import geo_mf as gm
from geo_mf.data import sample

interactions = gm.read_interactions(sample.interactions_path())
catalog = gm.read_catalog(sample.articles_path(), text="{title}. {text}")
catalog = catalog.take(np.sort(catalog.items.rows_or_missing(interactions.items.ids)))
config = gm.BuildConfig(
    factors=8, iterations=4, encoder="hash", cache=False, learn_blend=False, regularization=0.005,
    unobserved_weight=0.005, nu=1.0, activity_discount=0.0, popularity_discount=0.0,
)
gm.tune(interactions, catalog, config=config, trials=1000, study=sys.argv[1])
"""


def states(path: Path) -> list[TrialState]:
    """Of the trials in a study's file, as Optuna reads it."""
    storage = JournalStorage(JournalFileBackend(str(path)))
    return [trial.state for trial in optuna.load_study(study_name=None, storage=storage).trials]


def kill_when(path: Path, ripe: Callable[[list[dict[str, Any]]], bool]) -> None:
    """Run the script until its study is ripe, and kill it."""
    with subprocess.Popen([sys.executable, "-c", SCRIPT, str(path)]) as process:
        while process.poll() is None:
            lines = path.read_bytes().splitlines()[:-1] if path.exists() else []
            if ripe([json.loads(line) for line in lines]):
                process.send_signal(signal.SIGKILL)
                break
            time.sleep(0.002)
        assert process.wait() == -signal.SIGKILL


def finished(lines: list[dict[str, Any]]) -> int:
    return sum(line["op_code"] == 6 and line["state"] in (TrialState.COMPLETE, TrialState.PRUNED) for line in lines)


def test_a_killed_search_goes_on_as_if_nothing_had_happened(
    tuning: gm.Tuning, interactions: gm.Interactions, catalog: gm.Catalog, tmp_path: Path
) -> None:
    path = tmp_path / "search"
    kill_when(path, lambda lines: any(line["op_code"] == 6 and line["state"] == TrialState.RUNNING for line in lines))
    assert states(path) == [TrialState.RUNNING]  # the first trial is lost
    kill_when(path, lambda lines: finished(lines) >= 3)
    before = states(path)
    done = sum(state in (TrialState.COMPLETE, TrialState.PRUNED) for state in before)
    assert 3 <= done < TRIALS
    with path.open("ab") as file:
        file.write(b'{"op_code":4,"wor')  # as a full disk leaves a line

    part = searched(interactions, catalog, trials=1, study=path)  # nothing to do: what is kept is the answer
    assert without_time(part) == without_time(tuning)[:done]
    whole = searched(interactions, catalog, study=path)
    assert whole.trials[:done] == part.trials
    assert without_time(whole) == without_time(tuning) and whole.config == tuning.config
    after = states(path)
    assert TrialState.RUNNING not in after
    lost = after.count(TrialState.FAIL)
    assert lost in (1, 2) and len(after) == TRIALS + lost


@pytest.fixture(scope="module")
def study(interactions: gm.Interactions, catalog: gm.Catalog, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A search of two trials."""
    path = tmp_path_factory.mktemp("study") / "search"
    searched(interactions, catalog, trials=2, study=path)
    return path


def test_a_study_of_another_search_is_refused(study: Path, interactions: gm.Interactions, catalog: gm.Catalog) -> None:
    before = study.read_bytes()
    fewer = interactions.select(np.arange(len(interactions) - 1))
    refusals: list[tuple[str, gm.Interactions, gm.Catalog, dict[str, Any]]] = [
        ("data", fewer, catalog, {}),
        ("data", interactions, gm.Catalog.from_ids(catalog.items), {"space": {"prior_regularization": (0.1, 100.0)}}),
        ("data", interactions, catalog, {"encoder": gm.HashEncoder(dim=8)}),
        ("metric", interactions, catalog, {"k": 10}),
        ("configuration", interactions, catalog, {"config": CONFIG.model_copy(update={"cg_steps": 2})}),
        ("configuration", interactions, catalog, {"config": CONFIG.model_copy(update={"nu": 0.9})}),
        ("space", interactions, catalog, {"space": {"nu": (0.5, 1.3)}}),
        ("space", interactions, catalog, {"space": {"nu": [1.0, 0.5, 1.2]}}),
        ("space", interactions, catalog, {"space": {"iterations": (2, 9)}}),
    ]
    for part, other, items, how in refusals:
        with pytest.raises(InvalidInput, match=f"is of another search: its {part} is .*, and now it is .*delete it"):
            searched(other, items, study=study, trials=3, **how)
        assert study.read_bytes() == before
    free = {"config": CONFIG.model_copy(update={"threads": 1, "learn_blend": True, "cache": True}), "seconds": 60}
    assert len(searched(interactions, catalog, study=study, trials=2, **free).trials) == 2


def test_a_file_that_is_no_study_is_refused_and_left_alone(
    interactions: gm.Interactions, catalog: gm.Catalog, study: Path, tmp_path: Path
) -> None:
    lines = study.read_bytes().splitlines(keepends=True)
    for content, told in (
        (b"user_id,item_id\n1,2", "is not a study"),
        (b"one line, not ended", "is not a study"),
        (b'{"op_code":4}\n', "is damaged"),
        (b"".join([*lines[:4], lines[4][:20] + b"\n", *lines[5:]]), "is damaged"),
    ):
        path = tmp_path / "search"
        path.write_bytes(content)
        with pytest.raises(InvalidInput, match=told):
            searched(interactions, catalog, study=path)
        assert path.read_bytes() == content
    with pytest.raises(FileNotFoundError):
        searched(interactions, catalog, study=tmp_path / "none" / "search")


def test_one_process_at_a_time(interactions: gm.Interactions, catalog: gm.Catalog, study: Path) -> None:
    with study.open("rb") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        with pytest.raises(InvalidInput, match="another process is searching in"):
            searched(interactions, catalog, trials=3, study=study)
    assert len(searched(interactions, catalog, trials=2, study=study).trials) == 2


FULL_DISK = """
import resource, signal
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (6000, 6000))  # what a full disk does to a writer
"""


def test_a_full_disk_stops_the_search_and_spoils_nothing(
    tuning: gm.Tuning, interactions: gm.Interactions, catalog: gm.Catalog, tmp_path: Path
) -> None:
    path = tmp_path / "search"
    run = subprocess.run([sys.executable, "-c", FULL_DISK + SCRIPT, str(path)], capture_output=True, text=True)
    assert run.returncode == 1 and "OSError" in run.stderr.splitlines()[-1] and str(path) in run.stderr.splitlines()[-1]
    assert path.stat().st_size == 6000
    assert without_time(searched(interactions, catalog, study=path)) == without_time(tuning)


def test_optuna_is_silent_and_speaks_again_afterwards(
    interactions: gm.Interactions, catalog: gm.Catalog, capfd: pytest.CaptureFixture[str]
) -> None:
    before = optuna.logging.get_verbosity()
    searched(interactions, catalog, trials=2)
    assert capfd.readouterr() == ("", "")
    assert optuna.logging.get_verbosity() == before == optuna.logging.INFO


def test_progress_goes_to_standard_error(
    interactions: gm.Interactions, catalog: gm.Catalog, capfd: pytest.CaptureFixture[str]
) -> None:
    searched(interactions, catalog, trials=2, show_progress=True)
    out, err = capfd.readouterr()
    assert out == "" and "tune: 100%" in err and "2/2" in err


def test_without_optuna_the_error_says_what_to_install() -> None:
    code = (
        "import sys; sys.modules['optuna'] = None\n"
        "import geo_mf as gm\n"
        "try: gm.tune(gm.Interactions.from_arrays([1], [1]))\n"
        "except gm.MissingExtra as error: print(error)"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "pip install 'geo_mf[tune]'" in run.stdout


# --- the result ------------------------------------------------------------------------------------------------------


def test_it_prints_as_a_table(tuning: gm.Tuning) -> None:
    title, _, header, given, best, *_ = str(tuning).splitlines()
    assert title == "ndcg@20 of the factors alone, 400 users; validation: leave last 5"
    assert header.split() == ["ndcg@20", *tuning.trials[0].settings]
    assert given.split()[:2] == ["given", f"{tuning.baseline:.4f}"] and given.split()[-1] == "4"
    assert best.split()[:2] == ["1.", f"{tuning.value:.4f}"]
    assert best.split()[-1] == str(tuning.config.iterations)
    assert "validation figure" in str(tuning) and f"{TRIALS} trials" in str(tuning)
    assert tuning._repr_html_().count("<tr>") == 7


def test_it_is_plain_values(tuning: gm.Tuning) -> None:
    found = json.loads(json.dumps(tuning.to_dict(), allow_nan=False))
    assert BuildConfig(**found["config"]) == tuning.config
    assert (found["value"], found["baseline"]) == (tuning.value, tuning.baseline)
    assert [one["value"] for one in found["trials"]] == [one.value for one in tuning.trials]
    assert [one["epochs"] for one in found["trials"]] == [one.curve[-1][0] for one in tuning.trials]


@example(encoder='C:\\models\\"my"\x7f\n', number=1e-05)
@given(encoder=st.none() | st.text(st.characters(exclude_categories=["Cs"])), number=st.floats(1e-300, 1e300))
def test_every_configuration_can_be_written_as_toml(encoder: str | None, number: float) -> None:
    config = BuildConfig(encoder=encoder, regularization=number, cache=False)
    written = tomllib.loads(gm.Tuning(config, config, 0.5, 0.4, (), "ndcg@20", "made up", 3).to_toml())
    read = {name.removeprefix("no_"): value for name, value in written.items()}
    read |= {name: not read[name] for name in ("cache", "learn_blend")}
    assert BuildConfig(**read) == config


# --- the command -----------------------------------------------------------------------------------------------------

SMALL = ("--factors", "8", "--iterations", "4", "--encoder", "hash", "--no-cache", "--no-learn-blend")
FILES = ("--interactions", str(sample.interactions_path()), "--items", str(sample.articles_path()))
INPUTS = (*FILES, "--text", "{title}. {text}")


@pytest.fixture(autouse=True)
def no_settings_of_the_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("GEO_MF_") and name != "GEO_MF_CACHE"]:
        monkeypatch.delenv(name)


def test_tune_then_build(tmp_path: Path) -> None:
    out, study = tmp_path / "settings.toml", tmp_path / "search"
    command = ["tune", *INPUTS, *SMALL, "--trials", "3", "--study", str(study), "--out", str(out), "-k", "5"]
    shown = CliRunner().invoke(app, command)
    assert shown.exit_code == 0, shown.output
    assert "ndcg@5 of the factors alone" in shown.stdout and "validation figure" in shown.stdout
    assert f"geo-mf build --config {out}" in shown.stdout and shown.stderr == ""
    again = CliRunner().invoke(app, [*command, "--trials", "4", "--json"])
    assert again.exit_code == 0, again.output
    assert again.stderr.startswith("A validation figure")
    found = json.loads(again.stdout)
    assert len(found["trials"]) == 4 and found["out"] == str(out)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["search", "settings.toml"]
    build = ["build", *INPUTS, "--config", str(out), "--out", str(tmp_path / "articles"), "--json"]
    built = CliRunner().invoke(app, build)
    assert built.exit_code == 0, built.output
    assert json.loads(built.stdout)["config"] == found["config"]
    assert found["config"]["factors"] == 8 and found["config"]["learn_blend"] is False


@pytest.mark.parametrize(
    ("arguments", "code", "told"),
    [
        (("--out", "{tmp}/index"), 2, "give the name of a .toml file"),
        (("--out", "{tmp}/folder.toml"), 2, "give the name of a .toml file"),
        (("--out", "{tmp}/none/settings.toml"), 66, "there is no such folder"),
        (("-k", "5", "-k", "10"), 2, "one length"),
        (("--trials", "0"), 2, "--trials"),
        (("--seconds", "-1"), 65, "seconds is -1.0"),
        (("--study", "{tmp}/other"), 65, "is not a study"),
        (("--study", "{tmp}/none/search"), 66, "none/search"),
        (("--regularization", "0"), 65, "regularization"),
    ],
)
def test_errors_are_one_line_and_nothing_is_written(
    tmp_path: Path, arguments: tuple[str, ...], code: int, told: str
) -> None:
    (tmp_path / "folder.toml").mkdir()
    (tmp_path / "other").write_text("a,b")
    given = [one.format(tmp=tmp_path) for one in arguments]
    result = CliRunner().invoke(app, ["tune", *INPUTS, *SMALL, *given])
    assert result.exit_code == code, result.output
    assert result.stdout == "" and len(result.stderr.splitlines()) == 1 and told in result.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["folder.toml", "other"]
    assert (tmp_path / "other").read_text() == "a,b"


def test_items_that_the_catalogue_does_not_list_are_told(tmp_path: Path) -> None:
    few = tmp_path / "articles.csv"
    few.write_text("".join(sample.articles_path().read_text(encoding="utf-8").splitlines(keepends=True)[:200]))
    files = ("--interactions", str(sample.interactions_path()), "--items", str(few), "--text", "{title}")
    result = CliRunner().invoke(app, ["tune", *files, *SMALL, "--trials", "1", "--json"])
    assert result.exit_code == 0, result.output
    left_out = json.loads(result.stdout)["unlisted_interactions"]
    assert left_out > 0 and f"{left_out:,} interactions left out" in result.stderr
