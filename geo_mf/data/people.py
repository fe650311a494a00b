"""People: what is known of users beside what they touched, one row a user."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa

from geo_mf.data.attributes import Attributes
from geo_mf.data.ids import IdMap
from geo_mf.errors import InvalidInput

__all__ = ["People"]


@dataclass(frozen=True, eq=False)
class People:
    """n users and their attributes. They need not have touched anything.

    Attributes:
        ids: of the users.
        attributes: how the table's columns become features.
        read: gives the table of the attributes' columns, n rows; what it raises comes up at the first use.
    """

    ids: IdMap
    attributes: Attributes
    read: Callable[[], pa.Table]

    @classmethod
    def of(cls, ids: IdMap, table: pa.Table) -> "People":
        """People with all columns of a table.

        Raises:
            InvalidInput: there is no column, or one holds something else than numbers, dates, booleans, text or lists
                of text.
        """
        if not table.num_columns:
            raise InvalidInput("the table of users has no column beside their ids: add what is known of them")
        return cls(ids, Attributes.of(table, table.column_names), lambda: table)

    @cached_property
    def table(self) -> pa.Table:
        """The columns of the attributes."""
        return self.read()

    def __len__(self) -> int:
        return len(self.ids)

    def __repr__(self) -> str:
        return f"People({len(self):,} users; attributes: {', '.join(self.attributes.names)})"

    def only(self, columns: Sequence[str]) -> "People":
        """The same people with these columns alone. Raises InvalidInput for one that is not there or named twice."""
        attributes = Attributes.of(self.table, columns)
        table = self.table.select(list(columns))
        return People(self.ids, attributes, lambda: table)

    def features(self, id: Any) -> np.ndarray:
        """float32 [dim]: what is known of one of them. Raises UnknownId."""
        return self.attributes.encode(self.table.slice(self.ids.row(id, "user"), 1))[0]

    def features_of(self, users: IdMap) -> np.ndarray:
        """float32 [users, dim]: what is known of each user of a map; a zero row for one who is not listed here."""
        rows = self.ids.rows_or_missing(users.ids)
        listed = rows >= 0
        out = np.zeros((len(users), self.attributes.dim), np.float32)
        out[listed] = self.attributes.encode(self.table.take(pa.array(rows[listed])))
        return out
