"""Where words go: data to standard output, notes and progress to standard error."""

import datetime
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from json import dumps
from typing import Annotated, Any

import typer

__all__ = ["Output", "printable"]


@dataclass(frozen=True)
class Output:
    """How a command speaks; every command has these options."""

    json: Annotated[bool, typer.Option("--json", help="Write one JSON document to standard output.")] = False
    no_progress: Annotated[
        bool, typer.Option("--no-progress", help="No progress bars. There are none anyway without a terminal.")
    ] = False
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False

    @property
    def progress(self) -> bool:
        """Whether to show progress bars."""
        return not self.no_progress and sys.stderr.isatty()

    def data(self, value: Any) -> None:
        """One JSON document. Ids that JSON has no word for (bytes, dates) become strings."""
        typer.echo(dumps(value, default=_plain, ensure_ascii=False, allow_nan=False, indent=2))

    def say(self, text: str = "") -> None:
        """Text for people, on standard output; nothing with --json."""
        if not self.json:
            typer.echo(text)

    def note(self, text: str) -> None:
        """What is worth knowing, but is not the answer: standard error."""
        typer.echo(text, err=True)

    def table(self, header: Sequence[str], rows: Sequence[Sequence[str]], right: Sequence[int] = ()) -> None:
        """A table for people: drawn on a terminal, aligned columns elsewhere. `right`: columns of numbers."""
        cells = [[printable(cell) for cell in row] for row in rows]
        if self.json:
            return
        if sys.stdout.isatty():
            _draw(header, cells, right)
            return
        widths = [max(map(len, column)) for column in zip(header, *cells, strict=True)]
        for line in ([header] if any(header) else []) + cells:
            aligned = [
                cell.rjust(width) if column in right else cell.ljust(width)
                for column, (cell, width) in enumerate(zip(line, widths, strict=True))
            ]
            typer.echo("  ".join(aligned).rstrip())


def printable(text: str) -> str:
    """One line without control and invisible characters: a title must not move the cursor of a terminal."""
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())


def _draw(header: Sequence[str], cells: Sequence[Sequence[str]], right: Sequence[int]) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    drawn = Table(box=box.SIMPLE_HEAD, show_header=any(header), pad_edge=False)
    for column, name in enumerate(header):
        drawn.add_column(name, justify="right" if column in right else "left")
    for row in cells:
        drawn.add_row(*map(Text, row))  # as Text, because square brackets in a title are not markup
    Console().print(drawn)


def _plain(value: object) -> str:
    if isinstance(value, bytes):
        return value.decode("utf-8", "backslashreplace")
    if isinstance(value, datetime.date):
        return value.isoformat()
    raise TypeError(f"{type(value).__name__} has no form in JSON")
