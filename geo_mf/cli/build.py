"""geo-mf build: from two files to a published index."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from geo_mf.cli import compiled
from geo_mf.cli.inputs import Settings, Sources
from geo_mf.cli.output import Output

if TYPE_CHECKING:
    from collections.abc import Mapping

    from geo_mf.builder.config import BuildConfig
    from geo_mf.data.catalog import Catalog
    from geo_mf.data.interactions import Interactions

__all__ = ["build", "card_rows"]


def build(
    sources: Sources,
    out: Annotated[Path, typer.Option(help="Folder of the index; its last part is the name.", show_default=False)],
    settings: Settings,
    output: Output,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Read and check everything, say what would be built, write nothing.")
    ] = False,
) -> None:
    """Build an index from two files, or three, and publish it.

    Every option can also be set in the environment, as GEO_MF_ and its name in capitals, or in a TOML file (--config).
    """
    sources.check_users(settings)
    if not settings.no_cache:
        compiled.keep()
    from geo_mf import builder
    from geo_mf.store import LAYOUT

    LAYOUT.checked_root(out)  # a bad name is told now, and not after the work is done
    config = settings.config()
    interactions, catalog = sources.read_interactions(), sources.read_catalog()
    people = sources.read_users()
    _note_bad_rows(output, sources, interactions, catalog)
    if dry_run:
        plan = _plan(interactions, catalog, config) | ({} if people is None else {"people": len(people)})
        if output.json:
            output.data(plan | {"out": str(out), "dry_run": True})
        output.say(f"would build {out}; nothing was written")
        output.table(("", ""), [(name.replace("_", " "), _cell(value)) for name, value in plan.items()])
        return
    rec = builder.build(interactions, catalog, users=people, out=out, config=config, show_progress=output.progress)
    from geo_mf.store import read_version  # the version just published, as a reader finds it

    manifest, _ = read_version(out, check="quick")
    if output.json:
        output.data(dict(rec.card) | {"out": str(out), "version": manifest.version, "bytes": manifest.total_size})
    output.say(f"built {out}, version {manifest.version}, {manifest.total_size / 1e6:,.1f} MB")
    output.table(("", ""), card_rows(rec.card))


def card_rows(card: "Mapping[str, Any]") -> list[tuple[str, str]]:
    """What a build reports about itself, for people."""
    seconds = card["seconds"]
    return [
        ("users", f"{card['users']:,}"),
        ("items", f"{card['items']:,} ({card['cold_items']:,} nobody touched yet)"),
        *([("users in the table of users", f"{card['people']:,}")] if "people" in card else []),
        ("items without text", f"{card['items_without_text']:,}"),
        ("interactions", f"{card['interactions']:,}"),
        ("left out, not in the catalogue", f"{card['unlisted_interactions']:,}"),
        ("read", card["read"]),
        ("encoder", f"{card['encoder_name']} ({card['encoded_texts']:,} texts encoded now)"),
        ("index", f"{card['index']['factory']}, recall {card['recall_at_10']:.3f} of the true 10 best"),
        ("seconds", ", ".join(f"{step} {spent:.1f}" for step, spent in seconds.items())),
        ("seconds in all", f"{sum(seconds.values()):.1f}"),
    ]


def _plan(interactions: "Interactions", catalog: "Catalog | None", config: "BuildConfig") -> dict[str, Any]:
    """What would be built, after every check that needs no fitting."""
    import numpy as np

    from geo_mf.errors import InvalidInput
    from geo_mf.text.encoder import encoder_named

    encoder = encoder_named(config.encoder)
    listed, unlisted = (interactions, 0) if catalog is None else interactions.align(items=catalog.items)
    if len(listed) == 0:
        raise InvalidInput(
            f"no interaction is left to learn from: the catalogue lists the items of none of {len(interactions):,}; "
            "check that --item-col names the same kind of id in both files"
        )
    items = len(listed.items)
    return {
        "users": int(np.unique(listed.user_rows).size),
        "items": items,
        "cold_items": items - int(np.unique(listed.item_rows).size),
        "items_without_text": items if catalog is None else items - int(catalog.has_text.sum()),
        "interactions": len(listed),
        "unlisted_interactions": unlisted,
        "read": interactions.report.summary(),
        "encoder_name": encoder.name,
        "config": config.model_dump(),
    }


def _note_bad_rows(output: Output, sources: Sources, interactions: "Interactions", catalog: "Catalog | None") -> None:
    read = [(sources.interactions, interactions.report)]
    if catalog is not None:
        read.append((sources.items or Path(), catalog.report))
    for path, report in read:
        if report.rejected_total:
            output.note(f"{path}: {report}")


def _cell(value: object) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name}={setting}" for name, setting in value.items())
    return f"{value:,}" if isinstance(value, int) else str(value)
