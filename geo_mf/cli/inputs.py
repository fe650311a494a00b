"""The options that say what to read and how to build, shared by `build`, `evaluate` and `tune`."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from geo_mf.cli.output import Output

if TYPE_CHECKING:
    from geo_mf.builder.config import BuildConfig
    from geo_mf.data.catalog import Catalog
    from geo_mf.data.interactions import Interactions
    from geo_mf.data.people import People

__all__ = ["Settings", "Sources"]


@dataclass(frozen=True)
class Sources:
    """The files of the user, and what their columns mean."""

    interactions: Annotated[
        Path, typer.Option(help="Who touched what: .csv, .tsv, .jsonl (also with .gz) or .parquet.", show_default=False)
    ]
    items: Annotated[
        Path | None, typer.Option(help="The catalogue, one row an item. Without it, items have no text.")
    ] = None
    user_col: Annotated[str, typer.Option(help="Column of user ids, in every file that has them.")] = "user_id"
    item_col: Annotated[str, typer.Option(help="Column of item ids, in both files.")] = "item_id"
    weight_col: Annotated[str | None, typer.Option(help="Column of weights; by default 'weight' if it is there.")] = (
        None
    )
    datetime_col: Annotated[
        str | None, typer.Option(help="Column of datetimes; by default 'datetime' if it is there.")
    ] = None
    min_weight: Annotated[float | None, typer.Option(help="Leave out interactions below this weight.")] = None
    duplicates: Annotated[
        Literal["sum", "last", "max"], typer.Option(help="What becomes of a (user, item) pair that occurs again.")
    ] = "sum"
    duplicate_items: Annotated[
        Literal["error", "last", "first"], typer.Option(help="What becomes of an item that is listed again.")
    ] = "error"
    max_bad_rows: Annotated[
        int, typer.Option(min=-1, help="Rows of a file that may be rejected; -1 for any number.")
    ] = 0
    text: Annotated[
        str | None,
        typer.Option(help="Text of an item: a column, or a template such as '{title}. {genres}'.", show_default=False),
    ] = None
    title_col: Annotated[str | None, typer.Option(help="Column of titles; by default title, name or headline.")] = None
    users: Annotated[
        Path | None,
        typer.Option(
            help="What is known of users, one row each, with --user-col: numbers, dates, categories, lists.",
            show_default=False,
        ),
    ] = None

    def read_interactions(self) -> "Interactions":
        """The interactions. Errors as in `geo_mf.data.read.read_interactions`."""
        from geo_mf.data.read import read_interactions

        return read_interactions(
            self.interactions,
            user_col=self.user_col,
            item_col=self.item_col,
            weight_col=self.weight_col,
            datetime_col=self.datetime_col,
            duplicates=self.duplicates,
            min_weight=self.min_weight,
            max_bad_rows=self.max_bad_rows,
        )

    def read_catalog(self) -> "Catalog | None":
        """The catalogue, or None without --items. Errors as in `geo_mf.data.read.read_catalog`."""
        from geo_mf.data.read import read_catalog

        if self.items is None:
            return None
        return read_catalog(
            self.items,
            item_col=self.item_col,
            text=self.text,
            title_col=self.title_col,
            duplicates=self.duplicate_items,
            max_bad_rows=self.max_bad_rows,
        )

    def check_users(self, settings: "Settings") -> None:
        """Settings of --users without it are a mistake, told before anything is read."""
        if self.users is None and settings.user_attributes is not None:
            raise typer.BadParameter("goes with --users", param_hint="--user-attributes")

    def read_users(self) -> "People | None":
        """What is known of users, or None without --users. Errors as in `geo_mf.data.read.read_users`."""
        from geo_mf.data.read import read_users

        return None if self.users is None else read_users(self.users, user_col=self.user_col)

    def read_listed(self, output: Output) -> "tuple[Interactions, Catalog, int]":
        """Interactions with items of the catalogue, the catalogue (without --items of their items), and how many rows
        were left out, which is noted."""
        from geo_mf.data.catalog import Catalog

        interactions = self.read_interactions()
        catalog = self.read_catalog() or Catalog.from_ids(interactions.items)
        listed, unlisted = interactions.align(items=catalog.items)
        if unlisted:
            output.note(f"{unlisted:,} interactions left out: the catalogue does not list their items")
        return listed, catalog, unlisted


@dataclass(frozen=True)
class Settings:
    """The settings of `BuildConfig`, which says what they mean at length."""

    factors: Annotated[int | None, typer.Option(min=1, max=4096, help="Length of a factor; by default 128 to 512.")] = (
        None
    )
    regularization: Annotated[
        float | None, typer.Option(help="How strongly factors are pulled to what the text says; by default chosen.")
    ] = None
    unobserved_weight: Annotated[
        float | None, typer.Option(min=0, help="Weight of a pair nobody was seen to touch; by default chosen.")
    ] = None
    iterations: Annotated[int, typer.Option(min=1, help="Epochs of the factorization.")] = 8
    nu: Annotated[
        float | None,
        typer.Option(min=0, max=2, help="Exponent of frequency-scaled regularisation; 0.7."),
    ] = None
    activity_discount: Annotated[
        float | None,
        typer.Option(min=0, max=1, help="How much less interactions of busy users count; 0.25."),
    ] = None
    popularity_discount: Annotated[
        float | None,
        typer.Option(min=0, max=1, help="How much less interactions of popular items count; 0.3."),
    ] = None
    solver: Annotated[Literal["cg", "cholesky"], typer.Option(help="How a row is solved.")] = "cg"
    cg_steps: Annotated[int, typer.Option(min=1, help="Conjugate gradient steps of a row.")] = 3
    prior_regularization: Annotated[float, typer.Option(help="Shrinkage of the map from text to factors.")] = 3.0
    weighting: Annotated[
        Literal["log", "linear", "uniform"], typer.Option(help="What a weight means: log(1 + w), w, or nothing.")
    ] = "log"
    encoder: Annotated[
        str | None,
        typer.Option(
            help="A folder or hub name of a sentence-transformers model, or 'hash'; by default all-MiniLM-L6-v2."
        ),
    ] = None
    no_cache: Annotated[
        bool, typer.Option("--no-cache/--cache", help="Keep no embeddings and no compiled code on disk.")
    ] = False
    no_learn_blend: Annotated[
        bool,
        typer.Option(
            "--no-learn-blend/--learn-blend",
            help="Do not learn how much text and the trend count, nor how firmly newcomers are held; saves fits.",
        ),
    ] = False
    attributes: Annotated[
        str, typer.Option(help="Columns, separated by commas, that are features beside the text: genres,year.")
    ] = ""
    user_attributes: Annotated[
        str | None, typer.Option(help="Columns of --users, separated by commas, that count; by default all.")
    ] = None
    cold_share: Annotated[
        float | None,
        typer.Option(min=0, max=1, help="Share of the interactions to come that you expect for cold items."),
    ] = None
    index: Annotated[str | None, typer.Option(help="Kind of index, a Faiss factory string; by default planned.")] = None
    recall: Annotated[
        float, typer.Option(min=0, max=1, help="Share of the true best items that the index has to find.")
    ] = 0.95
    text_dims: Annotated[
        int | None, typer.Option(min=1, help="Dimensions of the text in which the index looks for candidates.")
    ] = None
    index_rate: Annotated[
        float, typer.Option(help="Queries a second that one core should answer, before the index looks at a part only.")
    ] = 300.0
    index_memory: Annotated[
        int | None, typer.Option(min=0, help="Megabytes that the index may take beside the vectors.")
    ] = None
    threads: Annotated[int, typer.Option(min=0, help="Cores of a build, 0 for all.")] = 0
    seed: Annotated[int, typer.Option(help="Seed of every random choice.")] = 0

    def config(self) -> "BuildConfig":
        """The same as a `BuildConfig`. Raises InvalidInput for a setting out of range."""
        from geo_mf.builder.config import BuildConfig

        settings = asdict(self)
        positive = {name: not settings.pop(f"no_{name}") for name in ("cache", "learn_blend")}
        return BuildConfig.of(**settings, **positive)
