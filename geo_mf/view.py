"""What can be read of an index while it changes: each attribute as it is at the moment."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from scipy import sparse

from geo_mf.data.catalog import Catalog
from geo_mf.data.ids import IdMap
from geo_mf.factorize.ials import Objective
from geo_mf.geometry.blend import Blend
from geo_mf.geometry.predictor import Predictor
from geo_mf.index.exact import VectorIndex
from geo_mf.snapshot import Snapshot
from geo_mf.text.encoder import TextEncoder
from geo_mf.told import Told

__all__ = ["View"]


class View:
    """The attributes of the present snapshot.

    Attributes:
        now: everything the index holds at the moment.
    """

    now: Snapshot

    @property
    def users(self) -> IdMap:
        """Ids of the known users."""
        return self.now.users

    @property
    def catalog(self) -> Catalog:
        """The items: ids, texts, attributes."""
        return self.now.catalog

    @property
    def history(self) -> sparse.csr_array:
        """float32 CSR [users, items], the weights that the factors were fitted to."""
        return self.now.history

    @property
    def user_factors(self) -> np.ndarray:
        """float32 [users, K]."""
        return self.now.user_factors

    @property
    def item_factors(self) -> np.ndarray:
        """float32 [items, K]."""
        return self.now.item_factors

    @property
    def embeddings(self) -> np.ndarray:
        """float32 [items, dim], unit length; a zero row for an item without text."""
        return self.now.embeddings

    @property
    def prior(self) -> Predictor:
        """From features (text and attributes) to factors."""
        return self.now.prior

    @property
    def objective(self) -> Objective:
        """The factorization's objective."""
        return self.now.objective

    @property
    def touches(self) -> np.ndarray:
        """float32 [items], how often each was touched of late."""
        return self.now.touches

    @property
    def trend(self) -> np.ndarray:
        """float32 [items], the standard score of the touches."""
        return self.now.trend

    @property
    def blend(self) -> Blend:
        """Scale of the text part, default weights, weight of the trend."""
        return self.now.blend

    @property
    def told(self) -> Told | None:
        """What is known of users beside what they touched; None in an index that was built without."""
        return self.now.told

    @property
    def encoder(self) -> TextEncoder:
        """What turns a typed text into an embedding."""
        return self.now.encoder

    @property
    def fingerprint(self) -> str:
        """Of the encoder that made `embeddings`."""
        return self.now.fingerprint

    @property
    def index(self) -> VectorIndex:
        """Over `vectors`."""
        return self.now.index

    @property
    def card(self) -> Mapping[str, Any]:
        """What was built, from what, and how good it is (JSON)."""
        return self.now.card

    @property
    def vectors(self) -> np.ndarray:
        """float32 [items, K + dim + 1], the indexed rows."""
        return self.now.vectors

    @property
    def cold(self) -> np.ndarray:
        """bool [items]: nobody has touched the item."""
        return self.now.cold

    @property
    def live(self) -> np.ndarray:
        """bool [items], False for an item that was removed: it keeps its row, and is in no answer."""
        return self.now.live

    @property
    def titles(self) -> list[str]:
        """What to call each item."""
        return self.now.titles
