"""The README is true: its Python runs, its commands exist, its settings and defaults are those of the code."""

import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_command

import geo_mf
from geo_mf.builder.config import BuildConfig
from geo_mf.cli.app import app

README = Path(geo_mf.__file__).parent.parent / "README.md"
TEXT = README.read_text(encoding="utf-8")
MARK = "# runs: "


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", TEXT, re.MULTILINE | re.DOTALL)


RUNNABLE = [block for block in blocks("python") if block.startswith(MARK)]
COMMANDS = [
    line for block in blocks("sh") for line in block.replace("\\\n", " ").splitlines() if line.startswith("geo-mf ")
]


def test_there_is_something_to_check() -> None:
    assert len(RUNNABLE) == len(blocks("python")) >= 2
    assert len(COMMANDS) >= 4


@pytest.mark.parametrize("block", RUNNABLE, ids=lambda block: block.splitlines()[1][:30])
def test_python_blocks_run(block: str, tmp_path: Path) -> None:
    run = subprocess.run(
        [sys.executable, "-W", "error::UserWarning", "-c", block], cwd=tmp_path, capture_output=True, text=True
    )
    assert run.returncode == 0, run.stderr[-2000:]
    assert run.stdout.strip()


BENCHMARK = re.compile(r"`python\s+(benchmarks/\w+\.py)([^`]*)`")


def commands(group: Any = None, prefix: str = "") -> dict[str, Any]:
    """Every command by its name; those of a group as "index stats"."""
    found: dict[str, Any] = {}
    whole: Any = group or get_command(app)
    for name, command in whole.commands.items():
        found |= commands(command, f"{name} ") if hasattr(command, "commands") else {prefix + name: command}
    return found


def options_of(command: str) -> set[str]:
    params = commands()[command].params
    return {flag for option in params for flag in [*option.opts, *option.secondary_opts]} | {"--help"}


@pytest.mark.parametrize("line", COMMANDS)
def test_commands_exist_with_their_options(line: str) -> None:
    _, command, *words = shlex.split(line)
    if (inner := " ".join([command, *words[:1]])) in commands():
        command = inner
    used = {word for word in words if re.fullmatch(r"--?[a-z][a-z0-9-]*", word)}
    assert used - options_of(command) == set()


def test_every_command_and_option_named_in_the_text_exists() -> None:
    known = commands()
    groups = {name.split()[0] for name in known if " " in name}
    named = re.findall(r"`geo-mf ([a-z-]+)(?: ([a-z-]+))?", TEXT)
    assert {f"{one} {two}" if one in groups else one for one, two in named} - set(known) == set()
    every = {flag for command in known for flag in options_of(command)}
    assert set(re.findall(r"(?<![\w-])--[a-z][a-z0-9-]*", BENCHMARK.sub("", TEXT))) - every == set()


def test_every_benchmark_named_in_the_text_exists_with_its_options() -> None:
    named = BENCHMARK.findall(TEXT)
    assert named
    for name, words in named:
        source = (README.parent / name).read_text(encoding="utf-8")
        for option in re.findall(r"--[a-z][a-z-]*", words):
            known = f'"{option}"' in source or f'("{option[2:]}", ' in source  # options made in a loop
            assert known, f"{name} has no {option}"


def test_make_targets_exist() -> None:
    makefile = (README.parent / "Makefile").read_text(encoding="utf-8")
    for target in set(re.findall(r"\bmake ([a-z]+)", TEXT)):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target


def test_the_table_of_settings_is_that_of_the_code() -> None:
    rows = dict(re.findall(r"^\| `(\w+)` \| `([^`]+)` \|", TEXT, re.MULTILINE))
    assert rows == {name: str(field.default) for name, field in BuildConfig.model_fields.items()}


def test_links_lead_somewhere() -> None:
    links = re.findall(r"\]\(([^)#]+)\)", TEXT)
    assert links
    assert [link for link in links if "://" not in link and not (README.parent / link).exists()] == []
