"""The `where` language: a boolean mask over the rows of a table, from one small expression."""

import numpy as np
import pyarrow as pa

__all__ = ["row_mask"]


def row_mask(where: str, table: pa.Table) -> np.ndarray:
    """The rows for which `where` holds, bool [n]."""
    raise NotImplementedError
