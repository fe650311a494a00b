"""geo-mf compare: what behaviour knows that text does not, and the other way round."""

import errno
from pathlib import Path
from typing import Annotated

import typer

from geo_mf.cli import compiled
from geo_mf.cli.output import Output

__all__ = ["compare"]


def compare(
    index: Annotated[Path, typer.Argument(help="Folder of the index.", show_default=False)],
    output: Output,
    out: Annotated[
        Path | None, typer.Option(help="Write a page here, one HTML file that needs no network.", show_default=False)
    ] = None,
    colour: Annotated[
        str | None,
        typer.Option(
            help="Column to colour the page's maps by; by default the first with few values.", show_default=False
        ),
    ] = None,
    k: Annotated[int, typer.Option("--k", "-k", min=1, help="A pair is found when one is among the k nearest.")] = 20,
    seed: Annotated[int, typer.Option(min=0, help="Seed of every random choice.")] = 0,
) -> None:
    """Compare an index's factors with its embeddings.

    How alike they are, where they disagree, which of them finds what people touch together, and from how many
    interactions on. For the last, a fifth of the histories is held out and the factors are fitted again without it.
    With --out, all of it as a page with maps to point at.
    """
    if colour is not None and out is None:
        raise typer.BadParameter("colours the page of --out", param_hint="--colour")
    compiled.keep()
    from geo_mf.comparison.of_index import compare_index
    from geo_mf.files import replace
    from geo_mf.store.binding import load

    rec = load(index)
    if out is not None:
        from geo_mf.report import check_colour

        check_colour(rec, colour)  # what cannot be done is told before the work
        if out.is_dir():
            raise IsADirectoryError(errno.EISDIR, "this is a folder; give --out the name of a file", str(out))
        if not out.absolute().parent.is_dir():
            raise FileNotFoundError(errno.ENOENT, "there is no such folder to write to", str(out.absolute().parent))
    found = compare_index(rec, k=k, seed=seed)
    if out is not None:
        from geo_mf.report import index_report

        replace(out, index_report(rec, found, colour=colour, seed=seed).encode())
        output.note(f"wrote {out}")
    if output.json:
        output.data(found.to_dict())
    else:
        output.say(str(found))
