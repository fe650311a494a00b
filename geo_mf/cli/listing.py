"""How recommendations look on a screen."""

from typing import TYPE_CHECKING

from geo_mf.cli.output import Output, printable

if TYPE_CHECKING:
    from geo_mf.recommendations import Recommendations

__all__ = ["short", "show"]


def show(found: "Recommendations", output: Output) -> None:
    """A list of items as a table, and why it is shorter than asked."""
    rows = [
        (
            str(place),
            str(item.id),
            short(item.title) + (" (new)" if item.cold else ""),
            f"{item.score:.3f}",
            f"{item.behaviour:.3f}",
            f"{item.text:.3f}",
            "; ".join(f"{short(reason.title, 28)} ({reason.share:+.2f})" for reason in item.because[:2]),
        )
        for place, item in enumerate(found, 1)
    ]
    explained = any(item.because for item in found)
    header = ("#", "item", "title", "score", "behaviour", "text", "because")
    width = len(header) if explained else len(header) - 1
    output.table(header[:width], [row[:width] for row in rows], right=(0, 3, 4, 5))
    if found.reason:
        output.say(found.reason)


def short(text: str, width: int = 48) -> str:
    """At most `width` characters of one printable line."""
    line = printable(text)
    return line if len(line) <= width else line[: width - 1] + "…"
