"""geo-mf export: the vectors of an index in a file that other tools read."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from geo_mf.cli import compiled
from geo_mf.cli.output import Output
from geo_mf.cli.recommend import Index

__all__ = ["export"]


def export(
    index: Index,
    output: Output,
    out: Annotated[
        Path,
        typer.Option(
            help="The file. Its suffix says in which format: .parquet, .npy, .npz, .safetensors, .faiss, or .tsv for "
            "the TensorBoard projector.",
            show_default=False,
        ),
    ],
    space: Annotated[
        Literal["blend", "factors", "text"],
        typer.Option(help="What behaviour taught (factors), what the texts say (text), or the rows that are searched."),
    ] = "blend",
    of: Annotated[Literal["items", "users"], typer.Option(help="Whose vectors.")] = "items",
    columns: Annotated[
        list[str] | None, typer.Option(help="Columns of the catalogue to put beside: a,b,c. Can be given again.")
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a file that is there.")] = False,
) -> None:
    """Write the vectors of items or users to a file.

    To Parquet, NumPy, safetensors, a plain Faiss index or the TensorBoard projector. Items that were removed are left
    out.
    """
    compiled.keep()
    from geo_mf.export.vector_files import export_vectors
    from geo_mf.store.binding import load

    found = export_vectors(
        load(index),
        out,
        space=space,
        of=of,
        columns=[name.strip() for each in columns or [] for name in each.split(",") if name.strip()],
        overwrite=overwrite,
        show_progress=output.progress,
    )
    if output.json:
        output.data(found.to_dict())
    else:
        output.say(str(found))
