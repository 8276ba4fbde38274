"""The commands put together, and how any of them ends.

Exit codes: 0 done, 1 the input or the job failed, 2 wrong usage.
"""

from __future__ import annotations

import os
import sys
from importlib.metadata import version
from typing import Annotated

import typer

from framewalk.cli.console import complain
from framewalk.cli.generate import generate
from framewalk.cli.replay import replay
from framewalk.cli.sql import sql
from framewalk.engine.errors import FramewalkError

app = typer.Typer(
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
app.command()(generate)


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
    except FramewalkError as error:
        complain(str(error))
    except KeyboardInterrupt:
        complain("interrupted; what was committed before stays, run it again to go on")
        sys.exit(130)
    except BrokenPipeError:
        # The reader of a pipe has seen enough. Without this, closing stdout would fail again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)
    except OSError as error:
        complain(f"{error.filename or 'framewalk'}: {(error.strerror or str(error)).lower()}")
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
