"""Every notebook runs from a clean kernel on the bundled sample, and its rendered page is what its source says."""

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jupytext
import nbformat
import pytest
from nbformat import NotebookNode

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / "notebooks"
NAMES = [
    "01_build_an_index",
    "02_new_users_and_cold_items",
    "03_two_spaces",
    "04_choosing_the_blend",
    "05_choosing_the_rank",
]
SEE = "**What to see:**"
MOST_BYTES = 1_500_000


@pytest.fixture(scope="session")
def executed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of freshly executed notebooks. They run in a process of their own, as `make notebooks` runs them."""
    out = tmp_path_factory.mktemp("notebooks")
    run = subprocess.run(
        [sys.executable, str(FOLDER / "render.py"), "--out", str(out)],
        env=os.environ | {"GEO_MF_CACHE": str(out / "cache"), "PYTHONDEVMODE": ""},
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert run.returncode == 0, run.stderr
    return out


def cells(notebook: NotebookNode) -> list[tuple[str, str]]:
    return [(cell.cell_type, cell.source) for cell in notebook.cells]


def outputs(notebook: NotebookNode) -> Iterator[tuple[int, Any]]:
    for number, cell in enumerate(notebook.cells):
        for output in cell.get("outputs", []):
            yield number, output


def kinds(notebook: NotebookNode) -> list[tuple[int, str, str, tuple[str, ...]]]:
    """What each cell shows: kind, stream and formats, but not the figures, which may differ between processors."""
    return [(at, o.output_type, o.get("name", ""), tuple(sorted(o.get("data", {})))) for at, o in outputs(notebook)]


def words(notebook: NotebookNode) -> Iterator[str]:
    """Every text that a reader of the page is shown by a cell."""
    for _, output in outputs(notebook):
        yield output.get("text", "")
        yield from (text for kind, text in output.get("data", {}).items() if kind.startswith("text/"))


def committed(name: str) -> NotebookNode:
    return nbformat.read(FOLDER / f"{name}.ipynb", as_version=4)


def test_every_source_is_tested() -> None:
    assert sorted(path.stem for path in FOLDER.glob("[0-9]*.py")) == NAMES
    assert sorted(path.stem for path in FOLDER.glob("*.ipynb")) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_the_page_has_the_source_of_the_py_file(name: str) -> None:
    assert cells(committed(name)) == cells(jupytext.read(FOLDER / f"{name}.py"))


@pytest.mark.parametrize("name", NAMES)
def test_it_runs_and_the_page_shows_what_it_showed(name: str, executed: Path) -> None:
    fresh = nbformat.read(executed / f"{name}.ipynb", as_version=4)
    nbformat.validate(fresh)
    assert kinds(fresh) == kinds(committed(name))
    assert any("image/png" in output.get("data", {}) for _, output in outputs(fresh))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("which", ["fresh", "committed"])
def test_a_page_shows_answers_and_nothing_of_the_machine(name: str, which: str, request: pytest.FixtureRequest) -> None:
    folder = FOLDER if which == "committed" else request.getfixturevalue("executed")
    page = nbformat.read(folder / f"{name}.ipynb", as_version=4)
    assert {o.output_type for _, o in outputs(page)} <= {"stream", "execute_result", "display_data"}
    assert {o.name for _, o in outputs(page) if o.output_type == "stream"} <= {"stdout"}
    shown = "\n".join(words(page))
    machine = {str(ROOT), str(Path.home()), sys.prefix, tempfile.gettempdir(), "site-packages"} - {"/"}
    assert [word for word in (*machine, "Traceback", "Warning", "it/s]", "%|") if word in shown] == []


@pytest.mark.parametrize("name", NAMES)
def test_every_picture_is_followed_by_what_to_see(name: str) -> None:
    page = committed(name)
    for number, output in outputs(page):
        if "image/png" in output.get("data", {}):
            after = page.cells[number + 1]
            assert after.cell_type == "markdown" and after.source.startswith(SEE)


def test_the_pages_stay_small() -> None:
    assert sum((FOLDER / f"{name}.ipynb").stat().st_size for name in NAMES) < MOST_BYTES
