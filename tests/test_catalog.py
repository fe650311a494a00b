"""Catalog: rows stay together, titles fall back, masks pass through."""

import numpy as np
import pyarrow as pa
import pytest

from geo_mf.data.catalog import Catalog
from geo_mf.data.ids import IdMap
from geo_mf.data.interactions import ReadReport
from geo_mf.errors import InvalidInput


def catalog(title_column: str | None = "title") -> Catalog:
    table = pa.table(
        {"id": ["a", "b", "c", "d"], "title": ["Alpha", None, "  ", None], "year": pa.array([1990, 2000, None, 2010])}
    )
    texts = ["Alpha text", "b" * 100, "", ""]
    return Catalog(IdMap(["a", "b", "c", "d"]), texts, table, "id", title_column, ReadReport(4, 4))


def test_titles_fall_back_to_text_then_id() -> None:
    assert catalog().titles == ["Alpha", "b" * 80, "c", "d"]
    assert catalog(title_column=None).titles == ["Alpha text", "b" * 80, "c", "d"]


def test_has_text_and_columns() -> None:
    assert catalog().has_text.tolist() == [True, True, False, False]
    assert catalog().columns == ("id", "title", "year")
    assert len(catalog()) == 4


def test_take_keeps_rows_together() -> None:
    taken = catalog().take(np.array([2, 0]))
    assert taken.items == IdMap(["c", "a"])
    assert taken.texts == ["", "Alpha text"]
    assert taken.table.column("id").to_pylist() == ["c", "a"]
    assert catalog().take([]).texts == []


@pytest.mark.parametrize("rows", [[4], [-1], [0, 0]])
def test_take_refuses_rows_that_do_not_exist_or_repeat(rows: list[int]) -> None:
    with pytest.raises(InvalidInput):
        catalog().take(rows)


def test_mask() -> None:
    assert catalog().mask(None).tolist() == [True] * 4
    assert catalog().mask("year >= 2000").tolist() == [False, True, False, True]
    with pytest.raises(InvalidInput, match="the columns are year, "):
        catalog().mask("yeer >= 2000")


def test_ids_alone_make_a_catalog() -> None:
    bare = Catalog.from_ids(IdMap([3, 1]))
    assert bare.titles == ["3", "1"] and not bare.has_text.any()
    assert bare.mask("item_id == 1").tolist() == [False, True]
    assert len(Catalog.from_ids(IdMap([]))) == 0


def test_parts_of_different_length_are_refused() -> None:
    with pytest.raises(InvalidInput, match="got 1 texts and 2 rows"):
        Catalog(IdMap(["a", "b"]), [""], pa.table({"id": ["a", "b"]}), "id", None, ReadReport(2, 2))
    with pytest.raises(InvalidInput, match="no column 'name'"):
        Catalog(IdMap(["a"]), [""], pa.table({"id": ["a"]}), "id", "name", ReadReport(1, 1))
