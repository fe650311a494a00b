"""Build an index: encode the texts, factorize the interactions, blend, index, publish."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from scipy import sparse

from geo_mf.builder.config import BuildConfig
from geo_mf.builder.learning import Learned, learn
from geo_mf.builder.trial import Described, ials, predictor, text_scale, with_cold_factors
from geo_mf.data.attributes import Attributes
from geo_mf.data.catalog import Catalog
from geo_mf.data.ids import IdMap
from geo_mf.data.interactions import Interactions
from geo_mf.data.people import People
from geo_mf.data.read import Source, read_users
from geo_mf.data.weighting import Weighting
from geo_mf.errors import InvalidInput
from geo_mf.factorize import matrices
from geo_mf.geometry import trend
from geo_mf.geometry.blend import Blend
from geo_mf.geometry.features import Filling
from geo_mf.geometry.predictor import Shape
from geo_mf.index.faiss import FaissIndex
from geo_mf.living.indexing import Wanted, indexed
from geo_mf.living.solves import with_people
from geo_mf.recommender import Recommender
from geo_mf.snapshot import Snapshot
from geo_mf.store.binding import save
from geo_mf.store.layout import LAYOUT
from geo_mf.text.cache import CachedEncoder, EmbeddingCache
from geo_mf.text.encoder import HashEncoder, TextEncoder, distinct_texts, encoder_named
from geo_mf.threads import limited


@dataclass
class _Clock:
    """Seconds of each step of a build."""

    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        began = time.perf_counter()
        yield
        self.seconds[name] = round(time.perf_counter() - began, 3)


def build(
    interactions: Interactions,
    catalog: Catalog | None = None,
    *,
    users: People | Source | None = None,
    out: str | Path | None = None,
    config: BuildConfig | None = None,
    encoder: TextEncoder | None = None,
    show_progress: bool = False,
) -> Recommender:
    """Build a recommender and, with `out`, publish it.

    Args:
        interactions: who touched what. Rows whose item the catalogue does not list are left out and counted.
        catalog: the items, with their texts. None: the items of the interactions, without text.
        users: what is known of users: people, or what `read_users` takes, with the column names it expects. Users who
            touched nothing may be among them; of users who are not, nothing is known but what they touched.
        out: the index's folder; its last part is the index's name.
        config: settings; by default BuildConfig().
        encoder: overrides `config.encoder`.
        show_progress: progress bars on stderr.

    Raises:
        InvalidInput: nothing is left to learn from, or an input cannot be used.
        FitDiverged: the factors became infinite or NaN.
        OSError: the index could not be written; an older version of it is untouched.
    """
    config = config or BuildConfig()
    people = people_of(users, config)
    if out is not None:
        LAYOUT.checked_root(out)  # a bad name is told before the work, not after it
    clock = _Clock()
    with limited(config.threads):
        rec = _built((interactions, catalog, people), config, encoder, show_progress, clock)
    if out is not None:
        with clock.step("publish"):
            save(rec, out)
    return rec


def _built(
    given: tuple[Interactions, Catalog | None, People | None],
    config: BuildConfig,
    encoder: TextEncoder | None,
    show_progress: bool,
    clock: _Clock,
) -> Recommender:
    interactions, catalog, people = given
    catalog = catalog if catalog is not None else Catalog.from_ids(interactions.items)
    data = training(interactions, catalog, config)
    matrix, datetimes = data.matrix, data.datetimes
    source = encoder or encoder_of(config, catalog)
    attributes = Attributes.of(catalog.table, config.attributes)
    with clock.step("encode"):
        reader = CachedEncoder(source, EmbeddingCache()) if config.cache else source
        embeddings = reader.encode(catalog.texts, show_progress=show_progress)
    described = attributes.encode(catalog.table)
    filling = Filling.of(embeddings, described)
    items = Described(embeddings, filling.features(embeddings, described))
    if people is not None:
        check_known(people, data.users)
    found = Learned(Blend(1.0), Shape(0.0, config.prior_regularization))
    with clock.step("learn the blend"):
        if config.learn_blend:
            found = learn(matrix, items, config, datetimes)
    with clock.step("factorize"):
        model = ials(config, matrices.shape(matrix)).fit(matrix, items.features, show_progress=show_progress)
    with clock.step("predict cold items"):
        prior = predictor(model, matrix, items.features, found.shape, config.seed)
        factors = with_cold_factors(model.item_factors, matrix, items.features, prior, found.blend.cold_scale)
    with clock.step("blend"):
        learned = replace(found.blend, scale=text_scale(model, matrix, embeddings, config.seed))
        touches = trend.touches(matrix.indices, datetimes, len(catalog), learned.half_life)
        crowd = trend.column(touches, items.features, config.prior_regularization)
    card: dict[str, Any] = {
        "config": config.model_dump(mode="json"),
        "seconds": clock.seconds,
        "users": len(data.users),
        "items": len(catalog),
        "cold_items": int(np.count_nonzero(np.bincount(matrix.indices, minlength=len(catalog)) == 0)),
        "items_without_text": int(np.count_nonzero(~embeddings.any(axis=1))),
        "interactions": int(matrix.nnz),
        "unlisted_interactions": data.unlisted,
        "weight_mean": data.weighting.mean,
        "newest": None if datetimes is None else int(datetimes.max()),
        "encoded_texts": reader.misses if isinstance(reader, CachedEncoder) else len(distinct_texts(catalog.texts)[0]),
        "read": interactions.report.summary(),
        "encoder_name": source.name,
    }
    now = Snapshot(
        users=data.users,
        catalog=catalog,
        history=matrix,
        user_factors=model.user_factors,
        item_factors=factors,
        embeddings=embeddings,
        prior=prior,
        attributes=attributes,
        filling=filling,
        objective=model.objective,
        touches=touches,
        trend=crowd,
        blend=learned,
        encoder=source,
        fingerprint=source.fingerprint,
        live=np.ones(len(catalog), bool),
        index=FaissIndex(np.zeros((0, 1))),  # none yet: it is planned with the queries of all the rest
        card=card,
    )
    if people is not None:
        card["people"] = len(people)
        with clock.step("learn from users' attributes"):
            now = with_people(now, people, config.prior_regularization)
    with clock.step("index"):
        now = indexed(now, Wanted.of(card), config.seed)
    return Recommender(now)


def people_of(users: People | Source | None, config: BuildConfig) -> People | None:
    """What is known of users, with the columns that a configuration names. Raises what `read_users` and `People.only`
    raise."""
    people = users if users is None or isinstance(users, People) else read_users(users)
    return people if people is None or config.user_attributes is None else people.only(config.user_attributes)


def check_known(people: People, users: IdMap) -> None:
    """InvalidInput where nothing is said of any user to learn from: ids of another form, most often."""
    if not people.features_of(users).any():
        some, theirs = (ids.take(range(min(3, len(ids)))) for ids in (users, people.ids))
        raise InvalidInput(
            f"the table of users says nothing of the {len(users)} users of the interactions (they are {some}, its own "
            f"are {theirs}): bring the ids to the same form, or leave it out"
        )


@dataclass(frozen=True, eq=False)
class Training:
    """What a build learns from.

    Attributes:
        users: those with something to learn from.
        matrix: float32 CSR [users, items], weights with a mean of 1.
        datetimes: int64 [nnz], nanoseconds, the newest of each stored entry; None when they are not known.
        unlisted: how many interactions were left out because the catalogue does not list their item.
        weighting: how the weights came to their mean of 1.
    """

    users: IdMap
    matrix: sparse.csr_array
    datetimes: np.ndarray | None
    unlisted: int
    weighting: Weighting


def training(interactions: Interactions, catalog: Catalog, config: BuildConfig) -> Training:
    """What a build would learn from. Raises InvalidInput for negative weights, and when nothing is left."""
    listed, unlisted = interactions.align(items=catalog.items)
    rows = listed.to_csr()
    if rows.nnz == 0:
        hint = f"the catalogue has ids such as {catalog.items.take(range(min(3, len(catalog))))}"
        theirs = interactions.items.take(range(min(3, len(interactions.items))))
        raise InvalidInput(
            f"no interaction is left to learn from: {len(interactions)} were given, {unlisted} of them with items that "
            f"the catalogue does not list ({hint}, the interactions {theirs})"
        )
    known = np.flatnonzero(np.diff(rows.indptr))
    matrix = sparse.csr_array(rows[known], dtype=np.float32)
    if matrix.data.min() < 0:
        raise InvalidInput(
            f"the interactions hold a negative weight ({matrix.data.min():g}): weights say how sure an interaction is; "
            "leave dislikes out, for example with min_weight"
        )
    weighting = Weighting.of(matrix.data, config.weighting)
    matrix.data = weighting.scaled(matrix.data)
    return Training(IdMap(listed.users.ids.take(known)), matrix, _datetimes(listed, rows), unlisted, weighting)


def _datetimes(interactions: Interactions, stored: sparse.csr_array) -> np.ndarray | None:
    """int64 [nnz], the newest datetime of each stored entry; None when they are not known."""
    if interactions.datetimes is None:
        return None
    size = np.int64(len(interactions.items))
    keys = interactions.user_rows * size + interactions.item_rows
    order = np.lexsort((interactions.datetimes, keys))
    wanted = np.repeat(np.arange(len(interactions.users)), np.diff(stored.indptr)) * size + stored.indices
    return interactions.datetimes[order][np.searchsorted(keys[order], wanted, side="right") - 1]


def encoder_of(config: BuildConfig, catalog: Catalog) -> TextEncoder:
    """The encoder that a configuration names, or a stand-in for a catalogue without texts."""
    if config.encoder is None and not catalog.has_text.any():
        return HashEncoder(dim=1)  # there is nothing to read: no model is needed, and no room in the index
    return encoder_named(config.encoder)
