"""geo-mf tune: which settings suit these data?"""

import errno
from pathlib import Path
from typing import Annotated

import typer

from geo_mf.cli import compiled
from geo_mf.cli.inputs import Settings, Sources
from geo_mf.cli.output import Output

__all__ = ["tune"]


def tune(
    sources: Sources,
    settings: Settings,
    output: Output,
    trials: Annotated[int, typer.Option(min=1, help="Settings to try, those of an earlier run with --study too.")] = 30,
    seconds: Annotated[float | None, typer.Option(help="Begin no trial later than this.")] = None,
    k: Annotated[list[int] | None, typer.Option("--k", "-k", min=1, help="Length of the lists; 20.")] = None,
    study: Annotated[
        Path | None, typer.Option(help="File that keeps the search; run again with it, the search goes on.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Write the best settings here, as .toml for --config.")] = None,
) -> None:
    """Search the settings that rank interactions held out best, starting from those given.

    It varies regularization, unobserved_weight, nu, prior_regularization and the number of iterations; the other
    settings stay. Every option can also be set in the environment, as GEO_MF_ and its name in capitals, or in a TOML
    file (--config). Needs the extra: pip install 'geo_mf[tune]'.
    """
    if k is not None and len(k) != 1:
        raise typer.BadParameter(f"--k is {', '.join(map(str, k))}: tune takes one length of list")
    if out is not None:
        _check_out(out)
    sources.check_users(settings)
    if not settings.no_cache:
        compiled.keep()
    from geo_mf.evaluation.tune import tune as search
    from geo_mf.evaluation.tuning import WARNING
    from geo_mf.files import replace

    config = settings.config()
    listed, catalog, unlisted = sources.read_listed(output)
    found = search(
        listed,
        catalog,
        users=sources.read_users(),
        config=config,
        trials=trials,
        k=k[0] if k else 20,
        study=study,
        seconds=seconds,
        show_progress=output.progress,
    )
    if out is not None:
        replace(out, found.to_toml().encode())
    if output.json:
        output.data(found.to_dict() | {"unlisted_interactions": unlisted, "out": None if out is None else str(out)})
        output.note(WARNING)
    output.say(str(found))
    if out is not None:
        output.say(f"wrote {out}; to build with it: geo-mf build --config {out} ...")


def _check_out(out: Path) -> None:
    """Whether `out` can be written is told before the work, and not after it."""
    if out.suffix != ".toml" or out.is_dir():
        # A settings file that is shared with `build` has its index here.
        raise typer.BadParameter(f"--out is {out}: give the name of a .toml file")
    if not out.parent.is_dir():
        raise FileNotFoundError(errno.ENOENT, "there is no such folder", str(out.parent))
