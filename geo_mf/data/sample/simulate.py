"""Writes interactions.csv: SIMULATED readers of the bundled articles. No real behaviour is in that file.

    python -m geo_mf.data.sample.simulate [--seed 2025] [--out interactions.csv]

The model. Reader u opens article i with log-odds

    topic liking  +  theme liking  +  <taste_u, trait_i>  +  log popularity_i

- topic liking: each reader has one to three favourite topics, the first liked most;
- theme liking: each reader likes one tag that runs across topics ("history", "physics", ...);
- trait_i: hidden qualities of an article (think of depth, humour, style), drawn at random, so no text tells them;
- popularity_i: log-normal, also drawn at random.

So behaviour knows what text does not (traits, popularity). And text knows what behaviour does not: articles of a later
year than the simulated one have no reader at all. Articles of the simulated year appear at some moment within it.
A reader's articles are drawn without replacement; a tenth of them are noise, drawn evenly from all the others.
The same seed gives the same bytes.
"""

import argparse
import csv
import io
import math
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from geo_mf.data.sample import articles_path, interactions_path
from geo_mf.errors import InvalidInput

SEED = 2025
READERS = 400
YEAR = 2025
TRAITS = 4
HISTORY = (8, 60)  # fewest and most articles of one reader
THEME_SUPPORT = 6  # a tag of at least this many articles is a theme
TOPIC_LIKING = (3.4, 2.7, 2.2)  # log-odds for the first, second and third favourite topic
THEME_LIKING = 1.3
TASTE_SCALE = 0.75  # standard deviation of one taste; traits have one of 1
POPULARITY_SCALE = 0.7
NOISE_SHARE = 0.1

Article = dict[str, str]
Click = tuple[str, str, int, str]  # user_id, item_id, weight, datetime


@dataclass(frozen=True)
class Shelf:
    """What the simulation reads of the catalogue: ids, topic [items], themes [items, themes], years [items]."""

    ids: tuple[str, ...]
    topic: np.ndarray  # int64 [items], 0..topics-1
    themes: np.ndarray  # float64 [items, themes], 1 where the article carries the tag
    years: np.ndarray  # int64 [items]

    @classmethod
    def of(cls, articles: Sequence[Article]) -> "Shelf":
        topics = sorted({article["topic"] for article in articles})
        tags = [article["tags"].split("|") for article in articles]
        support = Counter(tag for row in tags for tag in row)
        themes = sorted(tag for tag, count in support.items() if count >= THEME_SUPPORT)
        return cls(
            ids=tuple(article["item_id"] for article in articles),
            topic=np.array([topics.index(article["topic"]) for article in articles], np.int64),
            themes=np.array([[float(theme in row) for theme in themes] for row in tags]),
            years=np.array([int(article["year"]) for article in articles], np.int64),
        )


class Draws:
    """Random numbers from the raw words of PCG64.

    NumPy keeps that stream for ever, but not what `Generator` makes of it (NEP 19), and the file must come out the
    same under every version.
    """

    def __init__(self, seed: int) -> None:
        self._bits = np.random.PCG64(seed)

    def uniform(self, *shape: int) -> np.ndarray:
        """float64 in the open interval (0, 1): 52 bits and a half, so that no logarithm meets a zero."""
        words = np.asarray(self._bits.random_raw(math.prod(shape)), np.uint64)
        return ((words >> np.uint64(12)).astype(np.float64) + 0.5).reshape(shape) * 2.0**-52

    def normal(self, *shape: int) -> np.ndarray:
        """float64, standard normal (Box and Muller, 1958)."""
        radius = np.sqrt(-2.0 * np.log(self.uniform(*shape)))
        return radius * np.cos(2.0 * np.pi * self.uniform(*shape))

    def gumbel(self, *shape: int) -> np.ndarray:
        """float64, standard Gumbel. The k largest of logits + gumbel are k softmax draws without replacement."""
        return -np.log(-np.log(self.uniform(*shape)))


def simulate(articles: Sequence[Article], seed: int = SEED) -> list[Click]:
    """SIMULATED clicks (user_id, item_id, weight, datetime), sorted by datetime, then user, then item.

    weight is the attention paid, from 1 (a glance) to 10 (read twice and kept). No article of a year after `YEAR` is
    clicked. Raises InvalidInput when fewer articles are left than the longest history needs.
    """
    shelf, draws = Shelf.of(articles), Draws(seed)
    open_rows = np.flatnonzero(shelf.years <= YEAR)
    if len(open_rows) < HISTORY[1]:
        raise InvalidInput(
            f"{len(open_rows)} articles are of {YEAR} or earlier, at least {HISTORY[1]} are needed: add articles"
        )
    popularity = POPULARITY_SCALE * draws.normal(len(shelf.ids))
    interest = _interest(shelf, draws)
    counts = np.clip(np.rint(np.exp(np.log(23.0) + 0.55 * draws.normal(READERS))), *HISTORY).astype(np.int64)
    published = np.where(shelf.years == YEAR, 0.9 * draws.uniform(len(shelf.ids)), 0.0)  # as a share of the year
    joined = 0.5 * draws.uniform(READERS)

    clicks: list[Click] = []
    for reader in range(READERS):
        rows = open_rows[_choose((interest[reader] + popularity)[open_rows], int(counts[reader]), draws)]
        attention = 2.0 + interest[reader, rows] + 0.8 * draws.normal(len(rows))
        weights = np.clip(np.rint(attention), 1, 10).astype(np.int64)
        start = np.maximum(joined[reader], published[rows])
        moments = _iso(start + (1.0 - start) * draws.uniform(len(rows)))
        user = f"reader-{reader + 1:03d}"
        clicks += [
            (user, shelf.ids[row], int(weight), moment)
            for row, weight, moment in zip(rows, weights, moments, strict=True)
        ]
    return sorted(clicks, key=lambda click: (click[3], click[0], click[1]))


def to_csv(clicks: Sequence[Click]) -> str:
    """The clicks as CSV text with a header and \\n line ends."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["user_id", "item_id", "weight", "datetime"])
    writer.writerows(clicks)
    return text.getvalue()


def read_articles(path: Path) -> list[Article]:
    """The rows of articles.csv, every value as text."""
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def main(argv: Sequence[str] | None = None) -> None:
    """Writes the file and says so in one line."""
    parser = argparse.ArgumentParser(prog="python -m geo_mf.data.sample.simulate", description="Simulate the readers.")
    parser.add_argument("--seed", type=int, default=SEED)
    parser.add_argument("--out", type=Path, default=interactions_path())
    arguments = parser.parse_args(argv)
    clicks = simulate(read_articles(articles_path()), arguments.seed)
    arguments.out.write_text(to_csv(clicks), encoding="utf-8", newline="")
    sys.stdout.write(f"{len(clicks)} simulated clicks of {READERS} simulated readers: {arguments.out}\n")


def _interest(shelf: Shelf, draws: Draws) -> np.ndarray:
    """Liking of every reader for every article, popularity apart: float64 [readers, items]."""
    topics = int(shelf.topic.max()) + 1
    favourites = np.argsort(draws.uniform(READERS, topics), axis=1)[:, : len(TOPIC_LIKING)]
    held = np.arange(len(TOPIC_LIKING)) < 1 + np.floor(len(TOPIC_LIKING) * draws.uniform(READERS, 1))
    by_topic = np.zeros((READERS, topics))
    np.put_along_axis(by_topic, favourites, np.where(held, TOPIC_LIKING, 0.0), axis=1)

    theme = np.floor(shelf.themes.shape[1] * draws.uniform(READERS)).astype(np.int64)
    taste = TASTE_SCALE * draws.normal(READERS, TRAITS)
    trait = draws.normal(len(shelf.ids), TRAITS)
    return by_topic[:, shelf.topic] + THEME_LIKING * shelf.themes.T[theme] + taste @ trait.T


def _choose(logits: np.ndarray, count: int, draws: Draws) -> np.ndarray:
    """`count` distinct positions of `logits`: most by softmax, the last tenth evenly from all the others."""
    noise = round(NOISE_SHARE * count)
    order = np.argsort(-(logits + draws.gumbel(len(logits))), kind="stable")
    liked, others = order[: count - noise], order[count - noise :]
    return np.concatenate([liked, others[np.argsort(draws.uniform(len(others)), kind="stable")[:noise]]])


def _iso(shares: np.ndarray) -> list[str]:
    """Moments of the simulated year, given as shares of it, to the second."""
    seconds = np.floor(shares * 365 * 86_400).astype("timedelta64[s]")
    return np.datetime_as_string(np.datetime64(f"{YEAR}-01-01T00:00:00", "s") + seconds).tolist()


if __name__ == "__main__":
    main()
