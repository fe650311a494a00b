"""geo-mf similar: the items nearest to one."""

from typing import Annotated, Literal

import typer

from geo_mf.cli import compiled
from geo_mf.cli.listing import show
from geo_mf.cli.output import Output
from geo_mf.cli.recommend import (
    AtMost,
    Count,
    Diversity,
    Everybody,
    Index,
    Out,
    Where,
    everybody_into,
    limits_of,
    rerankers,
    written,
)

__all__ = ["similar"]


def similar(
    index: Index,
    output: Output,
    item: Annotated[str | None, typer.Argument(help="Id of the item.", show_default=False)] = None,
    space: Annotated[
        Literal["blend", "factors", "text"],
        typer.Option(help="Touched by the same people (factors), worded alike (text), or both."),
    ] = "blend",
    where: Where = None,
    k: Count = 10,
    diversity: Diversity = 0.0,
    at_most: AtMost = None,
    everybody: Everybody = False,
    out: Out = None,
) -> None:
    """List the items nearest to one, or to each (--all)."""
    alone = item is None and not diversity and not at_most
    folder = everybody_into(everybody, out, None if alone else "--space, --where and -k")
    if item is None and not everybody:
        raise typer.BadParameter("give the id of an item, or --all", param_hint="ITEM")
    limits = limits_of(at_most)
    compiled.keep()
    from geo_mf.store.binding import load

    rec = load(index)
    if folder is not None:
        from geo_mf.export.jobs import similar_items_all

        shown = output.progress
        written(similar_items_all(rec, folder, k=k, space=space, where=where, show_progress=shown), output)
        return
    one = rec.catalog.items.parse(item or "")
    found = rec.similar_items(one, k=k, space=space, where=where, rerank=rerankers(diversity, limits))
    if output.json:
        output.data(found.to_dict() | {"index_version": rec.card["version"]})
    else:
        show(found, output)
