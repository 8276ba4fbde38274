"""The commands put together, and how any of them ends.

Exit codes: 0 done, 1 the input or the job failed, 2 wrong usage.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator, Mapping
from importlib import import_module
from importlib.metadata import version
from typing import Annotated, Any, Final, cast

import typer
from typer.core import TyperGroup

from framewalk.cli.console import complain, say
from framewalk.engine.errors import FramewalkError
from framewalk.engine.oal import DefinitionError

# Each command is loaded when it is called: a receiver needs neither Polars nor DuckDB.
_MODULES: Final = {
    "serve": "serve",
    "replay": "replay",
    "sql": "sql",
    "map": "map",
    "ui": "ui",
    "mqe": "mqe",
    "calls": "calls",
    "recompute": "recompute",
    "definitions": "applying",
    "mcp": "mcp",
    "status": "status",
    "snapshot": "snapshot",
    "export": "export",
    "record": "serve",
    "query-server": "query_server",
    "send": "send",
    "entities": "entities",
    "generate": "generate",
    "quarantine": "quarantine",
    "config": "config",
    "oal": "oal",
    "panels": "panels",
}
# How a query may begin, and no option with its value does.
_SQL_COMMENT: Final = re.compile(r"--(\s|[^=\n]*\n)")
_SETTINGS: Final[dict[str, Any]] = {
    "pretty_exceptions_enable": False,
    "add_completion": False,
    "context_settings": {"help_option_names": ["-h", "--help"]},
    "rich_markup_mode": "rich",
}


class _Loaded(Mapping[str, Any]):
    """The commands by name, each loaded when it is asked for."""

    def __getitem__(self, name: str) -> Any:  # noqa: ANN401 - typer keeps its classes to itself
        module = import_module(f"framewalk.cli.{_MODULES[name]}")
        found = getattr(module, name.replace("-", "_"))
        if isinstance(found, typer.Typer):
            return typer.main.get_command(found)
        alone = typer.Typer(**_SETTINGS)
        alone.command(name)(found)
        return typer.main.get_command(alone)

    def __iter__(self) -> Iterator[str]:
        return iter(_MODULES)

    def __len__(self) -> int:
        return len(_MODULES)


class _Commands(TyperGroup):
    """Commands that end in words where typer ends without any."""

    def __init__(self, **settings: Any) -> None:  # noqa: ANN401 - as typer declares them
        super().__init__(**settings)
        self.commands = cast("Any", _Loaded())

    def parse_args(self, context: Any, args: list[str]) -> list[str]:  # noqa: ANN401 - as above
        # A space makes no difference to SQL, and tells it from an option.
        spaced = [f" {text}" if _SQL_COMMENT.match(text) else text for text in args]
        return super().parse_args(context, spaced)

    def invoke(self, context: Any) -> Any:  # noqa: ANN401 - as typer declares it
        try:
            result = super().invoke(context)
            sys.stdout.flush()
        except KeyboardInterrupt as error:
            replayed = context.invoked_subcommand == "replay"
            hint = "; nothing stored is lost, run this again to go on" if replayed else ""
            complain(f"interrupted{hint}")
            raise typer.Exit(130) from error
        except BrokenPipeError as error:
            # The reader of a pipe has seen enough. Without this, closing stdout would fail again.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            raise typer.Exit from error
        return result


app = typer.Typer(
    cls=_Commands,
    name="framewalk",
    help="Per-minute metrics of Kubernetes services from SkyWalking Rover's access logs.",
    epilog="Start with: framewalk generate bookinfo, then framewalk replay --help.",
    no_args_is_help=True,
    **_SETTINGS,
)


def _print_version(wanted: bool) -> None:  # noqa: FBT001 - a typer callback
    if wanted:
        typer.echo(f"framewalk {version('framewalk')}")
        raise typer.Exit


@app.callback()
def root(
    *,
    _version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Print the version and exit."
        ),
    ] = False,
) -> None:
    """Per-minute metrics of Kubernetes services from SkyWalking Rover's access logs."""


def program() -> None:
    """Run the command as the whole of this process, which may then be forked."""
    main(is_program=True)


def main(*, is_program: bool = False) -> None:
    """Run the command; every error is a message, never a traceback."""
    try:
        app(obj=is_program)
    except DefinitionError as error:
        # Each of its findings says itself that it is an error.
        say(str(error))
    except FramewalkError as error:
        complain(str(error))
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        remedy = "check the path, its permissions and the space left"
        complain(f"{error.filename or 'output'}: {reason}; {remedy}")
    except Exception as error:
        if "FRAMEWALK_TRACEBACK" in os.environ:
            raise
        complain(
            f"this is a bug in framewalk: {type(error).__name__}: {error}; "
            "please report it with what FRAMEWALK_TRACEBACK=1 prints"
        )
    else:
        return
    sys.exit(1)
