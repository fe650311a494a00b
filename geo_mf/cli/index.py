"""geo-mf index stats, compact and prune: what an index on disk holds, and what of it may go."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from geo_mf.cli.output import Output
from geo_mf.cli.recommend import Index

if TYPE_CHECKING:
    from geo_mf.store import Contents, Manifest, VersionOnDisk

__all__ = ["compact", "prune", "stats"]


def stats(
    index: Index,
    output: Output,
    version: Annotated[str | None, typer.Option(help="Such as v000007; by default the current one.")] = None,
) -> None:
    """Show what an index holds.

    Items, users, dimensions, how it searches, the versions on disk and their size. Reads names, sizes and headers;
    `verify` reads everything.
    """
    from geo_mf import store

    manifest, contents = store.read_version(index, version, check="quick")
    there = store.overview(index)
    found = _facts(manifest, contents) | {"index": str(index), "versions": [_version(one) for one in there]}
    if output.json:
        output.data(found)
        return
    output.say(f"{index}, version {manifest.version}")
    output.table(("", ""), _rows(found))
    output.say()
    output.table(("version", "created", "size", ""), [_line(one) for one in there], right=(2,))
    output.say()
    total = manifest.total_size or 1
    files = [(name, _bytes(size), f"{size / total:.0%}") for name, size in found["bytes_by_file"].items()]
    output.table(("file", "size", "share"), files, right=(1, 2))


def compact(
    index: Index,
    output: Output,
    keep: Annotated[
        int | None, typer.Option(min=1, help="Then delete older versions, and keep so many; by default all stay.")
    ] = None,
) -> None:
    """Publish a version of an index without the items that were removed.

    Their texts, factors and touches are forgotten, and the search is planned anew for the rest. Older versions still
    hold them, until they are pruned.
    """
    from geo_mf import store
    from geo_mf.store.binding import load, save

    rec = load(index)
    items = len(rec.catalog)
    gone = rec.compact()
    version = save(rec, index)
    pruned = () if keep is None else store.prune(index, keep)
    if output.json:
        told = {"index": str(index), "version": version, "items": items - len(gone), "forgotten": len(gone)}
        output.data(told | {"pruned": list(pruned)})
    output.say(f"{index}, version {version}: {items - len(gone):,} items, {len(gone):,} forgotten")
    if pruned:
        output.say(f"deleted {', '.join(pruned)}")


def prune(
    index: Index,
    output: Output,
    keep: Annotated[int, typer.Option(min=1, help="How many versions stay, the current one among them.")] = 2,
) -> None:
    """Delete old versions of an index.

    The current version is verified first, and stays, with those before it. A version newer than the current one was
    never finished and goes too.
    """
    from geo_mf import store

    sizes = {one.name: one.size for one in store.overview(index)}
    gone = store.prune(index, keep)
    freed, kept = sum(sizes.get(name, 0) for name in gone), store.versions(index)
    if output.json:
        output.data({"index": str(index), "pruned": list(gone), "kept": list(kept), "bytes_freed": freed})
    elif gone:
        output.say(f"pruned {', '.join(gone)}: {_bytes(freed)} are free; {', '.join(kept)} stayed")
    else:
        output.say(f"nothing to prune: {', '.join(kept)} stayed")


def _facts(manifest: "Manifest", contents: "Contents") -> dict[str, Any]:
    """What one version holds; what its card does not say is left out."""
    meta: dict[str, Any] = dict(manifest.meta)
    card: Mapping[str, Any] = meta.get("card", {})
    items, live = contents.stored("item_ids").rows, contents.arrays.get("live")
    removed = 0 if live is None else items - int(live.sum())
    counts = {
        "items": items,
        "live_items": items - removed,
        "removed_items": removed,
        "cold_items": card.get("cold_items"),
        "items_without_text": card.get("items_without_text"),
        "users": contents.stored("user_ids").rows,
        "interactions": len(contents.array("history_items")),
        "factors": contents.array("item_factors").shape[1],
        "text_dimensions": contents.array("embeddings").shape[1],
    }
    encoder = {name: meta.get("encoder", {}).get(name) for name in ("name", "fingerprint")}
    measured = card.get("index") or {"recall_at_10": card.get("recall_at_10")}
    by_size = sorted(manifest.files.items(), key=lambda item: (-item[1].size, item[0]))
    return {
        "version": manifest.version,
        "created": manifest.created.isoformat(),
        "age_seconds": max(0, round((datetime.now(UTC) - manifest.created).total_seconds())),
        "geo_mf": manifest.geo_mf,
        **counts,
        "search": measured,
        "encoder": encoder,
        "config": card.get("config"),
        "bytes": manifest.total_size,
        "bytes_by_file": {name: entry.size for name, entry in by_size},
    }


def _rows(found: Mapping[str, Any]) -> list[tuple[str, str]]:
    parts = {"removed_items": "removed", "cold_items": "nobody touched yet", "items_without_text": "without text"}
    items = [f"{found[name]:,} {words}" for name, words in parts.items() if found[name]]
    rows = {
        "created": f"{found['created']} ({_age(found['age_seconds'])} ago, by geo_mf {found['geo_mf']})",
        "items": f"{found['items']:,}" + (f" ({', '.join(items)})" if items else ""),
        "users": f"{found['users']:,}",
        "interactions": f"{found['interactions']:,}",
        "factors": f"{found['factors']:,}",
        "text dimensions": f"{found['text_dimensions']:,}",
        "search": _listed(found["search"]),
        "encoder": _listed(found["encoder"]),
        "settings": _listed(found["config"] or {}),
        "size": _bytes(found["bytes"]),
    }
    return list(rows.items())


def _version(one: "VersionOnDisk") -> dict[str, Any]:
    created = None if one.created is None else one.created.isoformat()
    return {
        "version": one.name,
        "current": one.current,
        "created": created,
        "bytes": one.size,
        "problem": one.problem,
    }


def _line(one: "VersionOnDisk") -> tuple[str, str, str, str]:
    created = "" if one.created is None else one.created.isoformat()
    return one.name, created, _bytes(one.size), one.problem or ("current" if one.current else "")


def _listed(values: Mapping[str, Any]) -> str:
    """What is known of a few things, on one line."""
    known = [f"{name.replace('_', ' ')} {_cell(value)}" for name, value in values.items() if value is not None]
    return ", ".join(known) or "not recorded"


def _cell(value: object) -> str:
    if isinstance(value, Mapping):
        return f"({_listed(value)})"
    if isinstance(value, bool) or not isinstance(value, int | float):
        return str(value)
    return f"{value:,}" if isinstance(value, int) else f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"


def _bytes(size: int) -> str:
    value, unit = float(size), "bytes"
    for larger in ("kB", "MB", "GB", "TB"):
        if value < 1000:
            break
        value, unit = value / 1000, larger
    return f"{value:.0f} {unit}" if unit == "bytes" else f"{value:.1f} {unit}"


def _age(seconds: int) -> str:
    for name, length in (("day", 86_400), ("hour", 3600), ("minute", 60)):
        if seconds >= length:
            number = seconds // length
            return f"{number:,} {name}{'' if number == 1 else 's'}"
    return f"{seconds} second{'' if seconds == 1 else 's'}"
