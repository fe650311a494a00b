"""A Recommender as the contents of an artefact, and back."""

import hashlib
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from scipy import sparse

from geo_mf.data.attributes import Attributes
from geo_mf.data.catalog import Catalog
from geo_mf.data.ids import IdMap
from geo_mf.data.interactions import ReadReport
from geo_mf.data.people import People
from geo_mf.errors import IncompatibleIndex, InvalidInput
from geo_mf.factorize.ials import Objective
from geo_mf.folding import Folding, Sums
from geo_mf.geometry.blend import Blend, Weights
from geo_mf.geometry.features import Filling
from geo_mf.geometry.predictor import Predictor, Shape
from geo_mf.index.stored import files, opened
from geo_mf.living.indexing import Wanted, absorbed
from geo_mf.recommender import Recommender
from geo_mf.snapshot import Snapshot
from geo_mf.store.contents import Contents, StoredTable
from geo_mf.store.layout import REMEDY, Manifest
from geo_mf.store.reading import Check, read_version
from geo_mf.store.writing import publish
from geo_mf.text.encoder import TextEncoder, encoder_from_spec
from geo_mf.text.stand_in import StandIn
from geo_mf.told import Told


def save(rec: Recommender, out: str | Path) -> str:
    """Publish a recommender as a new version of the index at `out`. Returns the version.

    Raises:
        InvalidInput: its index cannot be stored, Parquet cannot hold a column of its catalogue, or as in `publish`.
        OSError: as in `publish`.
    """
    now = replace(rec.now, folded=rec.now.folding)
    now = absorbed(now, Wanted.of(now.card))  # what was written since the index was made goes into it
    index_contents, index_settings = files(now.index)
    contents: dict[str, np.ndarray | pa.Table | bytes] = {
        "user_ids": pa.table({"id": now.users.ids}),
        "item_ids": pa.table({"id": now.catalog.items.ids}),
        "texts": pa.table({"text": pa.array(now.catalog.texts, pa.large_string())}),
        "catalog": now.catalog.table,
        "user_factors": now.user_factors,
        "item_factors": now.item_factors,
        "embeddings": now.embeddings,
        "prior": now.prior.coefficients,
        "prior_landmarks": now.prior.landmarks,
        "filling": np.concatenate([now.filling.text, now.filling.attributes]),
        "touches": now.touches,
        "trend": now.trend,
        "live": now.live,
        "history_starts": now.history.indptr.astype(np.int64),
        "history_items": now.history.indices.astype(np.int32),
        "history_weights": now.history.data,
        **now.folding.sums.arrays(),
        **_people(now.told),
        **index_contents,
    }
    try:
        return publish(out, contents, _meta(now) | {"index": index_settings})
    except pa.ArrowNotImplementedError as error:
        raise InvalidInput(f"a column of the catalogue cannot be stored: {error}; drop it or convert it") from error


def load(
    path: str | Path,
    *,
    encoder: TextEncoder | None = None,
    other_encoder: bool = False,
    version: str | None = None,
    check: Check = "auto",
) -> Recommender:
    """Open a published index. Its arrays are mapped from disk; ids, texts and the catalogue's table are decoded, from
    the file that was checked, when they are first used. With check="quick", damage in them is found only then.

    Args:
        path: the index's folder.
        encoder: a replacement for the encoder the index names; its fingerprint must be the same, unless
        other_encoder: you hold its vectors to be near enough, as those of the same encoder made smaller. Then it reads
            what is asked, and items cannot be added or updated.
        version: such as "v000007"; by default the current one.
        check: "full", "quick" or "auto", see `read_version`.

    Raises:
        FileNotFoundError: there is no index here.
        IncompatibleIndex: a file is damaged (its name is in the message), the format is newer, or the encoder differs.
    """
    manifest, contents = read_version(path, version, check)
    meta: dict[str, Any] = dict(manifest.meta)
    if meta.get("kind") != "recommender":
        raise IncompatibleIndex(f"{path} holds {meta.get('kind')!r}, not a recommender: build the index again")
    encoder = None if encoder is None else _replacement(encoder, meta["encoder"], path, other_encoder)
    items, users = _ids(contents.stored("item_ids")), _ids(contents.stored("user_ids"))
    factors, embeddings = contents.array("item_factors"), contents.array("embeddings")
    size, rank = len(items), factors.shape[1]
    dim = rank + embeddings.shape[1] + 1
    if meta.get("index", {}).get("kind") == "approximate":
        _check_codes(contents, manifest)
    weights = _blend(meta["blend"])
    folded = Folding(
        _history(contents, len(users), size),
        contents.array("user_factors"),
        factors,
        Objective(**meta["objective"]),
        weights.newcomer,
        Sums.held(contents.arrays, size, rank),
    )
    now = Snapshot(
        users=users,
        catalog=_catalog(items, contents, meta["catalog"]),
        history=folded.history,
        user_factors=folded.user_factors,
        item_factors=factors,
        embeddings=embeddings,
        prior=Predictor(
            contents.array("prior_landmarks"),
            meta["prior"]["bandwidth"],
            contents.array("prior"),
            Shape(**meta["prior"]["shape"]),
        ),
        attributes=Attributes.from_spec(meta["prior"]["attributes"]),
        filling=Filling(*np.split(contents.array("filling"), [embeddings.shape[1]])),
        objective=folded.objective,
        touches=contents.array("touches"),
        trend=contents.array("trend"),
        live=contents.array("live") if "live" in contents.arrays else np.ones(size, bool),
        blend=weights,
        encoder=encoder or _reopened(meta["encoder"], path),
        fingerprint=meta["encoder"]["fingerprint"],
        index=opened(contents.blob("index"), contents.arrays, meta.get("index"), size, dim),
        card=meta["card"] | {"version": manifest.version, "created": manifest.created.isoformat()},
        folded=folded,
        told=_told(contents, meta["people"], (len(users), rank)) if "people" in meta else None,
    )
    return Recommender(now)


def _replacement(encoder: TextEncoder, built_by: dict[str, Any], path: str | Path, other: bool) -> TextEncoder:
    """The encoder that was given, where it may stand for the one that built the index."""
    if encoder.fingerprint == built_by["fingerprint"]:
        return encoder
    if not other:
        raise IncompatibleIndex(
            f"{path} was built by {built_by['name']} ({built_by['fingerprint'][:12]}), and {encoder.name} is another "
            f"encoder ({encoder.fingerprint[:12]}): leave encoder= out, build it again, or say other_encoder=True if "
            "its vectors are near enough"
        )
    if encoder.dim != built_by["dim"]:
        raise IncompatibleIndex(
            f"{encoder.name} gives {encoder.dim} numbers for a text, and {path} holds {built_by['dim']}: no such "
            "encoder can stand for the one that built it. Build it again"
        )
    return StandIn(encoder, built_by["fingerprint"], built_by["spec"])


def _reopened(built_by: dict[str, Any], path: str | Path) -> TextEncoder:
    """The encoder that built the index, from where it lay then."""
    try:
        return encoder_from_spec(built_by["spec"])
    except InvalidInput as error:
        raise InvalidInput(
            f"the encoder that built {path}, {built_by['name']}, cannot be opened: {error}. If it lies elsewhere now, "
            "say where: encoder= in Python, --encoder on the command line"
        ) from error


def _check_codes(contents: Contents, manifest: Manifest) -> None:
    """Hash the file that Faiss is going to parse, also where the others are not hashed: it trusts what it reads."""
    name = "index.faiss"
    found, expected = hashlib.sha256(contents.blob("index")).hexdigest(), manifest.files[name].sha256
    if found != expected:
        raise IncompatibleIndex(
            f"{contents.folder / name} is damaged: expected SHA-256 {expected}, found {found}. {REMEDY}"
        )


def _meta(now: Snapshot) -> dict[str, Any]:
    return {
        "kind": "recommender",
        "metric": "inner product",
        "encoder": {
            "name": now.encoder.name,
            "spec": now.encoder.spec(),
            "fingerprint": now.fingerprint,
            "dim": int(now.embeddings.shape[1]),
        },
        "objective": asdict(now.objective),
        "prior": {
            "bandwidth": now.prior.bandwidth,
            "shape": asdict(now.prior.shape),
            "attributes": now.attributes.spec(),
        },
        "blend": {
            "scale": now.blend.scale,
            "by_history": [[longest, w.behaviour, w.text] for longest, w in now.blend.by_history],
            "with_text": [now.blend.with_text.behaviour, now.blend.with_text.text],
            "cold_scale": now.blend.cold_scale,
            "trend": now.blend.trend,
            "half_life": now.blend.half_life,
            "newcomer": now.blend.newcomer,
        },
        "catalog": {
            "id_column": now.catalog.id_column,
            "title_column": now.catalog.title_column,
            "template": now.catalog.template,
        },
        **({} if now.told is None else {"people": now.told.people.attributes.spec()}),
        "card": dict(now.card),
    }


def _blend(meta: dict[str, Any]) -> Blend:
    steps = tuple((int(longest), Weights(a, b)) for longest, a, b in meta["by_history"])
    others = (meta[name] for name in ("cold_scale", "trend", "half_life"))
    return Blend(meta["scale"], steps, Weights(*meta["with_text"]), *others, newcomer=meta.get("newcomer", 1.0))


def _people(told: Told | None) -> dict[str, np.ndarray | pa.Table]:
    """What is known of users, by name; nothing in an index that knows nothing of them."""
    if told is None:
        return {}
    return {
        "people_ids": pa.table({"id": told.people.ids.ids}),
        "people": told.people.table,
        "user_prior": told.coefficients,
        "user_priors": told.of_users,
    }


def _told(contents: Contents, spec: list[dict[str, Any]], users_rank: tuple[int, int]) -> Told:
    ids, table, attributes = contents.stored("people_ids"), contents.stored("people"), Attributes.from_spec(spec)
    coefficients, priors = contents.array("user_prior"), contents.array("user_priors")
    found = (ids.rows, set(table.schema.names), coefficients.shape, priors.shape)
    expected = (table.rows, set(attributes.names), (attributes.dim + 1, users_rank[1]), users_rank)
    if found != expected:
        raise IncompatibleIndex(f"{table.path} and what goes with it are {found}; expected {expected}. {REMEDY}")
    return Told(People(_ids(ids), attributes, table.read), coefficients, priors)


def _catalog(items: IdMap, contents: Contents, meta: dict[str, Any]) -> Catalog:
    n, texts, table = len(items), contents.stored("texts"), contents.stored("catalog")
    needed = {texts: {"text"}, table: {meta["id_column"], meta["title_column"]} - {None}}
    for stored, names in needed.items():
        if stored.rows != n or names - set(stored.schema.names):
            raise IncompatibleIndex(
                f"{stored.path} has {stored.rows} rows and the columns {', '.join(stored.schema.names)}; expected {n} "
                f"rows and {', '.join(sorted(names))}. {REMEDY}"
            )
    return Catalog.deferred(
        texts=lambda: texts.read().column("text").to_pylist(),
        table=table.read,
        items=items,
        id_column=meta["id_column"],
        title_column=meta["title_column"],
        report=ReadReport(read=n, accepted=n, unit="row"),
        template=meta.get("template"),
    )


def _ids(stored: StoredTable) -> IdMap:
    def read() -> IdMap:
        try:
            made = IdMap(stored.read().column("id"))
        except (InvalidInput, KeyError) as error:
            raise IncompatibleIndex(f"{stored.path} does not hold ids: {error}. {REMEDY}") from error
        return made

    if stored.schema.names != ["id"]:
        raise IncompatibleIndex(f"{stored.path} has the columns {stored.schema.names}; expected ['id']. {REMEDY}")
    return IdMap.deferred(stored.rows, stored.schema.field("id").type, read)


def _history(contents: Contents, users: int, items: int) -> sparse.csr_array:
    starts, columns = contents.array("history_starts"), contents.array("history_items")
    if len(columns) <= np.iinfo(np.int32).max:
        starts = starts.astype(np.int32)  # of one type with the columns, which SciPy would copy into memory otherwise
    return sparse.csr_array((contents.array("history_weights"), columns, starts), shape=(users, items))
