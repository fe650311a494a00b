"""Files for TensorBoard's embedding projector: vectors without a header, and words for each of them.

The projector splits lines at newlines and cells at tabs, knows no quotes, trims each line, and passes over empty ones.
So a cell holds one line and is never empty. A table of one column has no header; others have one.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import Any, BinaryIO, cast

import numpy as np
import pyarrow as pa
from pyarrow import csv

from geo_mf.export.vector_rows import VectorRows

__all__ = ["metadata_path", "write_metadata", "write_vectors"]

NOTHING = "(none)"
"""A cell without a word."""

LINES = 8192
"""Lines made at a time."""

_PLAIN = csv.WriteOptions(include_header=False, delimiter="\t", quoting_style="none")


def metadata_path(path: Path) -> Path:
    """The file of words that goes with a file of vectors."""
    return path.with_name(f"{path.stem}.metadata{path.suffix}")


def write_vectors(file: BinaryIO, vectors: np.ndarray) -> None:
    """One line for each vector, float32 [n, dim], every number in the fewest digits that give it back."""
    columns = [pa.array(column) for column in np.ascontiguousarray(vectors.T)]
    csv.write_csv(pa.table(columns, names=[str(i) for i in range(len(columns))]), cast(Any, file), _PLAIN)


def write_metadata(file: BinaryIO, rows: VectorRows) -> None:
    """The id of each vector; and for items what they are called, and the columns beside them."""
    for start in range(0, max(1, len(rows)), LINES):
        count = min(LINES, len(rows) - start)
        table = rows.labels(start, count)
        columns: dict[str, Iterable[Any]] = {table.column_names[0]: table.column(0).to_pylist()}
        if rows.titles is not None:
            columns["title"] = rows.titles(np.arange(start, start + count))
        columns |= {name: table.column(name).to_pylist() for name in table.column_names if name not in columns}
        if start == 0 and len(columns) > 1:
            file.write(_line(columns))
        file.writelines(map(_line, zip(*columns.values(), strict=True)))


def _line(cells: Iterable[Any]) -> bytes:
    return ("\t".join(map(_cell, cells)) + "\n").encode()


def _cell(value: Any) -> str:
    """A value as one word: all white space, which every line separator is, becomes a single space."""
    if isinstance(value, list):
        value = ", ".join(map(str, value))
    text = (
        value.decode("utf-8", "backslashreplace") if isinstance(value, bytes) else "" if value is None else str(value)
    )
    return " ".join(text.split()) or NOTHING
