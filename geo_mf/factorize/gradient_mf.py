"""GradientMF, as a thin shell with the field's own method names over gradient.py and the loop of fit_gradient.py."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import optax

from geo_mf.errors import InvalidInput
from geo_mf.factorize import matrices, optimizer_rows, optimizer_state, peak, timing_gradient
from geo_mf.factorize.checkpoint import Checkpoint
from geo_mf.factorize.fit_gradient import Callback, Settings, fit, table_shapes, vectors
from geo_mf.factorize.gradient import Loss, Objective, touched
from geo_mf.factorize.parameters import RandomState, generator, real, seed, whole
from geo_mf.factorize.plan import Plan, Problem
from geo_mf.factorize.retrieval import FactorModel

_LOSSES = ("mse", "bpr", "softmax", "ccl")
_ADAM = optax.adam(0.01)
"""One for all fits: what is compiled for an optimizer is found again by the object it is."""

_TEMPERATURES = {"softmax": 0.1, "bpr": 0.3}


class GradientMF(FactorModel):
    """Matrix factorization by gradient descent on a sampled loss, with any optax optimiser.

    The losses and their sources, and what an optimiser means when only touched rows are updated, stand in
    `geo_mf.factorize.gradient`. For bpr, softmax and ccl, whose scores are a cosine and the item's bias, the factors
    have unit length.

    Args:
        factors: length K of a factor.
        loss: "mse", "bpr", "softmax" or "ccl".
        optimizer: an optax transformation, its learning-rate schedule included (a schedule counts steps); None is
            `optax.adam(0.01)`. Masks and labels go by the tables' names: users, items, bias (of all losses but mse) and
            text (of items with features). It is told the loss of a batch as `value`. `fit` and `plan` refuse one that
            needs more than the touched rows and their gradients: a line search, optax.lookahead, or one that gathers
            gradients over several steps, as optax.MultiSteps does (raise `batch_size` instead).
        epochs: passes over the interactions, at most.
        batch_size: interactions a step.
        negatives: items drawn a step, shared by its batch.
        popularity: exponent of an item's count in its chance to be drawn; 0 draws uniformly, 1 by popularity.
        temperature: of softmax and bpr; None is 0.1 for softmax and 0.3 for bpr.
        margin: of ccl, a cosine that a negative may reach unpunished.
        negative_weight: of the mean over negatives, in mse and ccl.
        regularization: ridge of a row, each time that it occurs in a batch.
        hardest: of every so many negatives only the one with the highest score counts; for bpr.
        history_items: how many of its other items stand for a user in a step, beside a row of its own; the fitted user
            is its own row plus the mean of all its items. 0 leaves the user with its own row, and is faster.
        validate_every: epochs between two looks at held-out interactions.
        patience: looks without a better NDCG@20 before the fit stops; the factors of the best look are kept. One
            interaction of at most 5,000 users is held out, of those who have three. 0 holds nothing out and runs all
            epochs.
        random_state: seed; the same seed, versions and machine give the same factors.

    Attributes:
        user_factors: float32 [users, K], after `fit`; zero for a user without interactions.
        item_factors: float32 [items, K], after `fit`; for an item without interactions what its features
            say, else zero.
        item_bias: float32 [items], after `fit`: what an item has in every score; zero for mse, and the lowest there is
            for an item without interactions.
        text_factors: float32 [dim, K] or None: features @ text_factors is what features add to an item's own factor.
        history: NDCG@20 of each look, by the number of epochs done.

    Raises:
        InvalidInput: a setting is out of range.
    """

    def __init__(
        self,
        factors: int = 64,
        loss: Loss = "softmax",
        optimizer: optax.GradientTransformation | None = None,
        epochs: int = 100,
        batch_size: int = 2048,
        negatives: int = 512,
        *,
        popularity: float = 0.0,
        temperature: float | None = None,
        margin: float = 0.8,
        negative_weight: float = 100.0,
        regularization: float = 0.0,
        hardest: int = 32,
        history_items: int = 8,
        validate_every: int = 5,
        patience: int = 3,
        random_state: RandomState = None,
    ) -> None:
        super().__init__()
        if loss not in _LOSSES:
            raise InvalidInput(f"loss is {loss!r}; it must be one of {', '.join(map(repr, _LOSSES))}")
        if optimizer is not None and not isinstance(optimizer, optax.GradientTransformation):
            raise InvalidInput(
                f"optimizer is {optimizer!r}; it must be an optax transformation, for example optax.adam(0.01)"
            )
        self.factors = whole("factors", factors, 1)
        self.loss: Loss = loss
        self.optimizer = optimizer
        self.epochs = whole("epochs", epochs, 1)
        self.batch_size = whole("batch_size", batch_size, 1)
        self.negatives = whole("negatives", negatives, 1)
        self.popularity = real("popularity", popularity, "between 0 and 2", lambda x: 0 <= x <= 2)
        self.temperature = temperature
        if temperature is not None:
            self.temperature = real("temperature", temperature, "above 0, for example 0.1, or None", lambda x: x > 0)
        self.margin = real("margin", margin, "between -1 and 1, a cosine", lambda x: -1 <= x <= 1)
        self.negative_weight = real("negative_weight", negative_weight, "at least 0", lambda x: x >= 0)
        self.regularization = real("regularization", regularization, "at least 0", lambda x: x >= 0)
        self.hardest = whole("hardest", hardest, 1)
        self.history_items = whole("history_items", history_items, 0)
        self.validate_every = whole("validate_every", validate_every, 1)
        self.patience = whole("patience", patience, 0)
        self.random_state = seed(random_state)
        self.text_factors: np.ndarray | None = None
        self._vectors: tuple[np.ndarray, np.ndarray] | None = None
        self.history: dict[int, float] = {}

    @property
    def objective(self) -> Objective:
        """The loss and its numbers."""
        return Objective(
            self.loss,
            self.negatives,
            _TEMPERATURES.get(self.loss, 1.0) if self.temperature is None else self.temperature,
            self.margin,
            self.negative_weight,
            self.regularization,
            self.hardest,
            self.history_items,
        )

    @property
    def item_bias(self) -> np.ndarray:
        """float32 [items]. Raises InvalidInput before `fit`, as what follows does."""
        return self.item_vectors[:, -1]

    @property
    def user_vectors(self) -> np.ndarray:
        """float32 [users, K + 1]: [w, 1]."""
        return self._both_vectors[0]

    @property
    def item_vectors(self) -> np.ndarray:
        """float32 [items, K + 1]: [h, b_i]."""
        return self._both_vectors[1]

    def fit(
        self,
        user_items: Any,
        item_features: np.ndarray | None = None,
        show_progress: bool = False,
        callback: Callback | None = None,
        checkpoint: str | Path | None = None,
    ) -> "GradientMF":
        """Learn user and item factors.

        Args:
            user_items: sparse matrix [users, items] of weights, 0 meaning "not seen". Duplicates are summed.
            item_features: float [items, dim] or None; a linear map of them is learned and added to the items' factors.
            show_progress: progress bar on stderr.
            callback: called after each epoch with its number, its seconds, the mean training loss, and NDCG@20 when
                it was measured, else None.
            checkpoint: a file that keeps the tables, the optimizer's state and the best look after an epoch. If it
                exists, the fit goes on from it: a fit that was killed, run again, ends with the same factors as one
                that was not. With more `epochs` than before, a finished fit goes on too, unless it had stopped early.
                Optimizers are told apart by what they do to a small table (`geo_mf.factorize.optimizer_state`).

        Raises:
            InvalidInput: a weight is negative or not finite, the matrix has no interactions, the shapes disagree, the
                optimizer cannot update touched rows alone, or the checkpoint belongs to another fit or has more epochs
                than `epochs`.
            DoesNotFit: the memory is not there.
            IncompatibleIndex: the checkpoint is damaged.
            FitDiverged: the loss became infinite or NaN.
        """
        matrix = matrices.check_training(user_items)
        shape = matrices.shape(matrix)
        features = None
        if item_features is not None:
            features = matrices.check_features(item_features, shape)
            if not np.isfinite(features).all():
                raise InvalidInput("item_features holds NaN or infinity: remove or replace it")
        how = replace(self._loop, progress=show_progress)
        self._plan(Problem.of(matrix, 0 if features is None else features.shape[1])).check()
        kept = None
        if checkpoint is not None:
            fixed = {name: value for name, value in self.get_params().items() if name != "epochs"}
            shapes = table_shapes(shape, how, 0 if features is None else features.shape[1])
            fixed["optimizer"] = optimizer_state.behaviour(how.optimizer, shapes)
            kept = Checkpoint.of(checkpoint, matrix, fixed, features)
        learned = fit(matrix, how, generator(self.random_state), features, callback, kept)
        self._take(learned.users, learned.items, learned.bias)
        self.text_factors, self.history = learned.text, learned.history
        return self

    def plan(self, user_items: Any, features: int = 0, timed: bool = True) -> Plan:
        """What `fit` would take: its memory, and the time of an epoch on this machine as busy as it is now.

        Args:
            user_items: the matrix to be fitted; or, before there is one, (users, items, interactions).
            features: numbers of an item's features, 0 for none.
            timed: whether to try some steps for the time, on a CPU. It takes a few seconds, most of it compiling. Looks
                at held-out interactions are not in the time.

        Raises:
            InvalidInput: as in `fit`; or a shape that no matrix can have.
        """
        features = whole("features", features, 0)
        if isinstance(user_items, tuple):
            problem = Problem.asked(user_items, features)
        else:
            problem = Problem.of(matrices.check_training(user_items), features)
        plan = self._plan(problem)
        return timing_gradient.added(plan, problem, self._loop) if timed else plan

    def _plan(self, problem: Problem) -> Plan:
        settings = self._loop
        shapes = table_shapes(problem.shape[:2], settings, problem.features)
        batch = min(settings.batch, problem.shape[2])
        optimizer_rows.check(settings.optimizer, shapes, touched(shapes, settings.objective, batch))
        return problem.foreseen(
            self.factors, self.epochs, lambda rank: peak.gradient(problem, replace(settings, rank=rank))
        )

    @property
    def _loop(self) -> Settings:
        return Settings(
            rank=self.factors,
            objective=self.objective,
            optimizer=_ADAM if self.optimizer is None else self.optimizer,
            epochs=self.epochs,
            batch=self.batch_size,
            popularity=self.popularity,
            every=self.validate_every,
            patience=self.patience,
        )

    @property
    def _both_vectors(self) -> tuple[np.ndarray, np.ndarray]:
        if self._vectors is None:
            raise InvalidInput("this model has no factors yet: call fit(user_items) first")
        return self._vectors

    def _take(self, users: np.ndarray, items: np.ndarray, bias: np.ndarray) -> None:
        self._vectors = vectors(users, items, bias)
        self._set_factors(users, items)

    def _settings(self) -> dict[str, Any]:
        # An optimiser is made of functions, which no file holds; a fitted model does not need it.
        return {**super()._settings(), "optimizer": None}

    def _arrays(self) -> dict[str, np.ndarray]:
        arrays = super()._arrays() | {"item_bias": self.item_bias}
        return arrays | ({} if self.text_factors is None else {"text_factors": self.text_factors})

    def _restore(self, arrays: dict[str, np.ndarray]) -> None:
        users, items = arrays["user_factors"], arrays["item_factors"]
        self._take(users, items, arrays.get("item_bias", np.zeros(len(items), np.float32)))  # there was none at first
        self.text_factors = arrays.get("text_factors")
