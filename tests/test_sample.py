"""The bundled sample: the articles are what they claim to be, and the simulated readers can be written again."""

import csv
import re
import subprocess
import sys
from collections import Counter
from datetime import datetime
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from geo_mf.data import sample
from geo_mf.data.sample import articles_path, cold_items, interactions_path, simulate
from geo_mf.errors import InvalidInput

ARTICLES = simulate.read_articles(articles_path())
with interactions_path().open(encoding="utf-8", newline="") as file:
    CLICKS = list(csv.DictReader(file))


def per(rows: list[dict[str, str]], column: str) -> Counter[str]:
    return Counter(row[column] for row in rows)


# The articles


def test_articles_have_the_promised_columns_and_count() -> None:
    assert list(ARTICLES[0]) == ["item_id", "title", "text", "topic", "tags", "year", "url"]
    assert len(ARTICLES) == 300


@pytest.mark.parametrize("column", ["item_id", "title", "text", "url"])
def test_no_two_articles_share(column: str) -> None:
    assert per(ARTICLES, column).most_common(1)[0][1] == 1


def test_every_topic_is_well_filled() -> None:
    topics = per(ARTICLES, "topic")
    assert 15 <= len(topics) <= 20
    assert min(topics.values()) >= 8


@pytest.mark.parametrize("article", ARTICLES, ids=lambda article: article["item_id"])
def test_article_is_well_formed(article: dict[str, str]) -> None:
    assert all(value and value == value.strip() for value in article.values())
    assert None not in article  # csv.DictReader files surplus cells under None
    assert re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", article["item_id"])
    assert article["url"] == f"/{article['topic'].replace(' ', '-')}/{article['item_id']}"
    assert 2015 <= int(article["year"]) <= 2026
    tags = article["tags"].split("|")
    assert len(tags) == len(set(tags)) == 3
    assert 40 <= len(article["text"].split()) <= 70
    assert len(re.findall(r"[.!?](?=\s|$)", article["text"])) in (2, 3)
    assert article["text"][-1] in ".!?"


def test_no_sentence_is_used_twice_and_no_phrase_is_a_template() -> None:
    sentences = [s for article in ARTICLES for s in re.split(r"(?<=[.!?])\s", article["text"])]
    assert len(sentences) == len(set(sentences))
    runs = Counter()
    for article in ARTICLES:
        words = re.findall(r"\w+", article["text"].lower())
        runs.update({tuple(words[i : i + 6]) for i in range(len(words) - 5)})
    assert runs.most_common(1)[0][1] <= 2


# The simulated readers


def test_interactions_have_the_promised_shape() -> None:
    assert list(CLICKS[0]) == ["user_id", "item_id", "weight", "datetime"]
    assert 10_000 <= len(CLICKS) <= 12_000
    readers = per(CLICKS, "user_id")
    assert sorted(readers) == [f"reader-{number:03d}" for number in range(1, 401)]
    assert min(readers.values()) >= 8
    assert max(readers.values()) <= 60
    assert {int(click["weight"]) for click in CLICKS} == set(range(1, 11))


def test_every_interaction_names_an_article_once_per_reader_within_the_year() -> None:
    assert {click["item_id"] for click in CLICKS} <= {article["item_id"] for article in ARTICLES}
    assert len({(click["user_id"], click["item_id"]) for click in CLICKS}) == len(CLICKS)
    moments = [datetime.fromisoformat(click["datetime"]) for click in CLICKS]
    assert {moment.year for moment in moments} == {simulate.YEAR}
    assert len({moment.month for moment in moments}) == 12
    assert all(a <= b for a, b in pairwise(moments))


def test_the_cold_articles_are_exactly_the_newest() -> None:
    newest = [article["item_id"] for article in ARTICLES if int(article["year"]) > simulate.YEAR]
    assert cold_items() == newest
    assert len(newest) == 20
    assert {article["topic"] for article in ARTICLES if article["item_id"] in newest} == set(per(ARTICLES, "topic"))


def test_articles_of_the_simulated_year_start_late() -> None:
    year = {article["item_id"]: int(article["year"]) for article in ARTICLES}
    first: dict[str, np.datetime64] = {}
    for click in CLICKS:
        first.setdefault(click["item_id"], np.datetime64(click["datetime"], "s"))
    seconds = {item: moment.astype(int) for item, moment in first.items()}
    fresh = np.median([seconds[item] for item in seconds if year[item] == simulate.YEAR])
    older = np.median([seconds[item] for item in seconds if year[item] < simulate.YEAR])
    assert fresh - older > 60 * 86_400


def test_readers_favour_topics_and_agree_beyond_them() -> None:
    """Behaviour holds what text tells (topics) and what it does not (traits, popularity)."""
    ids = [article["item_id"] for article in ARTICLES]
    topics = np.unique([article["topic"] for article in ARTICLES], return_inverse=True)[1]
    read = np.zeros((simulate.READERS, len(ids)))
    for click in CLICKS:
        read[int(click["user_id"][-3:]) - 1, ids.index(click["item_id"])] = 1.0
    shares = np.sort(read @ np.eye(topics.max() + 1)[topics] / read.sum(1, keepdims=True), axis=1)
    assert shares[:, -3:].sum(1).mean() > 0.5  # 20 topics, blindly chosen: about 0.35

    counts = read.sum(0)
    warm = counts > 0
    assert counts[warm].max() > 4 * counts[warm].min()  # popularity
    tags = [set(article["tags"].split("|")) | {article["topic"]} for article in ARTICLES]
    unrelated = np.array([[not (a & b) for b in tags] for a in tags])[np.ix_(warm, warm)]
    halves = [np.asarray(np.corrcoef(read[half::2, warm], rowvar=False))[unrelated] for half in (0, 1)]
    # Articles that share neither topic nor tag: two halves of the readers still pair them alike. By chance: 0 +- 0.005.
    assert np.corrcoef(halves[0], halves[1])[0, 1] > 0.1


def test_writing_it_again_gives_the_same_bytes(tmp_path: Path) -> None:
    out = tmp_path / "again.csv"
    command = [sys.executable, "-W", "error", "-m", "geo_mf.data.sample.simulate", "--out", str(out)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    assert "simulated" in done.stdout
    assert out.read_bytes() == interactions_path().read_bytes()


def test_another_seed_gives_other_readers() -> None:
    assert simulate.to_csv(simulate.simulate(ARTICLES, seed=1)).encode() != interactions_path().read_bytes()


def test_too_few_articles_are_refused() -> None:
    with pytest.raises(InvalidInput, match="59 articles.*at least 60"):
        simulate.simulate([article for article in ARTICLES if int(article["year"]) <= simulate.YEAR][:59])


@given(st.integers(0, 2**64 - 1))
def test_draws_are_open_and_finite(seed: int) -> None:
    draws = simulate.Draws(seed)
    uniform = draws.uniform(50, 2)
    assert uniform.shape == (50, 2)
    assert ((uniform > 0) & (uniform < 1)).all()
    assert np.isfinite(draws.normal(100)).all()
    assert np.isfinite(draws.gumbel(100)).all()


def test_draws_follow_their_distributions() -> None:
    draws = simulate.Draws(7)
    normal, gumbel = draws.normal(100_000), draws.gumbel(100_000)
    assert [normal.mean(), normal.std()] == pytest.approx([0.0, 1.0], abs=0.02)
    assert [gumbel.mean(), gumbel.std()] == pytest.approx([0.5772, np.pi / np.sqrt(6)], abs=0.02)


# The labels


def test_the_files_say_that_the_readers_are_simulated() -> None:
    folder = articles_path().parent
    assert "simulated" in (folder / "README.md").read_text(encoding="utf-8").lower()
    assert "Apache-2.0" in (folder / "README.md").read_text(encoding="utf-8")
    assert "SIMULATED" in (sample.__doc__ or "")
    assert "SIMULATED" in (simulate.__doc__ or "")
