"""The bundled sample: 300 short articles and 400 SIMULATED readers.

The articles were written for this project. The readers are not people: `simulate.py` draws them from a seed, and no
real behaviour went into `interactions.csv`. See README.md in this folder. Both files are Apache-2.0.
"""

import csv
from importlib.resources import files
from pathlib import Path

from geo_mf.errors import InvalidInput

__all__ = ["articles_path", "cold_items", "interactions_path"]


def articles_path() -> Path:
    """The catalogue, a CSV file with the columns item_id, title, text, topic, tags ("a|b|c"), year, url."""
    return _packaged("articles.csv")


def interactions_path() -> Path:
    """The SIMULATED readers, a CSV file with the columns user_id, item_id, weight (1 to 10), datetime (ISO 8601)."""
    return _packaged("interactions.csv")


def cold_items() -> list[str]:
    """The ids of the articles that no simulated reader touched, in the order of the catalogue.

    They are whatever the two files say they are: in the catalogue, and in no interaction.
    """
    touched = set(_column(interactions_path(), "item_id"))
    return [item for item in _column(articles_path(), "item_id") if item not in touched]


def _packaged(name: str) -> Path:
    file = files(__name__) / name
    if not isinstance(file, Path):
        raise InvalidInput(
            f"the sample file {name} lies inside an archive ({file}); a plain file is needed: install geo_mf unpacked"
        )
    return file


def _column(path: Path, name: str) -> list[str]:
    with path.open(encoding="utf-8", newline="") as file:
        return [row[name] for row in csv.DictReader(file)]
