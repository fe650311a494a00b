"""tune: search the settings of a build, by how well the factors rank interactions held out.

A trial is one fit. It is measured after several epochs, so the number of iterations is read off a trial and not
searched; a trial that lags behind the others ends early. The first trial is of the given settings. With users'
attributes, a measurement does with the factors what a build does at its end, and users who touched nothing in training
are judged too, where something is known of them.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
from scipy import sparse
from tqdm.auto import tqdm

from geo_mf.builder import BuildConfig
from geo_mf.builder.build import check_known, encoder_of, people_of, training
from geo_mf.builder.trial import ials, settled
from geo_mf.data.attributes import Attributes
from geo_mf.data.catalog import Catalog
from geo_mf.data.interactions import Interactions
from geo_mf.data.people import People
from geo_mf.data.read import Source
from geo_mf.errors import FitDiverged, InvalidInput
from geo_mf.evaluation import metrics
from geo_mf.evaluation.baselines import touched
from geo_mf.evaluation.ranking import rank
from geo_mf.evaluation.space import SEARCHABLE, Space
from geo_mf.evaluation.split import Split, leave_last, random_split, temporal_split
from geo_mf.evaluation.tuning import Tuning
from geo_mf.factorize import matrices
from geo_mf.factorize.checkpoint import fingerprint
from geo_mf.folding import Folding
from geo_mf.geometry.features import Filling
from geo_mf.geometry.prior import apply as apply_prior
from geo_mf.living.solves import pulled, users_prior
from geo_mf.text.cache import CachedEncoder, EmbeddingCache
from geo_mf.text.encoder import TextEncoder

__all__ = ["tune"]

MOST_USERS = 5000
"""Users who are judged, at most: a measurement should cost no more than an epoch."""
ENOUGH_USERS = 500
"""With fewer users to judge, a cut in time chooses by chance. MovieLens ml-latest-small has 600 users, of whom a cut
leaves about 25: settings chosen on each user's last five interactions did better afterwards."""
LAST = 5
"""Interactions of each user that are judged then, at most. One of each chose worse than five, and worse than a cut."""


def tune(
    interactions: Interactions | Split,
    catalog: Catalog | None = None,
    *,
    users: People | Source | None = None,
    config: BuildConfig | None = None,
    trials: int = 30,
    k: int = 20,
    study: str | Path | None = None,
    seconds: float | None = None,
    space: Mapping[str, Any] | None = None,
    encoder: TextEncoder | None = None,
    show_progress: bool = False,
) -> Tuning:
    """Search settings that rank held-out interactions well: NDCG@k of known users, and of new ones of whom something is
    known, by the factor scores alone.

    The same input, seed and versions give the same search, also when it was killed and went on from its study.

    Args:
        interactions: who touched what, without what the result will be judged by: a part is held out for validation.
            Or a Split, whose test side is then the validation.
        catalog: the items, with their texts. None: the items of the interactions, without text.
        users: what is known of users, as `build` takes it.
        config: the settings to start from; what is not varied stays as it is. By default BuildConfig().
        trials: finished trials in all, those of an earlier call with the same study among them.
        k: length of the lists.
        study: a file that keeps the search; a call with the same file goes on from there.
        seconds: begin no trial later than this. The first trial is always finished.
        space: values by setting, in place of the default's or besides: (low, high), or a list of choices. The given
            value always takes part, and one choice alone keeps a setting fixed. For `iterations`: the epochs after
            which a trial is measured.
        encoder: overrides `config.encoder`.
        show_progress: progress bars on stderr.

    Raises:
        InvalidInput: an argument cannot be used, nobody can be judged, or the study is of another search.
        FitDiverged: every trial diverged.
        MissingExtra: optuna is not installed.
        OSError: the study cannot be read or written.
    """
    began = time.perf_counter()
    from geo_mf.evaluation import study as kept

    _check_budget(trials, seconds)
    config = BuildConfig.of(**config.model_dump()) if config else BuildConfig()
    catalog = catalog if catalog is not None else Catalog.from_ids(interactions.items)
    held = _HeldOut.of(interactions, catalog, config, metrics.check_k(k), people_of(users, config))
    config = settled(config, held.matrix(config))
    varied = Space.of(config, space, bool(catalog.has_text.any()))
    source = encoder or encoder_of(config, catalog)
    search = {
        "data": held.fingerprint(source),
        "metric": held.metric,
        "configuration": _line({name: getattr(config, name) for name in (*SEARCHABLE, "seed")}),
        "space": _line({**varied.values, "iterations": varied.epochs}),
    }
    given = {name: getattr(config, name) for name in varied.values}
    with (
        kept.opened(None if study is None else Path(study), search) as opened,
        tqdm(total=trials, desc="tune", unit="trial", disable=not show_progress) as bar,
    ):
        reader = CachedEncoder(source, EmbeddingCache()) if config.cache else source
        embeddings = reader.encode(catalog.texts, show_progress=show_progress)
        described = Attributes.of(catalog.table, config.attributes).encode(catalog.table)
        features = Filling.of(embeddings, described).features(embeddings, described)
        fit = _Fit(config, varied.epochs, held, features)
        while True:
            done = kept.records(opened)
            bar.update(len(done) - bar.n)
            bar.set_postfix({held.metric: f"{max((one.value for one in done), default=0.0):.4f}"})
            late = seconds is not None and time.perf_counter() - began >= seconds
            if len(done) >= trials or (done and late):
                break
            kept.run(opened, varied, given, config.seed, fit)
    best = max((one for one in done if one.state == "complete"), key=lambda one: one.value, default=None)
    if best is None:
        raise FitDiverged(
            f"all {len(done)} trials diverged: the weights may be too large; scale them down, or take weighting='log'"
        )
    return Tuning(
        config=BuildConfig.of(**{**config.model_dump(), **best.settings}),
        given=config,
        value=best.value,
        baseline=0.0 if done[0].state == "diverged" else dict(done[0].curve).get(config.iterations, 0.0),
        trials=done,
        metric=held.metric,
        validation=held.name,
        n_users=len(held.users),
    )


@dataclass(frozen=True, eq=False)
class _Factors:
    """The scores of some users by their factors alone."""

    users: np.ndarray
    items: np.ndarray
    name: str = "factors"

    def scores(self, user_rows: np.ndarray) -> np.ndarray:
        """float32 [b, items]."""
        return self.users[user_rows] @ self.items.T


@dataclass(frozen=True, eq=False)
class _Told:
    """What is known of users beside what they touched.

    Attributes:
        learned: float32 [users, dim], features of the users of the training matrix.
        judged: float32 [n, dim], of those who are judged.
    """

    learned: np.ndarray
    judged: np.ndarray

    def factors(self, folding: Folding, rows: np.ndarray, alpha: float) -> np.ndarray:
        """float32 [n, K]: who is judged, as a build would have them. Rows int [n] of the fit; -1: not in it."""
        expected = apply_prior(users_prior(folding, self.learned, alpha), self.judged)
        met = rows >= 0
        found = np.zeros_like(expected)
        found[met] = pulled(folding, rows[met], expected[met])
        nothing = sparse.csr_array((np.count_nonzero(~met), len(folding.item_factors)), dtype=np.float32)
        found[~met] = folding.newcomers.solve_rows(folding.item_factors, nothing, expected[~met])
        return found


@dataclass(frozen=True, eq=False)
class _HeldOut:
    """What the trials learn from, and what they are judged by.

    Attributes:
        train: interactions with items of the catalogue, in its rows.
        catalog: the items.
        users: int [n], the users who are judged, as rows of the training matrix; -1 for one of whom only attributes
            are known.
        relevant: sparse [n, items], what they touched in the validation interactions.
        seen: sparse [n, items], what they touched in training.
        ties: int [items], the order of equal scores.
        k: length of the lists.
        name: how the validation interactions were held out.
        told: what is known of users; None without their attributes.
    """

    train: Interactions
    catalog: Catalog
    users: np.ndarray
    relevant: sparse.csr_array
    seen: sparse.csr_array
    ties: np.ndarray
    k: int
    name: str
    told: _Told | None

    @classmethod
    def of(
        cls, interactions: Interactions | Split, catalog: Catalog, config: BuildConfig, k: int, people: People | None
    ) -> "_HeldOut":
        if isinstance(interactions, Split):
            split = interactions
        else:
            listed, _ = interactions.align(items=catalog.items)
            if len(listed) == 0:
                raise InvalidInput(
                    f"no interaction is left to learn from: the catalogue lists the items of none of "
                    f"{len(interactions):,}; check that both name items by the same ids"
                )
            split = _split(listed, config.seed)
        train, test = (side.align(items=catalog.items)[0] for side in (split.train, split.test))
        users = training(train, catalog, config).users
        learned = users.rows_or_missing(train.users.ids)
        known, features = learned >= 0, np.zeros((len(learned), 0), np.float32)
        if people is not None:
            check_known(people, users)
            features = people.features_of(train.users)
            known |= features.any(axis=1)
        relevant = touched(test)
        able = np.flatnonzero(known & (np.diff(relevant.indptr) > 0))
        if not len(able):
            raise InvalidInput(
                f"nobody can be judged: no user has interactions on both sides of the split {split.name!r}; give more "
                "interactions, or a Split of your own"
            )
        random = np.random.default_rng(config.seed)
        judged = np.sort(random.permutation(able)[:MOST_USERS])
        ties = random.permutation(len(catalog))
        told = None if people is None else _Told(people.features_of(users), features[judged])
        seen = touched(train)[judged]
        return cls(train, catalog, learned[judged], relevant[judged], seen, ties, k, split.name, told)

    @property
    def metric(self) -> str:
        """What is measured."""
        return f"ndcg@{self.k}"

    def matrix(self, config: BuildConfig) -> sparse.csr_array:
        """float32 CSR [users, items]: what a build with this configuration would learn from."""
        return training(self.train, self.catalog, config).matrix

    def value(self, users: np.ndarray, items: np.ndarray) -> float:
        """The metric of factors: of who is judged [n, K], and of the items [items, K]."""
        scorer = _Factors(users, items)
        ranked = rank(scorer, np.arange(len(self.users)), self.k, exclude=self.seen, ties=self.ties)
        return float(metrics.ndcg(ranked, self.relevant, self.k).mean())

    def fingerprint(self, encoder: TextEncoder) -> str:
        """A checksum of the interactions of both sides, of the texts, of their encoder and of users' attributes."""
        texts = sha256("\0".join(self.catalog.texts).encode("utf-8", "surrogatepass")).hexdigest()
        judged = fingerprint(self.relevant, None, {"users": self.users.tolist()})
        parts = {"texts": texts, "encoder": encoder.fingerprint, "judged": judged}
        if self.told is not None:
            parts["told"] = sha256(self.told.learned.tobytes() + self.told.judged.tobytes()).hexdigest()
        return fingerprint(self.train.to_csr(), None, parts)[:16]


def _split(interactions: Interactions, seed: int) -> Split:
    """One cut in time, as `geo-mf evaluate` makes it, if it leaves enough users to judge; else each user's last."""
    if interactions.datetimes is None:
        return random_split(interactions, seed=seed)
    try:
        cut = temporal_split(interactions)
    except InvalidInput:  # nothing lies after the cut
        cut = None
    if cut is not None and len(np.intersect1d(cut.train.user_rows, cut.test.user_rows)) >= ENOUGH_USERS:
        return cut
    lengths = np.bincount(interactions.user_rows)
    fifth = int(np.median(lengths[lengths > 0])) // 5
    return leave_last(interactions, min(max(fifth, 1), LAST))


class _Fit:
    """Fits the settings of a trial, and measures them as it goes.

    Args:
        config: the settings that are not varied.
        epochs: the epochs after which to measure, rising.
        held: what to learn from, and what to judge by.
        features: float32 [items, dim], see `geo_mf.geometry.features`.
    """

    def __init__(self, config: BuildConfig, epochs: Sequence[int], held: _HeldOut, features: np.ndarray) -> None:
        self._config, self._epochs, self._held, self._features = config, epochs, held, features
        self._matrices: dict[str, sparse.csr_array] = {}

    def __call__(self, settings: Mapping[str, Any], report: Callable[[int, float], None]) -> None:
        """Fit with these settings and report the metric after each of the epochs. What `report` raises ends the fit."""
        config = BuildConfig.of(**{**self._config.model_dump(), **settings, "iterations": self._epochs[-1]})
        if config.weighting not in self._matrices:
            self._matrices[config.weighting] = self._held.matrix(config)

        matrix = self._matrices[config.weighting]
        model = ials(config, matrices.shape(matrix))
        objective = model.objective_for(matrix)

        def watch(epoch: int, factors: Callable[[], tuple[np.ndarray, np.ndarray]]) -> None:
            if epoch + 1 not in self._epochs:
                return
            users, items = factors()
            judged, told = self._held.users, self._held.told
            if told is None:
                report(epoch + 1, self._held.value(users[judged], items))
                return
            folding = Folding(matrix, users, items, objective, 1.0)
            report(epoch + 1, self._held.value(told.factors(folding, judged, config.prior_regularization), items))

        model.fit(matrix, self._features, watch=watch)


def _check_budget(trials: int, seconds: float | None) -> None:
    if isinstance(trials, bool) or not isinstance(trials, int) or trials < 1:
        raise InvalidInput(f"trials is {trials!r}; it must be a whole number of at least 1")
    if seconds is not None and not seconds > 0:
        raise InvalidInput(f"seconds is {seconds!r}; it must be above 0, or None for no limit")


def _line(values: Mapping[str, Any]) -> str:
    """Values as one line that is the same in every run."""
    return ", ".join(f"{name}={value!r}" for name, value in sorted(values.items()))
