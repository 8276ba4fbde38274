"""The commands put together, and how any of them ends.

Exit codes: 0 done, 1 the input or the job failed, 2 wrong usage.
"""

from __future__ import annotations

import os
import sys
from importlib.metadata import version
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from framewalk.cli.config import config
from framewalk.cli.console import complain, say
from framewalk.cli.generate import generate
from framewalk.cli.oal import oal
from framewalk.cli.replay import replay
from framewalk.cli.send import send
from framewalk.cli.serve import record, serve
from framewalk.cli.snapshot import snapshot
from framewalk.cli.sql import sql
from framewalk.cli.status import status
from framewalk.engine.errors import FramewalkError
from framewalk.engine.oal.diagnostics import DefinitionError


class _Commands(TyperGroup):
    """Commands that end in words where typer ends without any."""

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
    pretty_exceptions_enable=False,
    add_completion=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    rich_markup_mode="rich",
)
app.command()(replay)
app.command()(sql)
app.command()(snapshot)
app.command()(generate)
app.command()(serve)
app.command()(status)
app.command()(record)
app.command()(send)
app.add_typer(config)
app.add_typer(oal)


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


def main() -> None:
    """Run the command; every error is a message, never a traceback."""
    try:
        app()
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
