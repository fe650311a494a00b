"""The command line. Nothing heavy is imported before a command runs, so that --help is quick."""

__all__ = ["main"]


def main() -> None:
    """The program `geo-mf`."""
    from geo_mf.cli.app import app

    app()
