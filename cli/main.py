"""The commands put together, and how any of them ends.

Exit codes: 0 done, 1 the input or the job failed, 2 wrong usage.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import version
from typing import Annotated, Any, Final, cast

import typer
from typer.core import TyperCommand, TyperGroup

from framewalk.cli.console import complain, say
from framewalk.engine.errors import FramewalkError
from framewalk.engine.oal import DefinitionError


@dataclass(frozen=True, slots=True)
class _Command:
    """A command by its module, and what it says of itself first."""

    module: str
    summary: str


# Each command is loaded when it is called: a receiver needs neither Polars nor DuckDB, and to list
# all of them none is loaded.
_COMMANDS: Final = {
    "serve": _Command(
        "serve", "Receive what SkyWalking Rover sends, and turn it into metrics while it comes."
    ),
    "replay": _Command("replay", "Turn captures into per-minute metrics in a DuckDB file."),
    "sql": _Command("sql", "Ask a store in SQL. It is only read, and a server may be writing it."),
    "map": _Command(
        "map", "Draw who calls whom: requests per minute, the slowest hundredth, failures."
    ),
    "ui": _Command(
        "ui",
        "Look at a store in a browser: the map, services, edges, endpoints, dashboards, and SQL.",
    ),
    "mqe": _Command("mqe", "Ask a store by an MQE expression, as SkyWalking's dashboards do."),
    "calls": _Command("calls", "Say who called whom for what: each call once, of both its logs."),
    "recompute": _Command(
        "recompute",
        "Make metrics again out of the logs that a store's archive has, or out of captures.",
    ),
    "definitions": _Command("applying", "Change what a running server computes."),
    "mcp": _Command("mcp", "Let an agent ask a store over the Model Context Protocol."),
    "status": _Command(
        "status", "Show what a running server (serve or record) has received, computed and stored."
    ),
    "snapshot": _Command(
        "snapshot", "Copy a store, as of one moment, while a server goes on writing it."
    ),
    "export": _Command(
        "export", "Write what the views of a store show, for tools that cannot read its file."
    ),
    "record": _Command(
        "serve", "Receive what SkyWalking Rover sends, and keep it as captures for a later replay."
    ),
    "query-server": _Command(
        "query_server",
        "Answer queries about a store in SQL, in SkyWalking's GraphQL and in Prometheus' HTTP API.",
    ),
    "send": _Command("send", "Send captures to a receiver the way SkyWalking Rover does."),
    "entities": _Command(
        "entities", "Record who has which address in a cluster, and check what a source says of it."
    ),
    "generate": _Command(
        "generate",
        "Make a realistic capture of a small cluster, with the Kubernetes dump that goes with it.",
    ),
    "quarantine": _Command(
        "quarantine",
        "Show the messages that were set aside because they end the engine or a replay.",
    ),
    "config": _Command("config", "Check the configuration of the live receiver."),
    "oal": _Command("oal", "Check, format and explain the definitions of metrics (*.oal)."),
    "panels": _Command(
        "panels", "Check, list and export the pages of panels that user interfaces show (*.json)."
    ),
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
        module = import_module(f"framewalk.cli.{_COMMANDS[name].module}")
        found = getattr(module, name.replace("-", "_"))
        if isinstance(found, typer.Typer):
            return typer.main.get_command(found)
        alone = typer.Typer(**_SETTINGS)
        alone.command(name)(found)
        return typer.main.get_command(alone)

    def __iter__(self) -> Iterator[str]:
        return iter(_COMMANDS)

    def __len__(self) -> int:
        return len(_COMMANDS)


class _Commands(TyperGroup):
    """Commands that end in words where typer ends without any."""

    def __init__(self, **settings: Any) -> None:  # noqa: ANN401 - as typer declares them
        super().__init__(**settings)
        self.commands = cast("Any", _Loaded())

    def format_help(self, context: Any, formatter: Any) -> None:  # noqa: ANN401 - as above
        self.commands = {
            name: TyperCommand(name, help=one.summary) for name, one in _COMMANDS.items()
        }
        super().format_help(context, formatter)
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
