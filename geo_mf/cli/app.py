"""All commands, in the order of --help."""

import typer

from geo_mf.cli.build import build
from geo_mf.cli.command import Commands, add
from geo_mf.cli.compare import compare
from geo_mf.cli.compress import compress
from geo_mf.cli.demo import demo
from geo_mf.cli.doctor import doctor
from geo_mf.cli.evaluate import evaluate
from geo_mf.cli.export import export
from geo_mf.cli.index import compact, prune, stats
from geo_mf.cli.recommend import recommend
from geo_mf.cli.similar import similar
from geo_mf.cli.tune import tune
from geo_mf.cli.verify import verify

__all__ = ["app"]

app = typer.Typer(
    cls=Commands,
    name="geo-mf",
    help="Recommend and find content: behaviour and text in one index.",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)

add(app, demo)
add(app, build, settings=True)
add(app, recommend)
add(app, similar)
add(app, export)
add(app, evaluate, settings=True)
add(app, tune, settings=True)
add(app, compare)
add(app, compress)
add(app, verify)

index = typer.Typer(help="Look after an index on disk.", rich_markup_mode=None)
add(index, stats)
add(index, verify)
add(index, compact)
add(index, prune)
app.add_typer(index, name="index")

add(app, doctor)
