"""geo-mf recommend: the best items for a reader, for a few clicks, for a sentence, or for any mix of them."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from geo_mf.cli import compiled
from geo_mf.cli.listing import show
from geo_mf.cli.output import Output

if TYPE_CHECKING:
    from geo_mf.data.ids import IdMap
    from geo_mf.export.jobs import Export
    from geo_mf.rerank.pool import Reranker

__all__ = ["recommend"]

Index = Annotated[Path, typer.Argument(help="Folder of the index.", show_default=False)]
Count = Annotated[int, typer.Option("--k", "-k", min=1, help="How many items.")]
Where = Annotated[
    str | None, typer.Option(help="Condition on the catalogue's columns, such as 'year >= 1990 and topic == \"film\"'.")
]
Everybody = Annotated[bool, typer.Option("--all", help="Lists for all, as Parquet files in the folder --out.")]
Out = Annotated[
    Path | None,
    typer.Option(help="With --all: a new folder, or one of the same job that was begun.", show_default=False),
]
Diversity = Annotated[
    float, typer.Option(min=0, max=1, help="How much unlikeness counts beside the score, from 0 to 1.")
]
AtMost = Annotated[
    list[str] | None,
    typer.Option(
        metavar="COLUMN=N",
        help="No more than N items with the same value of a column, such as author=2, or a share of the list, such "
        "as author=0.3. Can be given again.",
    ),
]


def recommend(
    index: Index,
    output: Output,
    user: Annotated[str | None, typer.Option(help="Id of a known user.")] = None,
    history: Annotated[
        list[str] | None, typer.Option(help="Ids of items the person liked: a,b,c. Can be given again.")
    ] = None,
    text: Annotated[str | None, typer.Option(help="A sentence that says what is wanted.")] = None,
    where: Where = None,
    k: Count = 10,
    weights: Annotated[
        str | None, typer.Option(help="How much behaviour and text count, such as 1,0.3; by default learned.")
    ] = None,
    trending: Annotated[bool, typer.Option("--trending", help="What everybody touches lately; asks nothing else.")] = (
        False
    ),
    include_seen: Annotated[bool, typer.Option("--include-seen", help="Keep items of the history in the list.")] = (
        False
    ),
    diversity: Diversity = 0.0,
    at_most: AtMost = None,
    encoder: Annotated[
        str | None,
        typer.Option(help="Model that reads --text: a folder, or a hub name. By default the one that built the index."),
    ] = None,
    other_encoder: Annotated[
        bool,
        typer.Option(
            "--other-encoder", help="Take --encoder even if it is not the one that built the index: I know they agree."
        ),
    ] = False,
    everybody: Everybody = False,
    out: Out = None,
) -> None:
    """Recommend items to anybody.

    To a known user (--user), to somebody new with a few clicks (--history), for a sentence (--text), or to any mix of
    these; to somebody of whom nothing is known, what everybody touches lately (--trending). To all known users: --all.
    """
    asked = user is not None or history or text is not None or weights is not None
    if trending and (asked or include_seen):
        raise typer.BadParameter("goes with --where, -k, --diversity and --at-most alone", param_hint="--trending")
    more = asked or trending or diversity or at_most
    folder = everybody_into(everybody, out, "--where, -k and --include-seen" if more else None)
    shares = None if weights is None else _weights(weights)
    limits = limits_of(at_most)
    compiled.keep()
    from geo_mf.store.binding import load
    from geo_mf.text.encoder import encoder_named

    rec = load(index, encoder=None if encoder is None else encoder_named(encoder), other_encoder=other_encoder)
    if folder is not None:
        from geo_mf.export.jobs import recommend_all

        written(
            recommend_all(rec, folder, k=k, where=where, exclude_seen=not include_seen, show_progress=output.progress),
            output,
        )
        return
    items = rec.catalog.items
    if trending:
        found = rec.trending(k=k, where=where, rerank=rerankers(diversity, limits))
    else:
        found = rec.recommend(
            None if user is None else rec.users.parse(user),
            history=[one for words in history for one in _ids(words, items)] if history else None,
            text=text,
            k=k,
            where=where,
            weights=shares,
            exclude_seen=not include_seen,
            rerank=rerankers(diversity, limits),
        )
    if output.json:
        output.data(found.to_dict() | {"index_version": rec.card["version"]})
    else:
        show(found, output)


def everybody_into(everybody: bool, out: Path | None, alone: str | None) -> Path | None:
    """The folder for all lists, if they are asked for; a usage error when the options do not go together.

    Args:
        everybody: --all.
        out: --out.
        alone: what --all goes with, where something else was given.
    """
    if everybody and alone:
        raise typer.BadParameter(f"goes with {alone} alone", param_hint="--all")
    if everybody and out is None:
        raise typer.BadParameter("needs a folder to write to: --out FOLDER", param_hint="--all")
    if out is not None and not everybody:
        raise typer.BadParameter("goes with --all", param_hint="--out")
    return out


def written(export: "Export", output: Output) -> None:
    """Tell what lies in the folder."""
    if output.json:
        output.data(export.to_dict())
    else:
        output.say(str(export))


def _weights(text: str) -> tuple[float, float]:
    try:
        behaviour, words = (float(part) for part in text.split(","))
    except ValueError as error:
        raise typer.BadParameter(
            f"{text!r} is not two numbers; expected behaviour,text such as 1,0.3", param_hint="--weights"
        ) from error
    return behaviour, words


def limits_of(at_most: list[str] | None) -> list[tuple[str, int | float]]:
    """What --at-most says, column by column; a usage error where it says nothing that can be meant."""
    return [_limit(one) for one in at_most or []]


def _limit(text: str) -> tuple[str, int | float]:
    """The column and the limit in "author=2" or "author=0.3"."""
    column, _, number = text.rpartition("=")
    try:
        limit = float(number) if "." in number else int(number)
    except ValueError:
        limit = 0
    if not column or not (0 < limit <= 1 if isinstance(limit, float) else limit >= 1):
        raise typer.BadParameter(
            f"{text!r} is no limit; expected a column and a whole number of at least 1, such as author=2, or a share "
            "between 0 and 1, such as author=0.3",
            param_hint="--at-most",
        )
    return column, limit


def rerankers(diversity: float, limits: list[tuple[str, int | float]]) -> "list[Reranker]":
    """What --diversity and --at-most ask for. Diversity first: a quota keeps the order it finds, to the end."""
    if not diversity and not limits:
        return []
    from geo_mf.rerank.mmr import MMR
    from geo_mf.rerank.quota import Quota

    found: list[Reranker] = [MMR(diversity)] if diversity else []
    return found + [Quota(column, at_most=limit) for column, limit in limits]


def _ids(words: str, items: "IdMap") -> list[Any]:
    """The ids in "a,b,c"; an id that itself holds a comma is taken whole when the catalogue has it."""
    if "," not in words or (words := words.strip()) in items:
        return [items.parse(words)]
    return [items.parse(word.strip()) for word in words.split(",") if word.strip()]
