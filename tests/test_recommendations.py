"""A list of recommendations: as a sequence, a dict, a table, a page and a text."""

import json

import pyarrow as pa
import pytest

import geo_mf as gm
from geo_mf.recommendations import Because, Recommendation


def test_a_list_reads_like_a_sequence(recommender: gm.Recommender) -> None:
    found = recommender.recommend(100, k=3)
    assert len(found) == len(found.ids) == len(found.scores) == len(found.titles) == 3
    assert [item.id for item in found] == found.ids
    assert found[0].id == "i0"
    assert all(type(score) is float for score in found.scores)
    assert "Recommender(24 users, 27 items, 3 cold; 8 factors + 32 text dimensions)" == repr(recommender)


def test_as_a_dict_it_is_json(recommender: gm.Recommender) -> None:
    found = recommender.recommend(100, text="boats", k=40)
    told = json.loads(json.dumps(found.to_dict(), allow_nan=False))
    assert told["asked"] == 40
    assert told["reason"] == found.reason != ""
    assert [item["item_id"] for item in told["items"]] == found.ids
    assert told["items"][0]["because"][0].keys() == {"item_id", "title", "share"}


@pytest.mark.parametrize("k", [1, 5])
def test_as_a_table(recommender: gm.Recommender, k: int) -> None:
    found = recommender.recommend(100, text="boats", k=k)
    table, frame = found.to_arrow(), found.to_pandas()
    assert table.column_names == list(frame.columns)
    assert table.column("item_id").to_pylist() == frame["item_id"].tolist() == found.ids
    assert table.column("score").to_pylist() == frame["score"].tolist() == found.scores
    assert frame["cold"].tolist() == [item.cold for item in found]
    assert table.column("because").to_pylist()[0][0]["title"] == found[0].because[0].title
    empty = recommender.recommend(100, where="year < 0").to_arrow()
    assert empty.num_rows == 0
    assert empty.schema == table.schema, "an empty list has the same columns"


def test_ids_of_other_types_in_a_table() -> None:
    for ids, kind in (([2**63], pa.uint64()), ([7], pa.int64()), ([b"x"], pa.binary()), (["x"], pa.string())):
        items = tuple(Recommendation(id, "t", 1.0, 1.0, 0.0, False) for id in ids)
        assert gm.Recommendations(items, 1).to_arrow().column("item_id").type == kind


def test_as_html_everything_is_escaped() -> None:
    evil = "<script>alert('&')</script>"
    item = Recommendation(evil, evil, 1.0, 1.0, 0.0, True, (Because("x", evil, 1.0),))
    page = gm.Recommendations((item,), 2, f"1 of 2: {evil}")._repr_html_()
    assert "<script" not in page
    assert page.count("&lt;script&gt;alert(&#x27;&amp;&#x27;)&lt;/") >= 3
    assert page.startswith("<table><caption>1 of 2")
    assert page.count("<tr>") == page.count("</tr>") == 2


def test_as_text_one_line_is_one_item() -> None:
    odd = "two\nlines\tand " + "a very long title " * 9
    item = Recommendation(odd, odd, 1.0, 0.25, 0.75, True, (Because("x", odd, 0.5),))
    lines = str(gm.Recommendations((item, item), 3, "2 of 3: why")).split("\n")
    assert len(lines) == 4
    assert lines[0].split() == ["#", "item", "title", "score", "behaviour", "text", "because"]
    assert lines[1].startswith("1  two lines and a very")
    assert "0.250  0.750  two lines and a very long t… (+0.50)" in lines[1]
    assert "(new)" in lines[1]
    assert lines[3] == "2 of 3: why"
