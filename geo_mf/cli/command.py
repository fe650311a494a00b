"""From a plain function to a command: shared options, settings from three places, and errors of one line.

A parameter of a command function that is a frozen dataclass becomes one option for each of its fields, so commands
share options without repeating them. Exit codes: 0 done, 2 usage, 65 bad data, 66 missing input, 70 a fault of geo_mf
itself, 74 input or output failed, 130 interrupted.
"""

import copy
import difflib
import errno
import inspect
import os
import sys
import tomllib
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import MISSING, fields, is_dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin

import typer
from typer.core import TyperGroup

from geo_mf.cli.output import Output
from geo_mf.errors import GeoMFError

__all__ = ["Commands", "add"]

_SETTINGS: set[str] = set()
"""Names that a settings file may hold: the options of all commands that read one."""

_REMEDIES = {
    errno.ENOENT: "check the path",
    errno.EACCES: "check its permissions",
    errno.EPERM: "check its permissions",
    errno.ENOSPC: "free some space and try again",
    errno.EDQUOT: "free some space and try again",
    errno.EFBIG: "raise the limit on file sizes and try again",
}

_TOML_KINDS: dict[type, tuple[tuple[type, ...], str]] = {
    bool: ((bool,), "true or false"),
    int: ((int,), "a whole number"),
    float: ((int, float), "a number"),
    str: ((str,), "a string"),
    Path: ((str,), "a path as a string"),
    list: ((list,), "a list"),
}


class Commands(TyperGroup):
    """The group of all commands. A usage error is one line and exit code 2."""

    def main(self, args: Sequence[str] | None = None, *others: Any, **extra: Any) -> Any:
        """As in typer."""
        try:
            code = super().main(args, *others, **extra | {"standalone_mode": False})
        except typer.TyperException as error:
            ctx = getattr(error, "ctx", None)
            where = ctx.command_path if ctx is not None else "geo-mf"
            message = " ".join((error.format_message() or "no command was given").split()).rstrip(".")
            typer.echo(f"error: {message}; see {where} --help", err=True)
            code = error.exit_code
        raise SystemExit(code or 0)


def add(app: typer.Typer, function: Callable[..., None], *, settings: bool = False) -> None:
    """Make `function` a command of `app`, under its own name.

    Args:
        app: the application.
        function: its parameters are options and arguments, or dataclasses of them; one of these is an `Output`.
        settings: whether options can also come from the environment (GEO_MF_<NAME>) and from a TOML file (--config).
            A flag wins over the environment, that over the file, that over the default.
    """
    given = inspect.signature(function).parameters
    groups: dict[str, Any] = {name: p.annotation for name, p in given.items() if is_dataclass(p.annotation)}
    options: list[inspect.Parameter] = []
    for name, parameter in given.items():
        options += _fields(groups[name]) if name in groups else [parameter.replace(kind=parameter.KEYWORD_ONLY)]
    if settings:
        options = [_from_environment(option) for option in options]
        _SETTINGS.update(option.name for option in options)
        options.append(_config({option.name: option.annotation for option in options}))

    def run(**values: Any) -> None:
        values.pop("config", None)
        made = {name: group(**{f.name: values.pop(f.name) for f in fields(group)}) for name, group in groups.items()}
        output = next(one for one in made.values() if isinstance(one, Output))
        try:
            function(**values, **made)
        except (Exception, KeyboardInterrupt) as error:
            if isinstance(error, BrokenPipeError | typer.Exit | typer.TyperException):
                raise
            raise typer.Exit(_report(error, output)) from error

    run.__name__, run.__doc__ = function.__name__, function.__doc__
    run.__annotations__ = {option.name: option.annotation for option in options}
    run.__dict__["__signature__"] = inspect.Signature(options)
    app.command(function.__name__)(run)


def _report(error: BaseException, output: Output) -> int:
    """Say what went wrong and return the exit code."""
    if output.debug:
        output.note("".join(traceback.format_exception(error)).rstrip())
    if isinstance(error, KeyboardInterrupt):
        return 130
    if isinstance(error, GeoMFError):
        code, message = 65, str(error)
    elif isinstance(error, OSError):
        code = 66 if isinstance(error, FileNotFoundError) else 74
        place = f"{error.filename}: " if error.filename is not None else ""
        remedy = _REMEDIES.get(error.errno or 0, "")
        message = f"{place}{error.strerror or error}" + (f"; {remedy}" if remedy else "")
        _forget_unwritten()
    else:
        code = 70
        message = (
            f"{type(error).__name__}: {error}; this is a fault of geo_mf: please report it with the output of --debug"
        )
    output.note(f"error: {' '.join(message.split())}")
    return code


def _forget_unwritten() -> None:
    """Drop an answer that cannot be written: Python would try again when it ends, and change the exit code."""
    try:
        sys.stdout.flush()
    except OSError:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)


def _fields(group: Any) -> list[inspect.Parameter]:
    """The fields of a dataclass as parameters."""
    empty = inspect.Parameter.empty
    return [
        inspect.Parameter(
            field.name,
            inspect.Parameter.KEYWORD_ONLY,
            default=empty if field.default is MISSING else field.default,
            annotation=field.type,
        )
        for field in fields(group)
    ]


def _from_environment(parameter: inspect.Parameter) -> inspect.Parameter:
    plain, option = get_args(parameter.annotation)
    option = copy.copy(option)
    option.envvar, option.show_envvar = f"GEO_MF_{parameter.name.upper()}", False
    return parameter.replace(annotation=Annotated[plain, option])


def _config(options: Mapping[str, Any]) -> inspect.Parameter:
    """The option --config, whose file gives the defaults of `options` (name -> annotation)."""

    def read(ctx: typer.Context, path: Path | None) -> Path | None:
        if path is not None:
            ctx.default_map = {name: value for name, value in _settings(path, options).items() if name in options}
        return path

    option = typer.Option(
        "--config",
        is_eager=True,
        callback=read,
        envvar="GEO_MF_CONFIG",
        show_envvar=False,
        help="TOML file of settings, named as the options are. Order: flag, GEO_MF_<NAME>, file, default.",
    )
    return inspect.Parameter(
        "config", inspect.Parameter.KEYWORD_ONLY, default=None, annotation=Annotated[Path | None, option]
    )


def _settings(path: Path, options: Mapping[str, Any]) -> dict[str, Any]:
    """The settings in a TOML file, by option name; typer.BadParameter for what is no setting or of another type."""
    try:
        found = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        typer.echo(f"error: {path}: there is no such settings file; check --config", err=True)
        raise typer.Exit(66) from error
    except OSError as error:
        typer.echo(f"error: {path}: {error.strerror}; check --config", err=True)
        raise typer.Exit(74) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise typer.BadParameter(f"{path} is not TOML: {error}") from error
    settings = {key.replace("-", "_"): value for key, value in found.items()}
    for name, value in settings.items():
        if name not in _SETTINGS:
            close = difflib.get_close_matches(name, _SETTINGS, n=1, cutoff=0)
            raise typer.BadParameter(f"{path} has an unknown setting {name!r}; the closest one is {close[0]!r}")
        if name in options:
            allowed, expected = _kind(options[name])
            if not isinstance(value, allowed) or (isinstance(value, bool) and bool not in allowed):
                raise typer.BadParameter(f"{path}: {name} is {value!r}; expected {expected}")
    return settings


def _kind(annotation: Any) -> tuple[tuple[type, ...], str]:
    """The TOML types that an option takes, and their name for people."""
    plain = get_args(annotation)[0]
    kinds = [kind for kind in get_args(plain) if kind is not type(None)] if get_origin(plain) is not list else []
    kind = kinds[0] if kinds and get_origin(plain) is not Literal else plain
    if get_origin(kind) is Literal:
        return (str,), "one of " + ", ".join(map(repr, get_args(kind)))
    return _TOML_KINDS[get_origin(kind) or kind]
