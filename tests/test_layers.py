"""The house: imports point to the left, every file is on the plan, and the front door stays light."""

import ast
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

import pytest

import geo_mf

ROOT = Path(geo_mf.__file__).parent
HOUSE = ROOT.parent / "docs" / "house.md"
ORDER = (
    "errors < threads | files < data < text | geometry | index < factorize < rerank < recommendations < query "
    "< folding | likeness | told < snapshot < living < view < recommender < store < builder < evaluation "
    "< comparison | export | plot < report < serve < cli"
)
LAYER = {room.strip(): place for place, layer in enumerate(ORDER.split("<")) for room in layer.split("|")}
FILES = sorted(ROOT.rglob("*.py"))


def imported(source: str, package: tuple[str, ...]) -> Iterator[str]:
    """Every module of geo_mf that a file names in an import: at its top, inside functions, and for type checkers."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names if name.name.split(".")[0] == "geo_mf")
        elif isinstance(node, ast.ImportFrom):
            parents = package[: len(package) - node.level + 1] if node.level else ()
            module = ".".join([*parents, *([node.module] if node.module else [])])
            if module == "geo_mf":
                yield from (f"geo_mf.{name.name}" for name in node.names)
            elif module.startswith("geo_mf."):
                yield module
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith(("import_module", "__import__")):
            yield f"geo_mf.{ast.unparse(node)}"  # no room is called so: an import that cannot be followed is refused


def wrong_arrows(source: str, package: tuple[str, ...]) -> list[str]:
    """The imports of a file that do not point to the left. `package`: of the file, such as ("geo_mf", "data")."""
    room = package[1]
    wrong = []
    for module in imported(source, package):
        other = module.split(".")[1] if "." in module else module
        if other in (room, "__version__"):
            continue
        if other not in LAYER or LAYER[other] >= LAYER[room]:
            wrong.append(f"{room} imports {module}")
    return wrong


def package_of(file: Path) -> tuple[str, ...]:
    inner = file.relative_to(ROOT).with_suffix("").parts
    return ("geo_mf", *(inner if len(inner) == 1 else inner[:-1]))


@pytest.mark.parametrize(
    "file", [f for f in FILES if f != ROOT / "__init__.py"], ids=lambda f: str(f.relative_to(ROOT))
)
def test_imports_point_to_the_left(file: Path) -> None:
    assert package_of(file)[1] in LAYER, f"{file.name} lies in no room of the order: {ORDER}"
    assert wrong_arrows(file.read_text(encoding="utf-8"), package_of(file)) == []


@pytest.mark.parametrize(
    "source",
    [
        "import geo_mf.store",
        "from geo_mf.cli import app",
        "from geo_mf import recommender",
        "import geo_mf as gm",
        "from geo_mf import build",
        "def f():\n    from geo_mf.builder import build",
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from geo_mf.recommender import Recommender",
        "from geo_mf.text.encoder import TextEncoder",
        "from geo_mf.geometry import blend",
        "from ..store import publish",
        "import importlib\nimportlib.import_module('geo_mf.store')",
    ],
)
def test_a_wrong_arrow_is_seen(source: str) -> None:
    assert len(wrong_arrows(source, ("geo_mf", "index"))) == 1


@pytest.mark.parametrize(
    "source",
    [
        "import numpy",
        "from geo_mf.errors import InvalidInput",
        "from geo_mf import __version__",
        "from geo_mf.index.exact import Hits",
        "from .exact import Hits",
        "from ..data.ids import IdMap",
    ],
)
def test_a_right_arrow_passes(source: str) -> None:
    assert wrong_arrows(source, ("geo_mf", "index")) == []


def test_the_plan_of_the_house_names_every_file() -> None:
    plan = HOUSE.read_text(encoding="utf-8")
    missing = [
        name
        for file in FILES
        if file.stat().st_size and f"`{(name := file.relative_to(ROOT.parent).as_posix())}`" not in plan
    ]
    named = re.findall(r"`(geo_mf/[\w/]+\.py)`", plan)
    assert missing == [], "add a line to docs/house.md"
    assert [name for name in named if not (ROOT.parent / name).is_file()] == [], "docs/house.md names what is gone"
    assert ORDER in " ".join(plan.split()), "docs/house.md gives another order of layers"


def test_importing_the_package_is_light() -> None:
    code = (
        "import time, sys, json; began = time.process_time(); import geo_mf; spent = time.process_time() - began; "
        "print(json.dumps([spent, [name for name in sys.modules if name in ('torch', 'jax', 'numpy', 'pandas')]]))"
    )
    spent, loaded = json.loads(subprocess.run([sys.executable, "-c", code], check=True, capture_output=True).stdout)
    assert loaded == []
    assert spent < 0.3


@pytest.mark.parametrize(
    "arguments", [["--help"], ["build", "--help"], ["recommend", "--help"], ["tune", "--help"], ["compress", "--help"]]
)
def test_help_needs_neither_torch_nor_jax_and_is_quick(arguments: list[str]) -> None:
    code = (
        "import atexit, sys, time; began = time.process_time()\n"
        "atexit.register(lambda: print(time.process_time() - began, file=sys.stderr))\n"
        "for name in ('torch', 'jax', 'faiss', 'pyarrow', 'sentence_transformers'): sys.modules[name] = None\n"
        f"sys.argv = ['geo-mf', *{arguments!r}]\n"
        "from geo_mf.cli import main\n"
        "main()"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    assert "Usage: geo-mf" in run.stdout
    assert float(run.stderr) < 0.5


def test_public_names() -> None:
    assert list(geo_mf.__all__) == sorted(geo_mf.__all__)
    assert {name for name in geo_mf.__all__ if getattr(geo_mf, name, None) is None} == set()
    public = {name for name in geo_mf._HOME if not name.startswith("_")} | {"__version__"}
    assert set(geo_mf.__all__) == public
    assert set(dir(geo_mf)) == public
    with pytest.raises(AttributeError, match="no attribute 'recomend'"):
        geo_mf.recomend  # noqa: B018


def test_verbs_are_functions_and_no_module_stands_in_their_place() -> None:
    for name in (
        "build",
        "compare",
        "compare_index",
        "compress",
        "evaluate",
        "load",
        "tune",
        "verify",
        "read_catalog",
        "read_interactions",
        "recommend_all",
    ):
        assert type(getattr(geo_mf, name)).__name__ == "function"


def test_the_changelog_begins_with_this_version() -> None:
    changelog = (ROOT.parent / "CHANGELOG.md").read_text(encoding="utf-8")
    top = re.search(r"^## (\S+)", changelog, re.MULTILINE)
    assert top is not None and top[1] == geo_mf.__version__ == metadata.version("geo_mf")


def test_constraints_are_plain_pins() -> None:
    lines = (ROOT.parent / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pins = [line for line in lines if line and not line.startswith("#")]
    assert [pin for pin in pins if not re.fullmatch(r"[a-z0-9-]+==[0-9][0-9a-z.]*", pin)] == []
    assert [pin for pin in pins if pin.startswith(("nvidia", "cuda", "triton"))] == []
    names = {pin.split("==")[0] for pin in pins}
    wanted = {
        re.split(r"[<>=\[; ]", need)[0].lower().replace("_", "-") for need in metadata.requires("geo_mf") or []
    } - {"geo-mf"}
    assert wanted - names == set()


def test_no_file_names_a_machine_or_a_registry() -> None:
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT.parent, capture_output=True, text=True)
    if listed.returncode != 0:
        pytest.skip("not a git checkout")
    hosts = ["pypi" + ".org", "pythonhosted" + ".org", "pytorch" + ".org", "npmjs" + ".", "anaconda" + ".org"]
    pattern = re.compile("|".join([r"(?<![\w.}/])/(?:home|root|Users|work|mnt)/\w", *map(re.escape, hosts)]))
    found = [
        f"{name}: {match[0]}"
        for name in listed.stdout.split("\0")
        if name and (file := ROOT.parent / name).is_file()
        for match in [pattern.search(file.read_bytes().decode("utf-8", "replace"))]
        if match
    ]
    assert found == []
