"""`framewalk quarantine`: the messages that a server's engine does not outlive."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from framewalk.cli.console import say
from framewalk.cli.rows import Format, print_rows
from framewalk.cli.suspicion import quarantine_of
from framewalk.engine.errors import InputError
from framewalk.engine.runs import QUARANTINE, Quarantine

_COLUMNS = ("capture", "is_there", "segment", "stream", "seq", "size_bytes", "problem")

quarantine = typer.Typer(
    name="quarantine",
    help="Show the messages that were set aside because they end the engine or a replay.",
    no_args_is_help=True,
)


@quarantine.callback()
def root() -> None:
    """Show the messages that were set aside because they end the engine or a replay.

    Each has a capture of its own, in the folder [bold]quarantine[/bold] of a server's spool, or in
    [bold]FILE.quarantine[/bold] beside the store of a replay. Once a later version reads it,
    [bold]framewalk replay FOLDER --store FILE[/bold] counts it, once.
    """


@quarantine.command("list")
def list_set_aside(
    spool: Annotated[
        Path,
        typer.Option(
            "--spool", metavar="FOLDER", help="The server's spool; it may be running or not."
        ),
    ] = Path("framewalk-data/spool"),
    store: Annotated[
        Path | None,
        typer.Option(
            "--store",
            "-s",
            metavar="FILE",
            help="Those of replays into this store instead.",
            show_default=False,
        ),
    ] = None,
    output: Annotated[
        Format, typer.Option("--format", "-f", help="How to print: table, wide, csv or json.")
    ] = Format.TABLE,
) -> None:
    """List them: the capture of each, where it was, and what it does to a process.

    In [bold]is_there[/bold] stands whether its capture is still kept.
    """
    if store is not None and not store.exists():
        raise InputError(store, "there is no such file", "name the store of a replay (--store)")
    if store is None and not spool.is_dir():
        remedy = "name the spool of a server (--spool) or the store of a replay (--store)"
        raise InputError(spool, "there is no such folder", remedy)
    folder = Quarantine(quarantine_of(store) if store is not None else spool / QUARANTINE)
    rows = [
        (
            one.capture,
            (folder.folder / one.capture).exists(),
            one.place.segment,
            one.stream,
            one.seq,
            one.size_bytes,
            one.problem,
        )
        for one in folder.entries
    ]
    print_rows(output, _COLUMNS, rows)
    if not rows:
        say("nothing was set aside")
