"""geo-mf demo: the whole path on the bundled sample, with the real encoder."""

import os
import shlex
import sys
import time
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from geo_mf.cli import compiled
from geo_mf.cli.build import card_rows
from geo_mf.cli.listing import short, show
from geo_mf.cli.output import Output

if TYPE_CHECKING:
    from geo_mf.evaluation.report import EvaluationReport
    from geo_mf.recommender import Recommender

__all__ = ["SETTINGS", "demo"]

SETTINGS: dict[str, Any] = {"factors": 32, "unobserved_weight": 0.5, "regularization": 0.03, "weighting": "linear"}
"""The best of 29 settings on a validation part of the sample: random splits of the training part of a random split."""

SENTENCE = "how to sleep better before an exam"
CLICKS = ("btree-fanout", "base-rates", "retrieval-augmented-answers")
READER = "reader-052"
METRICS = ("recall", "ndcg", "hit", "coverage")
K = 5


def demo(
    output: Output,
    out: Annotated[Path, typer.Option(help="Folder of the index.")] = Path("indexes/demo"),
) -> None:
    """Build the bundled sample, judge it, ask it.

    The readers of the sample are simulated. A second run is quicker: texts and programs are kept.
    """
    compiled.keep()
    began = time.perf_counter()
    from geo_mf.builder import BuildConfig, build
    from geo_mf.data import sample
    from geo_mf.data.read import read_catalog, read_interactions
    from geo_mf.evaluation.run import evaluate
    from geo_mf.evaluation.split import random_split

    config = BuildConfig.of(**SETTINGS)
    catalog = read_catalog(sample.articles_path(), text="{title}. {text}")
    interactions, _ = read_interactions(sample.interactions_path()).align(items=catalog.items)
    output.say(
        f"The sample: {len(catalog)} short articles written for this project, and {len(interactions.users)} SIMULATED "
        "readers.\nNo real person's behaviour is in it: its figures show that the program works, and no more.\n"
    )
    rec = build(interactions, catalog, out=out, config=config, show_progress=output.progress)
    output.say(f"1. Built {out}")
    output.table(("", ""), card_rows(rec.card))
    report = evaluate(config, random_split(interactions), catalog=catalog, k=10, lists=("overall",))
    _show_report(report, output)
    answers = _answers(rec, sample.cold_items()[0], output)
    seconds = time.perf_counter() - began
    if output.json:
        output.data(
            {"out": str(out), "card": dict(rec.card), "evaluation": report.to_dict(), "seconds": seconds} | answers
        )
    output.say(f"\nAll of this took {seconds:.0f} seconds. What to try next:")
    for command in _next_commands(out, sample.interactions_path(), sample.articles_path()):
        output.say(f"  {command}")


def _show_report(report: "EvaluationReport", output: Output) -> None:
    scorers = dict.fromkeys(row.scorer for row in report.rows)
    users = report.rows[0].n_users
    output.say(f"\n2. How good is it? A fifth of the clicks of {users} simulated readers held out ({report.split})")
    cells = [(scorer, *(f"{report.row(scorer, metric).value:.3f}" for metric in METRICS)) for scorer in scorers]
    output.table(("", *(f"{metric}@10" for metric in METRICS)), cells, right=(1, 2, 3, 4))


def _answers(rec: "Recommender", cold: str, output: Output) -> dict[str, Any]:
    """Ask the four questions, show the answers, and return them as plain values."""
    liked = ", ".join(short(title, 34) for title in _favourites(rec, READER))
    output.say(f"\n3. For a known reader ({READER}, simulated), who gave most attention to: {liked}")
    known = rec.recommend(READER, k=K)
    show(known, output)
    output.say(f'\n4. For a new reader who only typed a sentence: "{SENTENCE}"')
    typed = rec.recommend(text=SENTENCE, k=K)
    show(typed, output)
    titles = dict(zip(rec.catalog.items.take(range(len(rec.catalog))), rec.titles, strict=True))
    output.say("\n5. For a new reader with three clicks: " + "; ".join(short(titles[item], 44) for item in CLICKS))
    clicked = rec.recommend(history=list(CLICKS), k=K)
    show(clicked, output)
    output.say(f"\n6. A new article that nobody has read: {titles[cold]}\nThe (simulated) readers it would reach:")
    audience = rec.audience(cold, k=K)
    topics = [_topics(rec, reader) for reader, _ in audience]
    rows = [(str(reader), f"{score:.3f}", text) for (reader, score), text in zip(audience, topics, strict=True)]
    output.table(("reader", "score", "reads most about"), rows, right=(1,))
    return {
        "known_reader": {"user": READER} | known.to_dict(),
        "sentence": {"text": SENTENCE} | typed.to_dict(),
        "three_clicks": {"history": list(CLICKS)} | clicked.to_dict(),
        "cold_article": {
            "item_id": cold,
            "title": titles[cold],
            "audience": [{"user": reader, "score": score} for reader, score in audience],
        },
    }


def _favourites(rec: "Recommender", reader: str) -> list[str]:
    """Titles of the three items with the largest weights in a history."""
    row = rec.users.row(reader)
    span = slice(rec.history.indptr[row], rec.history.indptr[row + 1])
    weighed = sorted(zip(rec.history.data[span], rec.history.indices[span], strict=True), key=lambda pair: -pair[0])
    return [rec.titles[item] for _, item in weighed[:3]]


def _topics(rec: "Recommender", reader: object) -> str:
    """The three topics that a reader read most about."""
    row = rec.users.row(reader)
    span = slice(rec.history.indptr[row], rec.history.indptr[row + 1])
    names = rec.catalog.table.column("topic").take(rec.history.indices[span]).to_pylist()
    return ", ".join(f"{topic} ({count})" for topic, count in Counter(names).most_common(3))


def _next_commands(out: Path, interactions: Path, items: Path) -> list[str]:
    """Commands that work as they stand, typed the way this one was."""
    program = sys.argv[0] if os.path.basename(sys.argv[0]).startswith("geo-mf") else "geo-mf"
    run, index = shlex.quote(_near(Path(program))) if os.sep in program else program, shlex.quote(str(out))
    files = f"--interactions {shlex.quote(_near(interactions))} --items {shlex.quote(_near(items))}"
    mine = shlex.quote(str(out.with_name("mine")))
    return [
        f'{run} recommend {index} --text "why do we forget names" --where "year >= 2020"',
        f"{run} recommend {index} --user reader-374 --k 5 --json",
        f"{run} similar {index} tomato-blight --space text",
        f"{run} verify {index}",
        f'{run} build {files} --text "{{title}}. {{text}}" --factors 32 --out {mine}',
        f"{run} build --help",
    ]


def _near(path: Path) -> str:
    """The path from here, where that is a way down."""
    absolute = path.absolute()
    return str(absolute.relative_to(Path.cwd())) if absolute.is_relative_to(Path.cwd()) else str(path)
