"""geo-mf compress: a smaller, faster text encoder for texts like these."""

from pathlib import Path
from typing import Annotated, Any

import typer

from geo_mf.cli.output import Output

__all__ = ["compress"]


def compress(
    model: Annotated[str, typer.Argument(help="A folder or hub name of a sentence-transformers model.")],
    output: Output,
    out: Annotated[Path | None, typer.Option(help="New folder of the smaller model.", show_default=False)] = None,
    texts: Annotated[
        Path | None,
        typer.Option(help="Texts to learn from, one row an item: .csv, .tsv, .jsonl or .parquet.", show_default=False),
    ] = None,
    text: Annotated[
        str | None, typer.Option(help="Text of a row: a column, or a template such as '{title}. {genres}'.")
    ] = None,
    item_col: Annotated[str, typer.Option(help="Column of item ids.")] = "item_id",
    ratio: Annotated[
        float, typer.Option(help="Share of the numbers in linear layers that is kept; 1 only exports.")
    ] = 0.5,
    tables: Annotated[
        float | None, typer.Option(help="Share of the largest word table to keep; by default all.")
    ] = None,
    epochs: Annotated[int, typer.Option(min=0, help="Passes of the distillation over the texts at most.")] = 8,
    onnx: Annotated[bool, typer.Option("--onnx", help="Also write it for onnxruntime, to OUT/onnx.")] = False,
    int8: Annotated[bool, typer.Option("--int8", help="Also write it with 8 bits, to OUT/onnx-int8.")] = False,
    threads: Annotated[int, typer.Option(min=0, help="Cores to use, 0 for all.")] = 0,
    seed: Annotated[int, typer.Option(help="Seed of every random choice.")] = 0,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Tell ranks and parameters, write nothing.")] = False,
) -> None:
    """Make a text encoder smaller and faster, measured on texts of yours: low-rank layers, then distillation.

    Build with it: geo-mf build --encoder OUT (or OUT/onnx, or OUT/onnx-int8). Run again after a kill, it goes on. With
    --ratio 1 nothing is compressed, and OUT is the model as ONNX alone.
    """
    if out is None and not dry_run:
        raise typer.BadParameter("give a new folder", param_hint="--out")
    if ratio == 1 and (dry_run or onnx == int8):
        raise typer.BadParameter("is 1: nothing is compressed; give one of --onnx and --int8", param_hint="--ratio")
    from geo_mf.data.read import read_catalog
    from geo_mf.text.compress import compress as compressed
    from geo_mf.text.compress import plan_compression
    from geo_mf.text.encoder import SentenceEncoder
    from geo_mf.text.onnx_export import check_packages, export_onnx
    from geo_mf.threads import limited

    if onnx or int8:
        check_packages()  # told now, and not after the work
    with limited(threads):
        encoder = SentenceEncoder(model)
        if out is not None and ratio == 1:
            export_onnx(encoder, out, int8=int8)
            _tell(output, {"out": str(out), "encoder": encoder.name, "int8": int8}, f"wrote {out}")
            return
        if texts is None:
            raise typer.BadParameter("give a file of texts like those to be encoded", param_hint="--texts")
        words = read_catalog(texts, item_col=item_col, text=text, duplicates="first").texts
        if dry_run or out is None:
            plan = plan_compression(encoder, words, ratio, seed, tables=tables, show_progress=output.progress)
            _tell(output, plan.to_dict() | {"dry_run": True}, f"{plan}; nothing was written")
            rows = [(name, "whole" if rank is None else str(rank)) for name, rank in plan.layers.items()]
            output.table(
                ("layer", "rank"), rows + [(name, str(rank)) for name, rank in plan.tables.items()], right=(1,)
            )
            return
        made = compressed(encoder, words, out, ratio, epochs, seed, tables=tables, show_progress=output.progress)
        small = SentenceEncoder(out)
        exported = [
            str(export_onnx(small, out / name, int8=name == "onnx-int8"))
            for wanted, name in ((onnx, "onnx"), (int8, "onnx-int8"))
            if wanted
        ]
    told = "\n".join([str(made), *(f"wrote {place}" for place in exported)])
    _tell(output, made.to_dict() | {"exported": exported}, told)


def _tell(output: Output, data: dict[str, Any], words: str) -> None:
    if output.json:
        output.data(data)
    output.say(words)
