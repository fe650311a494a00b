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
