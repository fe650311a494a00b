"""geo-mf evaluate: how good would an index of these data be, beside simple baselines?"""

from typing import TYPE_CHECKING, Annotated, Literal

import typer

from geo_mf.cli import compiled
from geo_mf.cli.inputs import Settings, Sources
from geo_mf.cli.output import Output

if TYPE_CHECKING:
    from geo_mf.data.interactions import Interactions
    from geo_mf.evaluation.split import Split

__all__ = ["evaluate"]

Kind = Literal["temporal", "random", "leave-last", "cold-items"]


def evaluate(
    sources: Sources,
    settings: Settings,
    output: Output,
    split: Annotated[
        Kind | None, typer.Option(help="How to hold out; by default temporal with datetimes, else random.")
    ] = None,
    test_fraction: Annotated[
        float, typer.Option(help="Share of the interactions (or, for cold-items, of the items) to hold out.")
    ] = 0.2,
    k: Annotated[list[int] | None, typer.Option("--k", "-k", min=1, help="Length of the lists; 10. Repeatable.")] = (
        None
    ),
) -> None:
    """Judge an index of two files, or three, by a part held out.

    The rest is built in memory. The table holds the blend, its factors alone, popularity and content kNN. Nothing is
    published. Every option can also be set in the environment, as GEO_MF_ and its name in capitals, or in a TOML file
    (--config).
    """
    sources.check_users(settings)
    if not settings.no_cache:
        compiled.keep()
    from geo_mf.evaluation.run import evaluate as judge

    config = settings.config()
    listed, catalog, unlisted = sources.read_listed(output)
    chosen = split or ("random" if listed.datetimes is None else "temporal")
    people, parts = sources.read_users(), _split(listed, chosen, test_fraction, settings.seed)
    report = judge(config, parts, k=k or [10], catalog=catalog, users=people)
    if output.json:
        output.data(report.to_dict() | {"config": config.model_dump(), "unlisted_interactions": unlisted})
    output.say(str(report))


def _split(interactions: "Interactions", kind: Kind, fraction: float, seed: int) -> "Split":
    from geo_mf.evaluation import split

    if kind == "temporal":
        return split.temporal_split(interactions, fraction)
    if kind == "leave-last":
        return split.leave_last(interactions)
    if kind == "random":
        return split.random_split(interactions, fraction, seed)
    return split.cold_items_split(interactions, fraction, seed)
