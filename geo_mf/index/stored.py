"""An index as files and settings, and back."""

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import numpy as np

from geo_mf.errors import IncompatibleIndex, InvalidInput
from geo_mf.index.approximate import ApproximateIndex, Effort
from geo_mf.index.exact import VectorIndex
from geo_mf.index.faiss import FaissIndex
from geo_mf.index.lift import Lift

__all__ = ["files", "opened"]


def files(index: VectorIndex) -> tuple[dict[str, np.ndarray | bytes], dict[str, Any]]:
    """What has to be kept of an index: contents by name, and settings as JSON.

    Raises:
        InvalidInput: an index that is not stored: of another kind, or with a segment of changed rows beside it.
    """
    match index:
        case FaissIndex():
            return {"index": index.to_bytes()}, {"kind": "exact", "norm": index.norm}
        case ApproximateIndex():
            contents: dict[str, np.ndarray | bytes] = {"index": index.to_bytes(), "vectors": index.vectors}
            if index.lift.basis is not None:
                contents["index_basis"] = index.lift.basis
            settings = {"norm": index.norm, "length": index.lift.length, "effort": asdict(index.effort)}
            return contents, {"kind": "approximate", **settings}
        case _:
            raise InvalidInput(
                f"the index is {type(index).__name__}; only a FaissIndex or an ApproximateIndex can be published: "
                "use FaissIndex(rec.vectors)"
            )


def opened(
    data: memoryview, arrays: Mapping[str, np.ndarray], settings: Mapping[str, Any] | None, size: int, dim: int
) -> FaissIndex | ApproximateIndex:
    """The index of `size` rows with `dim` numbers that `files` wrote; nothing is copied.

    Args:
        data: the contents "index".
        arrays: the other contents.
        settings: None for an index that was written before there were any: exact, its vectors not checked.
        size: rows.
        dim: columns.

    Raises:
        IncompatibleIndex: the parts do not fit each other, or are not what this version knows.
    """
    if settings is None:
        return FaissIndex.from_bytes(data, size=size, dim=dim)
    try:
        kind, norm = settings["kind"], float(settings["norm"])
        if kind == "exact":
            return FaissIndex.from_bytes(data, size=size, dim=dim, norm=norm)
        if kind != "approximate":
            raise IncompatibleIndex(f"the index is of kind {kind!r}, which this version of geo_mf does not know")
        vectors, basis = arrays["vectors"], arrays.get("index_basis")
        lift, effort = Lift(basis, float(settings["length"])), Effort(**settings["effort"])
    except (KeyError, TypeError, ValueError) as error:
        raise IncompatibleIndex(f"the index's settings are incomplete: {error!r}. Build the index again.") from error
    if vectors.shape != (size, dim) or vectors.dtype != np.float32:
        raise IncompatibleIndex(
            f"vectors.npy is {vectors.dtype} {list(vectors.shape)}; expected float32 [{size}, {dim}]. Build it again."
        )
    return ApproximateIndex.from_bytes(data, vectors, lift, effort, norm=norm)
