"""The command line, through its front door: small files, the hash encoder, real processes where a process matters."""

import json
import os
import pty
import random
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import changed
from typer.testing import CliRunner, Result

import geo_mf as gm
from geo_mf.builder.config import BuildConfig
from geo_mf.cli.app import app
from geo_mf.cli.inputs import Settings
from geo_mf.cli.output import printable
from geo_mf.store import LAYOUT
from geo_mf.store.binding import save

RATINGS = ("--user-col", "userId", "--item-col", "movieId", "--weight-col", "rating", "--datetime-col", "timestamp")
SMALL = ("--factors", "4", "--iterations", "2", "--encoder", "hash", "--no-learn-blend")
TOPICS = ("love", "space", "crime", "music")
PROGRAM = (sys.executable, "-c", "from geo_mf.cli import main; main()")


@pytest.fixture(scope="module", autouse=True)
def private_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Nothing of the machine's own settings or caches takes part."""
    folder = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith("GEO_MF_")]:
            patch.delenv(name)
        patch.setenv("GEO_MF_CACHE", str(folder))
        patch.setenv("JAX_COMPILATION_CACHE_DIR", str(folder / "compiled"))
        yield folder


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """ratings.csv and movies.csv: 40 users, each with films of one topic and one stray film; film m30 is cold."""
    folder = tmp_path_factory.mktemp("files")
    movies = [f'm{i},"Film {i}, a story",{TOPICS[i % 4]},{1980 + i}' for i in range(31)]
    (folder / "movies.csv").write_text("movieId,title,genres,year\n" + "\n".join(movies) + "\n")
    draw = random.Random(0)
    rows = []
    for user in range(40):
        liked = draw.sample([i for i in range(30) if i % 4 == user % 4], 5) + [(user * 7 + 1) % 30]
        rows += [f"u{user},m{film},{draw.randint(1, 5)},{1_600_000_000 + draw.randrange(10**6)}" for film in liked]
    (folder / "ratings.csv").write_text("userId,movieId,rating,timestamp\n" + "\n".join(rows) + "\n")
    return folder


def inputs(files: Path) -> list[str]:
    return [
        *("--interactions", str(files / "ratings.csv"), "--items", str(files / "movies.csv")),
        *(*RATINGS, "--text", "{title} {genres}"),
    ]


def run(*arguments: object, code: int = 0, **env: str | None) -> Result:
    result = CliRunner(env=env).invoke(app, [str(one) for one in arguments])
    assert result.exit_code == code, f"{result.exit_code}\n{result.output}"
    return result


def refused(*arguments: object, code: int) -> str:
    """The one line of an error; there is no data beside it."""
    result = run(*arguments, code=code)
    lines = result.stderr.splitlines()
    assert len(lines) == 1 and lines[0].startswith("error: "), result.stderr
    assert result.stdout == ""
    return lines[0]


def answer(*arguments: object, **env: str | None) -> dict[str, Any]:
    result = run(*arguments, "--json", code=0, **env)
    assert result.stderr == ""
    return json.loads(result.stdout)


@pytest.fixture(scope="module")
def index(files: Path, private_cache: Path) -> Path:
    out = files / "indexes" / "films"
    card = answer("build", *inputs(files), *SMALL, "--out", out)
    assert (card["users"], card["items"], card["cold_items"]) == (40, 31, 1)
    assert card["version"] == "v000001"
    assert card["recall_at_10"] == 1.0
    return out


def planned(files: Path, *arguments: str, **env: str | None) -> dict[str, Any]:
    """The settings of a build that is only planned."""
    return answer("build", *inputs(files), "--encoder", "hash", "--out", files / "x", "--dry-run", *arguments, **env)


# --- build -----------------------------------------------------------------------------------------------------------


def test_build_says_what_it_built(files: Path, tmp_path: Path) -> None:
    result = run("build", *inputs(files), *SMALL, "--out", tmp_path / "films")
    assert result.stderr == ""
    first = result.stdout.splitlines()[0]
    assert first.startswith(f"built {tmp_path / 'films'}, version v000001, ")
    for words in (
        "users",
        "40",
        "31 (1 nobody touched yet)",
        "240 rows read, 240 accepted",
        "seconds in all",
        "recall",
    ):
        assert words in result.stdout
    run("build", *inputs(files), *SMALL, "--out", tmp_path / "films")
    assert (tmp_path / "films" / "CURRENT").read_text().startswith("v000002\n")


def test_min_weight_and_a_missing_catalogue(files: Path, tmp_path: Path) -> None:
    source = ("--interactions", str(files / "ratings.csv"), *RATINGS, "--min-weight", "4")
    card = answer("build", *source, *SMALL, "--out", tmp_path / "bare")
    assert card["items_without_text"] == card["items"] == 30
    assert 0 < card["interactions"] < 240
    assert "below the minimum weight" in card["read"]


def test_dry_run_writes_nothing(files: Path, tmp_path: Path) -> None:
    out = tmp_path / "deep" / "films"
    plan = answer("build", *inputs(files), *SMALL, "--out", out, "--dry-run")
    assert (plan["users"], plan["items"], plan["cold_items"], plan["interactions"]) == (40, 31, 1, 240)
    assert plan["config"]["factors"] == 4
    assert "nothing was written" in run("build", *inputs(files), *SMALL, "--out", out, "--dry-run").stdout
    assert list(tmp_path.iterdir()) == []


def test_bad_rows_are_counted_and_told(files: Path, tmp_path: Path) -> None:
    bad = tmp_path / "ratings.csv"
    bad.write_text((files / "ratings.csv").read_text() + "u1,m2,many,1600000000\n")
    arguments = ("build", "--interactions", bad, *RATINGS, *SMALL, "--out", tmp_path / "films")
    assert "--max-bad-rows" in refused(*arguments, code=65)
    result = run(*arguments, "--max-bad-rows", "1", "--json")
    assert "line 242" in result.stderr and "1 rejected" in result.stderr
    assert "1 rejected" in json.loads(result.stdout)["read"]


def test_a_bad_name_is_told_before_anything_is_read(tmp_path: Path) -> None:
    message = refused("build", "--interactions", tmp_path / "none.csv", "--out", tmp_path / "My Films", code=65)
    assert "My Films" in message


# --- settings --------------------------------------------------------------------------------------------------------


def test_a_table_of_users(files: Path, tmp_path: Path) -> None:
    import csv

    with (files / "ratings.csv").open() as source:
        name, ids = RATINGS[RATINGS.index("--user-col") + 1], set[str]()
        ids.update(row[name] for row in csv.DictReader(source))
    users = tmp_path / "users.csv"
    users.write_text(
        "\n".join([f"{name},age,mail", *(f"{id},{20 + len(id)},{id}@x" for id in sorted(ids)), "new,30,n@x"])
    )
    more = ("--users", users, "--user-attributes", "age", "--out", tmp_path / "films")
    assert answer("build", *inputs(files), *SMALL, *more, "--dry-run")["people"] == len(ids) + 1
    refused("build", *inputs(files), "--user-attributes", "age", "--out", tmp_path / "films", code=2)
    result = run("build", *inputs(files), *SMALL, *more)
    line = next(line for line in result.stdout.splitlines() if line.startswith("users in the table of users"))
    assert line.split()[-1] == str(len(ids) + 1)
    assert len(answer("recommend", tmp_path / "films", "--user", "new", "-k", "3")["items"]) == 3
    assert b"@x" not in (tmp_path / "films" / "v000001" / "people.parquet").read_bytes(), "only what was named is kept"


def test_options_are_the_settings_of_a_build() -> None:
    assert Settings().config() == BuildConfig()
    assert set(Settings.__dataclass_fields__) == {
        f"no_{name}" if field.annotation is bool else name for name, field in BuildConfig.model_fields.items()
    }


@pytest.mark.parametrize(
    ("setting", "from_file", "variable", "flags", "values"),
    [
        ("weighting", 'weighting = "linear"', "uniform", ["--weighting", "log"], ("log", "linear", "uniform", "log")),
        ("factors", "factors = 16", "32", ["--factors", "64"], (None, 16, 32, 64)),
        ("nu", "nu = 1", "0.5", ["--nu", "0"], (None, 1.0, 0.5, 0.0)),
        ("cache", "no-cache = true", "0", ["--no-cache"], (True, False, True, False)),
        ("cache", "no_cache = false", "1", ["--cache"], (True, True, False, True)),
    ],
    ids=["string", "number", "float", "flag", "flag back"],
)
def test_flag_over_environment_over_file_over_default(
    files: Path, tmp_path: Path, setting: str, from_file: str, variable: str, flags: list[str], values: tuple[Any, ...]
) -> None:
    name = "GEO_MF_NO_CACHE" if setting == "cache" else f"GEO_MF_{setting.upper()}"
    toml = tmp_path / "build.toml"
    toml.write_text(from_file)
    found = [
        planned(files)["config"][setting],
        planned(files, "--config", str(toml))["config"][setting],
        planned(files, "--config", str(toml), **{name: variable})["config"][setting],
        planned(files, "--config", str(toml), *flags, **{name: variable})["config"][setting],
    ]
    assert tuple(found) == values


def test_a_whole_build_from_a_file(files: Path, tmp_path: Path) -> None:
    toml = tmp_path / "films.toml"
    toml.write_text(
        f"interactions = '{files / 'ratings.csv'}'\nitems = '{files / 'movies.csv'}'\nuser-col = 'userId'\n"
        "item-col = 'movieId'\nweight-col = 'rating'\nmin-weight = 2\ntext = '{title}'\nencoder = 'hash'\n"
        f"out = '{tmp_path / 'films'}'\ntest-fraction = 0.3\nk = [5]\n"
    )
    plan = answer("build", "--config", toml, "--dry-run")
    assert plan["out"] == str(tmp_path / "films") and plan["items"] == 31
    assert answer("build", "--dry-run", GEO_MF_CONFIG=str(toml)) == plan
    report = answer("evaluate", "--config", toml, *SMALL)
    assert {row["k"] for row in report["rows"]} == {5}
    assert "random 0.3" in report["split"]


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("factor = 8", "unknown setting 'factor'; the closest one is 'factors'"),
        ("[build]\nfactors = 8", "unknown setting 'build'"),
        ("factors = 'many'", "factors is 'many'; expected a whole number"),
        ("factors = true", "factors is True; expected a whole number"),
        ("factors = 8.5", "factors is 8.5; expected a whole number"),
        ("no_cache = 1", "no_cache is 1; expected true or false"),
        ("solver = 3", "solver is 3; expected one of 'cg', 'cholesky'"),
        ("encoder = ['hash']", "encoder is ['hash']; expected a string"),
        ("out = 3", "out is 3; expected a path as a string"),
        ("factors = ", "is not TOML"),
        ("factors = 0", "factors"),
    ],
)
def test_a_wrong_settings_file_is_a_usage_error(files: Path, tmp_path: Path, content: str, told: str) -> None:
    toml = tmp_path / "bad.toml"
    toml.write_text(content)
    message = refused("build", "--config", toml, *inputs(files), "--out", tmp_path / "films", code=2)
    assert told in message
    assert "geo-mf build --help" in message or "root build --help" in message


def test_a_missing_settings_file(tmp_path: Path) -> None:
    assert "none.toml" in refused("build", "--config", tmp_path / "none.toml", code=66)


# --- recommend and similar -------------------------------------------------------------------------------------------


def ids(found: dict[str, Any]) -> list[str]:
    return [item["item_id"] for item in found["items"]]


def test_recommend_to_a_known_user(index: Path, files: Path) -> None:
    found = answer("recommend", index, "--user", "u0", "-k", "6")
    seen = {line.split(",")[1] for line in (files / "ratings.csv").read_text().splitlines() if line.startswith("u0,")}
    assert len(ids(found)) == len(set(ids(found))) == 6
    assert set(ids(found)) & seen == set()
    assert found["index_version"] == "v000001"
    every = answer("recommend", index, "--user", "u0", "--include-seen", "--k", "31")
    assert len(ids(every)) == 31 and every["reason"] == ""
    short = answer("recommend", index, "--user", "u0", "--k", "31")
    assert len(ids(short)) == 31 - len(seen) and "already seen" in short["reason"]


def test_recommend_for_clicks_a_sentence_and_a_mix(index: Path) -> None:
    together = answer("recommend", index, "--history", "m0,m4", "--history", "m8")
    assert {"m0", "m4", "m8"} & set(ids(together)) == set()
    assert ids(answer("recommend", index, "--history", "m0, m4,m8")) == ids(together)
    typed = answer("recommend", index, "--text", "Film 30, a story", "--weights", "0,1")
    assert ids(typed)[0] == "m30" and typed["items"][0]["cold"]
    assert typed["items"][0]["behaviour"] == 0
    mixed = answer("recommend", index, "--user", "u1", "--history", "m2", "--text", "music", "--where", "year >= 2000")
    assert all(int(one[1:]) >= 20 for one in ids(mixed)) and ids(mixed)


def test_recommend_a_list_of_many_kinds(index: Path) -> None:
    topic = {f"m{i}": TOPICS[i % 4] for i in range(31)}
    plain = answer("recommend", index, "--user", "u0", "-k", "8")
    assert answer("recommend", index, "--user", "u0", "-k", "8", "--diversity", "0") == plain
    mixed = answer("recommend", index, "--user", "u0", "-k", "8", "--diversity", "0.9")
    assert ids(mixed) != ids(plain) and len(set(ids(mixed))) == 8
    for limit in ("genres=2", "genres=0.25"):
        few = answer("recommend", index, "--user", "u0", "-k", "8", "--diversity", "0.5", "--at-most", limit)
        topics = [topic[one] for one in ids(few)]
        assert sorted(topics) == sorted([*TOPICS] * 2) and few["reason"] == ""
    short = run("recommend", index, "--user", "u0", "-k", "9", "--at-most", "genres=2", "--at-most", "year=1")
    assert "8 of 9: at most 2 per value of 'genres'" in short.output


def test_recommend_what_is_trending(index: Path) -> None:
    found = answer("recommend", index, "--trending", "-k", "5", "--where", "year >= 1990")
    assert len(ids(found)) == 5
    scores = [item["score"] for item in found["items"]]
    assert scores == sorted(scores, reverse=True) and scores[-1] > 0
    told = refused("recommend", index, "--trending", "--user", "u0", code=2)
    assert "goes with --where, -k, --diversity and --at-most alone" in told
    few = answer("recommend", index, "--trending", "-k", "4", "--diversity", "0.5", "--at-most", "genres=1")
    assert sorted(TOPICS[int(one[1:]) % 4] for one in ids(few)) == sorted(TOPICS)


def test_similar_in_each_space(index: Path) -> None:
    for space in ("blend", "factors", "text"):
        found = answer("similar", index, "m3", "--space", space, "-k", "4", "--where", "genres == 'music'")
        assert len(ids(found)) == 4
        assert all(int(one[1:]) % 4 == 3 for one in ids(found)) and "m3" not in ids(found)
    assert "m30" in run("similar", index, "m2", "--space", "text", "-k", "31").stdout
    plain = answer("similar", index, "m3", "-k", "8")
    assert ids(answer("similar", index, "m3", "-k", "8", "--diversity", "0.9")) != ids(plain)
    few = answer("similar", index, "m3", "-k", "8", "--at-most", "genres=2")
    assert sorted(TOPICS[int(one[1:]) % 4] for one in ids(few)) == sorted([*TOPICS] * 2)


def test_tables_for_people(index: Path) -> None:
    shown = run("recommend", index, "--user", "u0", "-k", "3")
    header, *rows = shown.stdout.splitlines()
    assert header.split() == ["#", "item", "title", "score", "behaviour", "text", "because"]
    assert len(rows) == 3 and "Film" in rows[0] and "(+" in rows[0]
    assert shown.stderr == ""


def test_integer_ids_and_ids_with_commas(tmp_path: Path) -> None:
    users = [user for user in range(12) for _ in range(3)]
    films = [f"{(user + step) % 6},x" for user in range(12) for step in range(3)]
    pq.write_table(pa.table({"user_id": users, "item_id": films}), tmp_path / "clicks.parquet")
    out = tmp_path / "films"
    answer("build", "--interactions", tmp_path / "clicks.parquet", *SMALL, "--out", out)
    assert len(ids(answer("recommend", out, "--user", "7"))) == 3
    assert "'07'" in refused("recommend", out, "--user", "07", code=65)
    assert "0,x" not in ids(answer("recommend", out, "--history", "0,x"))


# --- evaluate --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("split", ["temporal", "random", "leave-last", "cold-items", None])
def test_evaluate(files: Path, split: str | None) -> None:
    chosen = [] if split is None else ["--split", split]
    report = answer("evaluate", *inputs(files), *SMALL, *chosen, "-k", "5")
    assert {row["scorer"] for row in report["rows"]} == {"blend", "factors", "popularity", "content kNN"}
    assert {row["k"] for row in report["rows"]} == {5}
    expected = {"leave-last": "leave last", "cold-items": "cold items", None: "temporal"}.get(split, split)
    assert report["split"].startswith(str(expected))
    assert report["config"]["factors"] == 4


def test_evaluate_prints_tables(files: Path) -> None:
    shown = run("evaluate", *inputs(files), *SMALL, "--split", "random").stdout
    assert "popularity" in shown and "ndcg" in shown and "k = 10" in shown


# --- errors ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "code", "told"),
    [
        ("build --interactions {files}/ratings.csv --out {tmp}/x", 65, ["user_id", "--user-col"]),
        ("build --interactions {tmp}/none.csv --out {tmp}/x", 66, ["none.csv", "check the path"]),
        ("build --interactions {tmp}/none.csv", 2, ["--out"]),
        ("build --out {tmp}/x", 2, ["--interactions"]),
        ("build --interactions {files} --out {tmp}/x", 65, ["folder"]),
        ("build --interactions {files}/ratings.csv --out {tmp}/x --factors 0", 2, ["--factors", "1"]),
        ("build --interactions {files}/ratings.csv --out {tmp}/x --factors many", 2, ["--factors"]),
        ("build --interactions {files}/ratings.csv --out {tmp}/x --regularization 0", 65, ["regularization"]),
        ("build --interactions {files}/ratings.csv --out {tmp}/x --sovler cg", 2, ["--sovler"]),
        ("recommend {index} --user nobody", 65, ["'nobody'", "'u0'"]),
        ("recommend {index} --history m1,mx", 65, ["'mx'"]),
        ("recommend {index} --user u1 -k 0", 2, ["'-k'", "1"]),
        ("recommend {index} --user u1 --where 'yaer > 3'", 65, ["yaer", "year"]),
        ("recommend {index} --user u1 --where \"__import__('os')\"", 65, ["__import__"]),
        ("recommend {index} --user u1 --weights 1", 2, ["--weights", "1,0.3"]),
        ("recommend {index} --user u1 --weights 0,0", 65, ["not both 0"]),
        ("recommend {index} --user u1 --diversity 1.5", 2, ["--diversity", "1"]),
        ("recommend {index} --user u1 --at-most genres", 2, ["--at-most", "'genres'", "author=2"]),
        ("recommend {index} --user u1 --at-most genres=0", 2, ["--at-most", "at least 1"]),
        ("recommend {index} --user u1 --at-most genres=nan", 2, ["--at-most", "genres=nan"]),
        ("recommend {index} --user u1 --at-most genre=2", 65, ["'genre'", "genres"]),
        ("recommend {index} --trending --at-most genres", 2, ["--at-most"]),
        ("recommend {index} --all --out {tmp}/x --at-most genres=2", 2, ["--all"]),
        ("similar {index} m1 --at-most genres=0", 2, ["--at-most", "at least 1"]),
        ("similar {index} --all --out {tmp}/x --diversity 0.5", 2, ["--all"]),
        ("recommend {index}", 65, ["nothing to go by"]),
        ("recommend", 2, ["'index'"]),
        ("recommend {tmp}/none --user u1", 66, ["none", "geo-mf build"]),
        ("similar {index} mx", 65, ["'mx'"]),
        ("similar {index} m1 --space sound", 2, ["'sound'"]),
        ("similar {index} m1 -k 0", 2, ["'-k'"]),
        ("verify {tmp}/none", 66, ["none"]),
        ("verify {index} --version v9", 65, ["v9"]),
        ("verify {index} --version v000099", 66, ["v000099"]),
        ("evaluate {undated} --split temporal", 65, ["datetime"]),
        ("evaluate {inputs} --test-fraction 2", 65, ["test_fraction", "2"]),
        ("evaluate {inputs} -k 0", 2, ["-k"]),
        ("bulid", 2, ["bulid"]),
    ],
)  # fmt: skip
def test_errors_are_one_line_with_the_right_code(
    files: Path, index: Path, tmp_path: Path, arguments: str, code: int, told: list[str]
) -> None:
    undated = f"--interactions {files}/ratings.csv --user-col userId --item-col movieId"
    both = shlex.join(inputs(files))
    places = {"files": files, "index": index, "tmp": tmp_path, "inputs": both, "undated": undated}
    message = refused(*shlex.split(arguments.format(**places)), code=code)
    assert [words for words in told if words not in message] == [], message
    assert list(tmp_path.iterdir()) == []


def test_the_traceback_needs_debug(index: Path) -> None:
    result = run("recommend", index, "--user", "nobody", "--debug", code=65)
    assert "Traceback" in result.stderr and result.stderr.splitlines()[-1].startswith("error: ")


def test_no_command_shows_the_commands() -> None:
    result = CliRunner().invoke(app, [])
    assert result.exit_code == 2
    assert "recommend" in result.output


def test_a_flipped_bit_in_any_file_is_refused_and_named(index: Path, tmp_path: Path) -> None:
    home = tmp_path / "films"
    for file in sorted(path for path in index.rglob("*") if path.is_file()):
        target = home / file.relative_to(index)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(file.read_bytes())
    assert json.loads(run("verify", home, "--json").stdout)["ok"]
    assert "all as written" in run("verify", home).stdout
    for file in sorted(path for path in home.rglob("*") if path.is_file() and path.name != LAYOUT.lock):
        whole = file.read_bytes()
        spot = len(whole) // 2
        file.write_bytes(whole[:spot] + bytes([whole[spot] ^ 1]) + whole[spot + 1 :])
        report = run("verify", home, "--json", code=65)
        problems = json.loads(report.stdout)["problems"]
        assert problems and all(file.name in problem for problem in problems)
        assert file.name in report.stderr
        assert file.name in refused("recommend", home, "--user", "u0", code=65)
        file.write_bytes(whole)
    assert json.loads(run("verify", home, "--json").stdout)["ok"]


def test_verify_lists_every_problem(index: Path, tmp_path: Path) -> None:
    home = tmp_path / "films" / "v000001"
    home.mkdir(parents=True)
    for file in (index / "v000001").iterdir():
        (home / file.name).write_bytes(file.read_bytes())
    (home.parent / "CURRENT").write_bytes((index / "CURRENT").read_bytes())
    (home / "index.faiss").unlink()
    (home / "prior.npy").write_bytes(b"")
    (home / "stray").write_text("")
    result = run("verify", home.parent, code=65)
    for name in ("index.faiss", "prior.npy", "stray"):
        assert name in result.stdout
    assert len(result.stderr.splitlines()) == 1


# --- processes -------------------------------------------------------------------------------------------------------


FULL_DISK = """
import resource, signal
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))  # what a full disk does to a writer: no file grows beyond 4 KiB
from geo_mf.cli import main
main()
"""


def test_a_full_disk(files: Path, tmp_path: Path) -> None:
    out = tmp_path / "films"
    run("build", *inputs(files), *SMALL, "--out", out)
    before = (out / "CURRENT").read_bytes()
    env = {name: value for name, value in os.environ.items() if not name.startswith("JAX_")}
    env["GEO_MF_CACHE"] = str(tmp_path / "cache")
    command = [sys.executable, "-c", FULL_DISK, "build", *inputs(files), *SMALL, "--factors", "6", "--out", str(out)]
    done = subprocess.run(command, capture_output=True, text=True, env=env)
    assert done.returncode == 74, done.stderr
    assert done.stdout == ""
    *notes, line = done.stderr.splitlines()
    assert [note for note in notes if not note.startswith("embedding cache ")] == []
    assert line.startswith("error: ") and str(out) in line and "bytes" in line
    assert (out / "CURRENT").read_bytes() == before
    assert sorted(path.name for path in out.iterdir()) == [".lock", "CURRENT", "v000001"]


def test_an_interrupt_is_quiet(tmp_path: Path) -> None:
    source = tmp_path / "clicks.csv"
    os.mkfifo(source)
    command = [*PROGRAM, "build", "--interactions", str(source), "--out", str(tmp_path / "films")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        end = open(source, "w")  # opens when the command has begun to read
        time.sleep(0.1)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
        end.close()
    assert (process.returncode, out, err) == (130, "", "")


def test_a_closed_pipe_is_quiet(index: Path) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run([*PROGRAM, "verify", str(index)], stdout=writer, stderr=subprocess.PIPE, text=True)
    os.close(writer)
    assert "Traceback" not in done.stderr and "error" not in done.stderr


FRAGILE = """
import atexit, os
class Late:
    def __del__(self):
        os.abort()  # as a thread of Arrow does, now and then, while the interpreter is taken apart
late = Late()
atexit.register(lambda: os.write(1, b"tidied\\n"))
print("begun")  # not flushed
from geo_mf.cli import main
main()
"""


@pytest.mark.parametrize(("item", "code"), [("m1", 0), ("mx", 65)])
def test_the_process_ends_before_the_interpreter_is_taken_apart(index: Path, item: str, code: int) -> None:
    command = [sys.executable, "-c", FRAGILE, "similar", str(index), item]
    done = subprocess.run(command, capture_output=True, text=True)
    wanted = run("similar", index, item, code=code)
    assert (done.returncode, done.stderr) == (code, wanted.stderr)
    assert sorted(done.stdout.splitlines()) == sorted(["begun", "tidied", *wanted.stdout.splitlines()])


def test_a_closed_pipe_has_an_exit_code_of_its_own(index: Path) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    code = FRAGILE.replace("os.write(1", "os.write(2").replace('print("begun")', "")
    command = [sys.executable, "-c", code, "similar", str(index), "m1"]
    done = subprocess.run(command, stdout=writer, stderr=subprocess.PIPE, text=True)
    os.close(writer)
    assert (done.returncode, done.stderr) == (1, "tidied\n")


def test_output_that_is_lost_at_the_end_is_no_success() -> None:
    code = "print('begun'); from geo_mf.cli import main; main()"
    env = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    with open("/dev/full", "w") as full:
        command = [sys.executable, "-c", code, "bulid"]
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, env=env)
    assert done.returncode == 120 and "No space left" in done.stderr


def test_no_room_for_the_answer(index: Path) -> None:
    env = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    with open("/dev/full", "w") as full:
        done = subprocess.run([*PROGRAM, "verify", str(index)], stdout=full, stderr=subprocess.PIPE, text=True, env=env)
    assert done.returncode == 74
    assert done.stderr.startswith("error: ")


@pytest.mark.parametrize("no_color", ["", "1"])
def test_a_terminal_gets_a_drawn_table(index: Path, no_color: str) -> None:
    ours, theirs = pty.openpty()
    env = {name: value for name, value in os.environ.items() if name != "NO_COLOR"} | {"TERM": "xterm-256color"}
    command = [*PROGRAM, "recommend", str(index), "--user", "u0", "-k", "2"]
    with subprocess.Popen(command, stdout=theirs, env=env | ({"NO_COLOR": no_color} if no_color else {})) as process:
        assert process.wait(timeout=120) == 0
    os.close(theirs)
    shown = os.read(ours, 65536).decode()
    os.close(ours)
    assert "─" in shown and "Film" in shown
    assert "\x1b[3" not in shown or not no_color


def test_compiled_programs_are_kept_in_private(files: Path, tmp_path: Path) -> None:
    env = {name: value for name, value in os.environ.items() if not name.startswith("JAX_")}
    env["GEO_MF_CACHE"] = str(tmp_path / "cache")
    command = [*PROGRAM, "build", *inputs(files), *SMALL, "--factors", "5", "--out"]
    compiled = tmp_path / "cache" / "compiled"
    subprocess.run([*command, tmp_path / "one", "--no-cache"], check=True, capture_output=True, env=env)
    assert not compiled.exists()
    done = subprocess.run([*command, tmp_path / "two"], check=True, capture_output=True, env=env, text=True)
    assert done.stderr == ""
    assert list(compiled.iterdir()) and compiled.stat().st_mode & 0o777 == 0o700
    for file in compiled.iterdir():
        file.unlink()
    compiled.chmod(0o777)  # anybody could have put a program there
    done = subprocess.run([*command, tmp_path / "three"], check=False, capture_output=True, env=env, text=True)
    assert done.returncode == 0, done.stderr
    assert list(compiled.iterdir()) == []


# --- doctor, demo, output --------------------------------------------------------------------------------------------


def test_doctor(private_cache: Path) -> None:
    (private_cache / "some").write_bytes(b"12345")
    found = answer("doctor", HF_HUB_OFFLINE=None)
    assert found["versions"]["jax"] and found["cores"] >= 1 and found["devices"]
    assert (
        found["cache"]["folder"] == str(private_cache) and found["cache"]["bytes"] >= 5 and found["cache"]["writable"]
    )
    assert found["encoder"]["found"] and len(found["encoder"]["fingerprint"]) == 64
    assert found["offline"] is False
    assert answer("doctor", HF_HUB_OFFLINE="1")["offline"] is True
    assert "all-MiniLM-L6-v2" in run("doctor", HF_HUB_OFFLINE=None).stdout


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """What `geo-mf demo` prints, with the real encoder, in an empty folder, where the test then stands too."""
    folder = tmp_path_factory.mktemp("demo")
    done = subprocess.run([*PROGRAM, "demo"], cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        yield done.stdout


def test_demo_shows_the_whole_path(demo: str) -> None:
    assert "SIMULATED" in demo and "simulated)" in demo
    for words in (
        "1. Built indexes/demo",
        "2. How good",
        "3. For a known",
        "4. For a new",
        "5. For a new",
        "6. A new article",
    ):
        assert words in demo
    figures = {
        line.split("  ")[0]: line.split()[-4:] for line in demo.splitlines() if line.startswith(("blend", "pop"))
    }
    assert float(figures["blend"][1]) > 2 * float(figures["popularity"][1])


def test_the_next_commands_of_the_demo_work(demo: str) -> None:
    commands = [shlex.split(line) for line in demo.splitlines() if line.startswith("  geo-mf ")]
    assert [command[1] for command in commands] == ["recommend", "recommend", "similar", "verify", "build", "build"]
    for command in commands:
        run(*command[1:], *(["--encoder", "hash"] if "--out" in command else []))


def test_titles_cannot_drive_a_terminal() -> None:
    assert printable("a\x1b[2J\u202eb\u200bc\n[bold]d[/]") == "a [2J b c [bold]d[/]"


# --- index -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def several(index: Path, files: Path, tmp_path: Path) -> Path:
    """An index with three versions."""
    out = tmp_path / "films"
    for _ in range(3):
        run("build", *inputs(files), *SMALL, "--out", out)
    return out


def test_stats_say_what_an_index_holds(several: Path) -> None:
    found = answer("index", "stats", several)
    assert (found["version"], found["items"], found["live_items"], found["cold_items"]) == ("v000003", 31, 31, 1)
    assert (found["users"], found["factors"], found["removed_items"], found["config"]["factors"]) == (40, 4, 0, 4)
    assert found["encoder"]["name"].startswith("hash") and len(found["encoder"]["fingerprint"]) == 64
    assert [(one["version"], one["current"], one["problem"]) for one in found["versions"]] == [
        ("v000001", False, None),
        ("v000002", False, None),
        ("v000003", True, None),
    ]
    sizes = {path.name: path.stat().st_size for path in (several / "v000003").iterdir()}
    assert found["versions"][2]["bytes"] == sum(sizes.values())
    files = found["bytes_by_file"]
    assert files == {name: size for name, size in sizes.items() if name not in ("SEAL", "manifest.json")}
    assert list(files.values()) == sorted(files.values(), reverse=True)
    assert sum(files.values()) == found["bytes"]
    assert 0 <= found["age_seconds"] < 3600
    assert answer("index", "stats", several, "--version", "v000001")["version"] == "v000001"
    shown = run("index", "stats", several).stdout
    for words in ("version v000003", "31 (1 nobody touched yet)", "40", "hash", "current", "index.faiss", "recall"):
        assert words in shown


def test_stats_print_whatever_the_index_measured(tmp_path: Path, recommender: gm.Recommender) -> None:
    measured = {"factory": "IVF16,Flat", "recall_at_10": 0.97, "queries_per_second": 12345.678, "blends": {"1,0": 1.0}}
    live = recommender.live.copy()
    live[:2] = False
    for number, index in enumerate((measured, {}, None)):
        out = tmp_path / f"index{number}"
        save(changed(recommender, card={**recommender.card, "index": index}, live=live), out)
        shown = run("index", "stats", out).stdout
        assert "27 (2 removed, 3 nobody touched yet, 1 without text)" in shown
        assert ("factory IVF16,Flat, queries per second 12,346, recall at 10 0.97" in shown) == bool(index)
        assert ("recall at 10 1" in shown) == (not index)
    save(changed(recommender, card={}), tmp_path / "bare")  # a card that says nothing
    assert run("index", "stats", tmp_path / "bare").stdout.count("not recorded") == 2


def test_stats_name_a_damaged_version_and_a_damaged_file(several: Path) -> None:
    (several / "v000001" / "manifest.json").write_text("{}")
    old, *_ = answer("index", "stats", several)["versions"]
    assert "manifest.json is damaged" in old["problem"] and old["created"] is None
    (several / "v000003" / "texts.parquet").write_bytes(b"")
    assert "texts.parquet" in refused("index", "stats", several, code=65)
    assert "none" in refused("index", "stats", several.parent / "none", code=66)


def test_prune_keeps_as_many_as_are_asked_for_and_tells_what_it_freed(several: Path) -> None:
    freed = sum(path.stat().st_size for path in (several / "v000001").iterdir())
    assert answer("index", "prune", several) == {
        "index": str(several),
        "pruned": ["v000001"],
        "kept": ["v000002", "v000003"],
        "bytes_freed": freed,
    }
    assert run("index", "prune", several).stdout == "nothing to prune: v000002, v000003 stayed\n"
    assert run("index", "prune", several, "--keep", 1).stdout.startswith("pruned v000002: ")
    assert "--keep" in refused("index", "prune", several, "--keep", 0, code=2)
    (several / "v000003" / "texts.parquet").write_bytes(b"")
    assert "nothing was pruned" in refused("index", "prune", several, code=65)
    assert "none" in refused("index", "prune", several.parent / "none", code=66)


def test_index_verify_is_verify(several: Path) -> None:
    assert run("index", "verify", several).stdout == run("verify", several).stdout
    assert "command" in refused("index", code=2)
    assert "stas" in refused("index", "stas", several, code=2)
