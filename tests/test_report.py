"""The report of a comparison: one page that asks nobody for anything, whatever the titles say."""

import json
import re
import shutil
import subprocess
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import changed
from typer.testing import CliRunner

import geo_mf as gm
from geo_mf.cli.app import app
from geo_mf.comparison.result import Comparison
from geo_mf.errors import InvalidInput
from geo_mf.report import index_report
from geo_mf.report.maps import PLACES, Colour, items_of

HOSTILE = [
    "</script><script>alert(1)</script>",
    "<img src=x onerror=alert(2)>",
    "<!--",
    "line\u2028separator\u2029 and \x00 nul",
    "& < > \" ' ` ${1} $title",
    "\ud83d\udca3".encode("utf-16", "surrogatepass").decode("utf-16") + " bomb",
]
browser = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


class Page(HTMLParser):
    """Elements and attributes of a page, and the text of its scripts."""

    def __init__(self, source: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: list[str] = []
        self.feed(source)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag == "script":
            self.scripts.append("")

    def handle_data(self, data: str) -> None:
        if self.scripts and self.tags[-1][0] == "script":
            self.scripts[-1] += data

    @property
    def items(self) -> dict[str, Any]:
        return json.loads(self.scripts[0])


@pytest.fixture(scope="module")
def hostile(recommender: gm.Recommender) -> gm.Recommender:
    """The small recommender with titles that try to be more than titles, and a column of them."""
    table = recommender.catalog.table
    titles = [HOSTILE[row % len(HOSTILE)] + f" {row}" for row in range(len(table))]
    place = table.column_names.index("title")
    table = table.set_column(place, "title", [titles]).append_column("<b>kind", [[t[:9] for t in titles]])
    return changed(recommender, catalog=replace(recommender.catalog, table=table))


@pytest.fixture(scope="module")
def compared(hostile: gm.Recommender) -> Comparison:
    return gm.compare_index(hostile)


@pytest.fixture(scope="module")
def source(hostile: gm.Recommender, compared: Comparison) -> str:
    return index_report(hostile, compared, colour="<b>kind")


def test_nothing_is_asked_of_anybody(source: str) -> None:
    page = Page(source)
    assert {tag for tag, _ in page.tags} <= {
        *("html head meta title style body header h1 h2 p main section ul li form label select input".split()),
        *("output div figure figcaption canvas img table caption tr th td footer script".split()),
    }
    for tag, attributes in page.tags:
        for name in ("src", "href", "action", "srcset", "style"):
            assert attributes.get(name) is None or (tag, name) == ("img", "src"), (tag, attributes)
        if tag == "img":
            assert str(attributes["src"]).startswith("data:image/png;base64,")
            assert attributes["alt"]
        assert not [name for name in attributes if name.startswith("on")]
    policy = next(a["content"] for tag, a in page.tags if tag == "meta" and "http-equiv" in a)
    assert str(policy).startswith("default-src 'none';")
    assert not re.search(r"https?:|url\(|@import|fetch\(|XMLHttpRequest", re.sub(r"base64,[^\"]*", "", source))


def test_titles_stay_titles(source: str, hostile: gm.Recommender) -> None:
    page = Page(source)
    assert len(page.scripts) == 2
    assert "alert(1)" not in page.scripts[1]
    assert {title.split()[0] for title in page.items["titles"]} == {title.split()[0] for title in HOSTILE}
    assert "<" not in page.scripts[0]
    assert not [tag for tag, attributes in page.tags if tag == "img" and "onerror" in attributes]


def test_what_the_maps_hold(source: str, compared: Comparison) -> None:
    items = Page(source).items
    n = len(items["titles"])
    assert n == compared.items
    for axis in ("x", "y"):
        assert [len(side) for side in items[axis]] == [n, n]
        assert {min(side) for side in items[axis]} == {0}
        assert {max(side) for side in items[axis]} == {PLACES}
    assert [one["name"] for one in items["colours"]] == ["<b>kind", "interactions", "neighbours shared, of 10"]
    assert max(items["colours"][0]["of"]) < len(items["colours"][0]["palette"])
    assert all(0 <= share <= 1 for share in items["colours"][1]["shares"])
    assert all("of its 10 nearest" in note for note in items["notes"])


def test_the_second_map_lies_over_the_first() -> None:
    """A rotated space is laid back: the same places on both maps."""
    rng = np.random.default_rng(0)
    first = rng.standard_normal((60, 5)) * [5, 3, 1, 1, 1]
    turn = np.linalg.qr(rng.standard_normal((5, 5)))[0]
    names = [str(row) for row in range(60)]
    found = json.loads(items_of((first, first @ turn), names, names, [Colour("row", list(range(60)))]))
    for axis in ("x", "y"):
        assert np.abs(np.subtract(*found[axis])).max() <= 1


@pytest.mark.parametrize("gap", [None, float("nan"), float("inf"), -float("inf")])
def test_a_number_that_is_missing_is_grey_among_the_others(
    gap: float | None, recommender: gm.Recommender, compared: Comparison
) -> None:
    table = recommender.catalog.table
    values = [gap if row in (3, 5) else 1950.5 + row for row in range(len(table))]
    table = table.drop_columns(["year", "topic"]).append_column("age", [values])
    rec = changed(recommender, catalog=replace(recommender.catalog, table=table))
    for colour in (None, "age"):
        items = Page(index_report(rec, compared, colour=colour)).items
        found = items["colours"][0]
        assert (found["name"], found["ends"]) == ("age", ["1,950.5", "1,973.5"])
        assert [row for row, share in enumerate(found["shares"]) if share is None] == [3, 5]
        assert (found["shares"][0], found["shares"][-1]) == (0, 1)
        assert "age: None" in items["notes"][3]


def test_truth_and_words_are_groups_whatever_is_missing() -> None:
    space = np.random.default_rng(0).standard_normal((12, 3))
    names = [str(row) for row in range(12)]
    colours = [
        Colour("truth", [None, *[True, False] * 5, None]),
        Colour("mixed", [None, *["a", 1.5] * 5, None]),
        Colour("nothing", [None] * 12),
        Colour("vast", [None, *[-1.7e308, 1.7e308] * 5, None]),
    ]
    truth, mixed, nothing, vast = json.loads(items_of((space, space), names, names, colours))["colours"]
    assert [truth["of"][0], truth["of"][1] == truth["of"][2], sorted(truth["groups"])] == [-1, False, ["False", "True"]]
    assert (mixed["groups"], nothing["groups"]) == (["a"], [])
    assert vast["shares"] == [None, *[0, 1] * 5, None]


def test_a_space_of_one_dimension_lies_on_a_line(recommender: gm.Recommender) -> None:
    rng = np.random.default_rng(0)
    factors = rng.standard_normal((len(recommender.catalog), 1)).astype(np.float32)
    embeddings = np.where(rng.random((len(factors), 1)) < 0.5, -1, 1).astype(np.float32)
    for parts in ({"item_factors": factors}, {"embeddings": embeddings}):
        rec = changed(recommender, **parts)
        found = gm.compare(rec.item_factors[:24], rec.embeddings[:24])
        source = index_report(rec, found)
        assert source.count("<img") == 2
        items = Page(source).items
        assert len(items["titles"]) == 24


def test_few_items_have_fewer_than_ten_neighbours(recommender: gm.Recommender) -> None:
    live = np.arange(len(recommender.catalog)) < 10
    rec = changed(recommender, live=live)
    items = Page(index_report(rec, gm.compare_index(rec, k=5))).items
    assert len(items["titles"]) == 10 and items["colours"][-1]["name"] == "neighbours shared, of 9"
    # Each of ten items has the nine others near, in both spaces.
    assert all("both spaces name 9 of its 9 nearest" in note for note in items["notes"])


def test_findings_and_tables_are_on_the_page(source: str, compared: Comparison) -> None:
    for finding in compared.findings:
        assert finding.split("<")[0].split("&")[0][:40] in source
    assert compared.tables_html() in source
    assert compared.tables_html() in compared._repr_html_()


def test_the_same_choices_give_the_same_page(hostile: gm.Recommender, compared: Comparison, source: str) -> None:
    assert index_report(hostile, compared, colour="<b>kind") == source


def test_a_column_is_chosen_and_a_wrong_one_is_named(hostile: gm.Recommender, compared: Comparison) -> None:
    items = Page(index_report(hostile, compared)).items
    assert items["colours"][0]["name"] == "year"
    with pytest.raises(InvalidInput, match="no column 'colour' to colour by; the catalogue has item_id, title"):
        index_report(hostile, compared, colour="colour")


@pytest.mark.skipif(browser is None, reason="no Chromium here")
def test_a_browser_shows_it_without_complaint(source: str, tmp_path: Path) -> None:
    path = tmp_path / "report.html"
    path.write_text(source, "utf-8")
    options = [
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-background-networking",
        "--virtual-time-budget=3000",
    ]
    quiet = [f"--user-data-dir={tmp_path / 'profile'}", "--enable-logging=stderr", "--window-size=1200,2000"]
    shown = subprocess.run(
        [str(browser), *options, *quiet, "--dump-dom", path.as_uri()], capture_output=True, text=True, timeout=120
    )
    assert "CONSOLE" not in shown.stderr, shown.stderr
    page = Page(shown.stdout)
    assert next(attributes for tag, attributes in page.tags if attributes.get("id") == "maps") == {"id": "maps"}
    assert "Point at an item." in shown.stdout
    assert shown.stdout.count("<option") == 3
    assert sum(int(attributes.get("width") or 0) > 100 for tag, attributes in page.tags if tag == "canvas") == 2


def test_the_script_paints_what_is_missing_grey(source: str) -> None:
    """`Math.max(null, 0)` would be the low end of the scale."""
    assert "share === null ? GREY : shade(share)" in Page(source).scripts[1]


@pytest.fixture(scope="module")
def index(recommender: gm.Recommender, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("report") / "small"
    gm.save(recommender, out)
    return out


class TestCommand:
    def test_it_prints_and_writes(self, index: Path, tmp_path: Path) -> None:
        done = CliRunner().invoke(app, ["compare", str(index), "--out", str(tmp_path / "report.html")])
        assert done.exit_code == 0, done.output
        assert "held-out pairs found among the 20 nearest" in done.stdout
        assert (tmp_path / "report.html").read_text("utf-8").startswith("<!doctype html>")
        told = CliRunner().invoke(app, ["compare", str(index), "--json", "--k", "5"])
        assert json.loads(told.stdout)["who_is_right"]["k"] == 5

    def test_what_cannot_be_done_is_told_and_an_older_page_stays(self, index: Path, tmp_path: Path) -> None:
        out = tmp_path / "report.html"
        out.write_text("older")
        wrong = CliRunner().invoke(app, ["compare", str(index), "--out", str(out), "--colour", "none"])
        assert (wrong.exit_code, out.read_text()) == (65, "older")
        lost = CliRunner().invoke(app, ["compare", str(index), "--out", str(tmp_path / "no" / "report.html")])
        assert lost.exit_code == 66
        assert "there is no such folder to write to" in lost.stderr
        assert CliRunner().invoke(app, ["compare", str(index), "--colour", "topic"]).exit_code == 2

    def test_a_folder_and_an_index_without_text_are_told_before_the_work(
        self, index: Path, recommender: gm.Recommender, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def fit(*_: object) -> None:
            raise AssertionError("the work has begun")

        monkeypatch.setattr("geo_mf.comparison.of_index.refitted", fit)
        folder = CliRunner().invoke(app, ["compare", str(index), "--out", str(tmp_path)])
        assert folder.exit_code == 74
        assert "this is a folder; give --out the name of a file" in folder.stderr
        mute = changed(recommender, embeddings=np.zeros_like(recommender.embeddings))
        monkeypatch.setattr("geo_mf.store.binding.load", lambda _: mute)
        silent = CliRunner().invoke(app, ["compare", str(index), "--out", str(tmp_path / "report.html")])
        assert silent.exit_code == 65
        assert "this index has no text to compare with" in silent.stderr
