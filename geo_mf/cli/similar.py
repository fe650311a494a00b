"""geo-mf similar: the items nearest to one."""

from typing import Annotated, Literal

import typer

from geo_mf.cli import compiled
from geo_mf.cli.listing import show
from geo_mf.cli.output import Output
from geo_mf.cli.recommend import Count, Index, Where

__all__ = ["similar"]


def similar(
    index: Index,
    item: Annotated[str, typer.Argument(help="Id of the item.", show_default=False)],
    output: Output,
    space: Annotated[
        Literal["blend", "factors", "text"],
        typer.Option(help="Touched by the same people (factors), worded alike (text), or both."),
    ] = "blend",
    where: Where = None,
    k: Count = 10,
) -> None:
    """List the items nearest to one."""
    compiled.keep()
    from geo_mf.store.binding import load

    rec = load(index)
    found = rec.similar_items(rec.catalog.items.parse(item), k=k, space=space, where=where)
    if output.json:
        output.data(found.to_dict() | {"index_version": rec.card["version"]})
    else:
        show(found, output)
