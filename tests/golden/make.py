"""Makes the golden index of the present format, and writes down what it answers.

    python tests/golden/make.py

It stays as it is from then on: every later version has to open it and to answer the same. A new folder is made when
the format (`SCHEMA_VERSION`) changes, or beside the others when its files do: give a name then.
"""

import json
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa

import geo_mf as gm
from geo_mf.data.interactions import ReadReport
from geo_mf.store.layout import SCHEMA_VERSION

HERE = Path(__file__).parent
WORDS = ("boats on a lake", "snow on a mountain", "a quiet lake", "paths of rock and snow", "rivers and boats", "")
QUESTIONS: list[dict[str, Any]] = [
    {"user": "u0"},
    {"user": "u1", "exclude_seen": False, "k": 3},
    {"history": ["i1", "i3"], "where": "year > 2001"},
    {"text": "snow"},
    {"user": "u2", "text": "boats", "weights": [0.5, 1.5]},
]
"""Arguments of `recommend`. The encoder is the hashing one, which answers the same everywhere."""


def main() -> None:
    out = HERE / (sys.argv[1] if len(sys.argv) > 1 else str(SCHEMA_VERSION))
    if out.exists():
        sys.exit(f"{out} is there already, and a golden index is not made again")
    ids = [f"i{i}" for i in range(12)]
    texts = [WORDS[i % len(WORDS)] for i in range(12)]
    columns = {"item_id": ids, "title": [f"Title {id}" for id in ids], "year": range(2000, 2012)}
    catalog = gm.Catalog(gm.IdMap(ids), texts, pa.table(columns), "item_id", "title", ReadReport(12, 12, unit="row"))
    pairs = [(f"u{u}", f"i{i}") for u in range(10) for i in range(10) if (u + i) % 2 == 0 and u != i]
    interactions = gm.Interactions.from_arrays([u for u, _ in pairs], [i for _, i in pairs])
    config = gm.BuildConfig.of(factors=4, iterations=4, cache=False, learn_blend=False, threads=1)
    gm.build(interactions, catalog, out=out, config=config, encoder=gm.HashEncoder(dim=16))
    (out / ".lock").unlink()
    rec = gm.load(out)
    lists = [[[hit.id, hit.title, hit.score, hit.cold] for hit in rec.recommend(**ask)] for ask in QUESTIONS]
    answers = json.dumps([{"ask": ask, "list": found} for ask, found in zip(QUESTIONS, lists, strict=True)], indent=1)
    out.with_suffix(".json").write_text(answers + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
