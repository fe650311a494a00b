"""geo-mf verify: is every file of an index as it was written?"""

from typing import Annotated

import typer

from geo_mf.cli.output import Output
from geo_mf.cli.recommend import Index
from geo_mf.errors import IncompatibleIndex

__all__ = ["verify"]


def verify(
    index: Index,
    output: Output,
    version: Annotated[str | None, typer.Option(help="Such as v000007; by default the current one.")] = None,
) -> None:
    """Check every file of an index.

    Lists all that is damaged, missing or too many; the exit code is 65 if anything is.
    """
    from geo_mf import store

    report = store.verify(index, version)
    if output.json:
        output.data(
            {
                "index": str(report.root),
                "version": report.version,
                "ok": report.ok,
                "files": report.files,
                "bytes": report.size,
                "problems": list(report.problems),
            }
        )
    output.say(str(report))
    if not report.ok:
        raise IncompatibleIndex(f"{index}: {len(report.problems)} found by verify, the first is: {report.problems[0]}")
