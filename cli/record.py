"""`framewalk record`: a live receiver that keeps what comes, and computes nothing."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from framewalk.cli.console import complain
from framewalk.receiver.config import Config, ConfigError, load_config


def record(
    config: Annotated[
        Path | None,
        typer.Option(
            "--config",
            "-c",
            metavar="FILE",
            help="A YAML file, laid over the default file. Default: the default file alone; "
            "see `framewalk config show`.",
            show_default=False,
        ),
    ] = None,
    port: Annotated[
        int | None,
        typer.Option(
            "--port",
            "-p",
            min=0,
            max=65_535,
            metavar="PORT",
            help="Listen on this port, whatever the file says; 0 takes a free one, which the "
            "`ready` line names. Default: 11800, the OAP's.",
            show_default=False,
        ),
    ] = None,
    spool: Annotated[
        Path | None,
        typer.Option(
            "--spool",
            "-s",
            metavar="FOLDER",
            help="Write into this folder, whatever the file says; it is made if it is not there.",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Receive what SkyWalking Rover sends, and keep it as captures for a later replay.

    It takes the place of the OAP server in Rover's configuration. Stop it with Ctrl-C or SIGTERM;
    what it has acknowledged is on disk. Then: [bold]framewalk replay FOLDER[/bold].
    """
    settings = _settings(config)
    # Here, so that no other command waits until a server is loaded.
    from framewalk.receiver import record as recorder  # noqa: PLC0415

    server, options = settings.grpc, recorder.spool_options_of(settings)
    server = server if port is None else replace(server, port=port)
    options = options if spool is None else replace(options, folder=spool)
    recorder.record(settings, server, options)


def _settings(path: Path | None) -> Config:
    try:
        return load_config(path, os.environ)
    except ConfigError as error:
        for problem in error.problems:
            complain(str(problem))
        raise typer.Exit(1) from error
