"""What users' attributes give is measured by an evaluation, and counts when a search chooses settings."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from groups import GROUPS, ITEMS, NEW, USERS, liked
from pyarrow import csv
from typer.testing import CliRunner

import geo_mf as gm
from geo_mf.cli.app import app
from geo_mf.errors import InvalidInput
from geo_mf.evaluation.run import scorers_of

ONE = 30
"""Users before ONE have one click in training, those from NEW on none, all others six."""
CONFIG = gm.BuildConfig(factors=8, learn_blend=False, solver="cholesky", iterations=4, regularization=0.01)
CATALOG = gm.Catalog.from_ids(gm.IdMap([f"i{item}" for item in range(ITEMS)]))


def clicks(user: int) -> int:
    return 1 if user < ONE else 6 if user < NEW else 0


@pytest.fixture(scope="module")
def likes() -> list[np.ndarray]:
    return liked()


@pytest.fixture(scope="module")
def table() -> pa.Table:
    ages = [20 + user % 50 for user in range(USERS)]
    return pa.table({"user_id": names(range(USERS)), "group": [f"g{u % GROUPS}" for u in range(USERS)], "age": ages})


def names(users: range) -> list[str]:
    return [f"u{user}" for user in users]


def split_of(likes: list[np.ndarray], judged: range) -> gm.Split:
    """The training is always the same; `judged` are in the test."""
    train = [(f"u{user}", f"i{item}") for user in range(NEW) for item in likes[user][: clicks(user)]]
    test = [(f"u{user}", f"i{item}") for user in judged for item in likes[user][clicks(user) :]]
    sides = (gm.Interactions.from_arrays(*zip(*side, strict=True)) for side in (train, test))
    return gm.Split.of(*sides, items=CATALOG.items)


def ndcg(subject: Any, split: gm.Split, users: Any = None, part: str = "blend") -> float:
    report = gm.evaluate(subject, split, k=10, lists=["overall"], catalog=CATALOG, users=users)
    return report.row(part, "ndcg").value


# --- evaluate ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("judged", "times"), [(range(NEW, USERS), 1.2), (range(ONE), 1.05)], ids=["none", "one"])
def test_attributes_raise_the_figures_of_users_with_few_clicks(
    likes: list[np.ndarray], table: pa.Table, judged: range, times: float
) -> None:
    split = split_of(likes, judged)
    for part in ("blend", "factors"):
        assert ndcg(CONFIG, split, table, part) > times * ndcg(CONFIG, split, part=part)


def test_wrong_attributes_do_not_hurt_those_who_have_clicked(likes: list[np.ndarray], table: pa.Table) -> None:
    mixed = table["group"].take(pa.array(np.random.default_rng(1).permutation(USERS)))
    split = split_of(likes, range(ONE, NEW))
    assert ndcg(CONFIG, split, table.set_column(1, "group", mixed)) > 0.95 * ndcg(CONFIG, split)


def test_a_configuration_is_judged_as_what_it_builds(likes: list[np.ndarray], table: pa.Table) -> None:
    split = split_of(likes, range(USERS))
    rec = gm.build(split.train, CATALOG, users=table, config=CONFIG)
    assert ndcg(CONFIG, split, table) == pytest.approx(ndcg(rec, split), abs=1e-6)
    only = CONFIG.model_copy(update={"user_attributes": ("age",)})
    assert ndcg(only, split, table) != pytest.approx(ndcg(rec, split), abs=1e-3), "age says nothing"


def test_scores_are_those_of_requests(likes: list[np.ndarray], table: pa.Table) -> None:
    split = split_of(likes, range(USERS))
    listed = table.slice(0, USERS - 1)  # nothing at all is known of the last one
    rec = gm.build(split.train, CATALOG, users=listed, config=CONFIG)
    places = split.items.rows(rec.catalog.items.ids)
    for scorer in scorers_of(rec, split):
        rows = split.users.rows(["u3", "u40", "u130", f"u{USERS - 1}", "u131"])
        scores = scorer.scores(rows)
        rank = rec.item_factors.shape[1] if scorer.name == "factors" else None
        for place, user in enumerate(["u3", "u40", "u130", None, "u131"]):
            expected = rec.touches if user is None else rec.vectors[:, :rank] @ rec.query(user).vector[0][:rank]
            assert scores[place][places] == pytest.approx(expected, abs=1e-4)


def test_a_recommender_is_asked_with_what_is_known_of_new_users(likes: list[np.ndarray], table: pa.Table) -> None:
    split = split_of(likes, range(NEW, USERS))
    rec = gm.build(split.train, CATALOG, users=table.slice(0, NEW), config=CONFIG)
    assert ndcg(rec, split) == pytest.approx(ndcg(gm.build(split.train, CATALOG, config=CONFIG), split))
    assert ndcg(rec, split, table) > 1.2 * ndcg(rec, split)
    wide = table.slice(NEW).append_column("mail", [names(range(NEW, USERS))])
    assert ndcg(rec, split, wide) == ndcg(rec, split, table)
    (scorer, _), users = scorers_of(rec, split, people=gm.read_users(wide)), split.users
    asked = rec.query(user_attributes={"group": "g2", "age": 50}).vector[0]  # u130
    scores = scorer.scores(users.rows(["u130"]))[0, split.items.rows(CATALOG.items.ids)]
    assert scores == pytest.approx(rec.vectors @ asked, abs=1e-5)
    with pytest.raises(InvalidInput, match="'group', which is not there"):
        ndcg(rec, split, table.select(["user_id", "age"]))


def test_people_that_cannot_be_used(likes: list[np.ndarray], table: pa.Table) -> None:
    split = split_of(likes, range(USERS))
    bare = gm.build(split.train, CATALOG, config=CONFIG)
    with pytest.raises(InvalidInput, match=r"knows nothing of users .*: build\(\.\.\., users=\.\.\.\), or leave"):
        ndcg(bare, split, table)
    others = table.set_column(0, "user_id", [list(range(USERS))])
    with pytest.raises(InvalidInput, match="says nothing of the 120 users"):
        ndcg(CONFIG, split, others)
    with pytest.raises(InvalidInput, match="says nothing of the 120 users"):
        gm.tune(split, CATALOG, users=others, config=CONFIG, trials=1)


# --- tune ----------------------------------------------------------------------------------------------------------


def test_a_search_measures_what_a_build_with_attributes_gives(
    likes: list[np.ndarray], table: pa.Table, tmp_path: Path
) -> None:
    split = split_of(likes, range(ONE + 20))
    how: dict[str, Any] = {"config": CONFIG, "k": 10, "study": tmp_path / "study"}
    found = gm.tune(split, CATALOG, users=table, trials=4, **how)
    for config, value in ((found.given, found.baseline), (found.config, found.value)):
        assert ndcg(config, split, table, "factors") == pytest.approx(value, abs=1e-6)
    without = gm.tune(split, CATALOG, config=CONFIG, k=10, trials=1)
    assert found.n_users == without.n_users == ONE + 20
    assert found.baseline > 1.03 * without.baseline
    with pytest.raises(InvalidInput, match="study"):
        gm.tune(split, CATALOG, users=table.select(["user_id", "age"]), trials=4, **how)


def test_new_users_are_judged_where_something_is_known_of_them(likes: list[np.ndarray], table: pa.Table) -> None:
    split = split_of(likes, range(ONE, USERS))
    found = gm.tune(split, CATALOG, users=table.slice(0, USERS - 10), config=CONFIG, trials=1, k=10)
    assert found.n_users == USERS - ONE - 10
    new = split_of(likes, range(NEW, USERS))
    found = gm.tune(new, CATALOG, users=table, config=CONFIG, trials=1, k=10)
    assert found.baseline == pytest.approx(ndcg(found.given, new, table, "factors"), abs=1e-6)
    with pytest.raises(InvalidInput, match="nobody can be judged"):
        gm.tune(new, CATALOG, config=CONFIG, trials=1)


# --- the command line ----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def files(likes: list[np.ndarray], table: pa.Table, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Options that name the two files; what is judged came later."""
    home, split = tmp_path_factory.mktemp("files"), split_of(likes, range(NEW, USERS))
    lines = ["user_id,item_id,datetime"]
    for day, side in enumerate((split.train, split.test), 1):
        users, items = split.users.take(side.user_rows), split.items.take(side.item_rows)
        lines += [f"{user},{item},2026-01-0{day}" for user, item in zip(users, items, strict=True)]
    (home / "clicks.csv").write_text("\n".join(lines))
    csv.write_csv(table, home / "users.csv")
    quick = ["--factors", "8", "--iterations", "4", "--no-learn-blend", "--no-cache", "--regularization", "0.01"]
    return ["--interactions", str(home / "clicks.csv"), *quick, "--users", str(home / "users.csv")]


def told(*arguments: str) -> dict[str, Any]:
    result = CliRunner().invoke(app, [*arguments, "--json"])
    assert result.exit_code == 0, result.stderr
    return json.loads(result.stdout)


def test_evaluate_and_tune_take_a_table_of_users(files: list[str]) -> None:
    def figure(*given: str) -> float:
        rows = told("evaluate", *given, "--test-fraction", "0.4")["rows"]
        return next(row["value"] for row in rows if (row["scorer"], row["metric"]) == ("blend", "ndcg"))

    without = files[:-2]
    assert figure(*files) > 1.2 * figure(*without)
    assert figure(*files, "--user-attributes", "age") < figure(*files)
    assert told("tune", *files, "--trials", "1")["value"] != told("tune", *without, "--trials", "1")["value"]
    for command in ("evaluate", "tune"):
        result = CliRunner().invoke(app, [command, *without, "--user-attributes", "age"])
        assert result.exit_code == 2 and "--users" in result.stderr
