"""`framewalk serve` and `framewalk record`: live receivers, with an engine and without."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from framewalk.cli.console import complain, say, warn
from framewalk.engine.kubernetes import source_of
from framewalk.server.config import Config, ConfigError, load_config, unknown_variables

_ConfigFile = Annotated[
    Path | None,
    typer.Option(
        "--config",
        "-c",
        metavar="FILE",
        help="A YAML file, laid over the default file. Default: the default file alone; "
        "see `framewalk config show`.",
        show_default=False,
    ),
]
_Port = Annotated[
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
]
_Spool = Annotated[
    Path | None,
    typer.Option(
        "--spool",
        metavar="FOLDER",
        help="Keep received messages in this folder, whatever the file says; it is made if it is "
        "not there. Default: framewalk-data/spool.",
        show_default=False,
    ),
]


def record(config: _ConfigFile = None, port: _Port = None, spool: _Spool = None) -> None:
    """Receive what SkyWalking Rover sends, and keep it as captures for a later replay.

    It takes the place of the OAP server in Rover's configuration. Stop it with Ctrl-C or SIGTERM;
    what it has acknowledged is on disk. Then: [bold]framewalk replay FOLDER[/bold].
    """
    _run(settings_of(config), config, port, spool, computes=False)


def serve(
    config: _ConfigFile = None,
    port: _Port = None,
    spool: _Spool = None,
    store: Annotated[
        Path | None,
        typer.Option(
            "--store",
            "-s",
            metavar="FILE",
            help="Write metrics into this DuckDB file, whatever the file says; it is made if it "
            "is not there. Default: framewalk-data/metrics.duckdb.",
            show_default=False,
        ),
    ] = None,
    entities: Annotated[
        list[Path] | None,
        typer.Option(
            "--entities",
            "-e",
            metavar="[NAME=]PATH",
            help="Output of `kubectl get pods,services,endpointslices,nodes -A -o yaml` (or json), "
            "or a folder of such files, read again when it changes; may be given several times. "
            "NAME is the clusterName of the nodes that it is for. Default: none, and no address is "
            "known.",
            show_default=False,
        ),
    ] = None,
    kubernetes: Annotated[
        bool | None,
        typer.Option(
            "--kubernetes",
            help="Watch the pods, Services, EndpointSlices and nodes of a cluster: the one in "
            "which this runs, else that of $KUBECONFIG or of ~/.kube/config. Needs "
            "framewalk[kubernetes]; may be given beside --entities, the newer of both counts.",
            show_default=False,
        ),
    ] = None,
    kubeconfig: Annotated[
        Path | None,
        typer.Option(
            "--kubeconfig",
            metavar="FILE",
            exists=True,
            dir_okay=False,
            help="With --kubernetes: the cluster of this file.",
            show_default=False,
        ),
    ] = None,
    context: Annotated[
        list[str] | None,
        typer.Option(
            "--context",
            metavar="[NAME=]CONTEXT",
            help="With --kubernetes: a context of the kubeconfig; may be given several times. "
            "NAME=CONTEXT is for nodes with that clusterName. Default: the current one.",
            show_default=False,
        ),
    ] = None,
    publish: Annotated[
        str | None,
        typer.Option(
            "--publish",
            metavar="URI",
            help="Publish every commit to the Delta table at this path or URI (s3://...), which "
            "engines share and `framewalk query-server --follow` reads. Needs "
            "framewalk[distributed].",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Receive what SkyWalking Rover sends, and turn it into metrics while it comes.

    It takes the place of the OAP server in Rover's configuration. Every few seconds the metrics
    are up to date; ask with [bold]framewalk sql[/bold] while it runs, look at it with
    [bold]framewalk status[/bold]. Stop it with Ctrl-C or SIGTERM: what it has acknowledged is on
    disk, and is counted once.
    """
    settings = settings_of(config)
    if settings.engine is None and (store is not None or entities):
        option = "--store" if store is not None else "--entities"
        message = "is of no use: the configuration turns the engine off"
        raise typer.BadParameter(message, param_hint=option)
    if store is not None:
        storage = settings.storage.model_copy(update={"path": store})
        settings = settings.model_copy(update={"storage": storage})
    if entities and settings.engine is not None:
        _check_sources(entities)
        engine = settings.engine.model_copy(update={"entities_paths": tuple(entities)})
        settings = settings.model_copy(update={"engine": engine})
    if publish is not None:
        settings = _publishing(settings, publish)
    _run(_watching(settings, kubernetes, kubeconfig, context), config, port, spool, computes=True)


def _publishing(settings: Config, uri: str) -> Config:
    """Return settings with the table that the command line names."""
    if settings.engine is None or settings.publish is None:
        message = "is of no use: the configuration turns the engine or publishing off"
        raise typer.BadParameter(message, param_hint="--publish")
    return settings.model_copy(update={"publish": settings.publish.model_copy(update={"uri": uri})})


def _watching(
    settings: Config,
    kubernetes: bool | None,  # noqa: FBT001
    kubeconfig: Path | None,
    contexts: list[str] | None,
) -> Config:
    """Return settings with what the command line says about a cluster."""
    asked: dict[str, object] = {"kubernetes": True} if kubernetes else {}
    asked |= {"kubeconfig": kubeconfig} if kubeconfig is not None else {}
    asked |= {"kubernetes_contexts": tuple(contexts)} if contexts else {}
    if not asked:
        return settings
    if settings.engine is None:
        message = "is of no use: the configuration turns the engine off"
        raise typer.BadParameter(message, param_hint="--kubernetes")
    engine = settings.engine.model_copy(update=asked)
    if not engine.kubernetes:
        message = "is of no use without --kubernetes"
        raise typer.BadParameter(message, param_hint="--kubeconfig / --context")
    return settings.model_copy(update={"engine": engine})


def _check_sources(entities: list[Path]) -> None:
    for path in (source_of(one).path for one in entities):
        if not path.exists():
            message = f"Path '{path}' does not exist."
            raise typer.BadParameter(message, param_hint="'--entities' / '-e'")


def _run(
    settings: Config, file: Path | None, port: int | None, spool: Path | None, *, computes: bool
) -> None:
    # Here, so that no other command waits until a server is loaded.
    from framewalk.server import server  # noqa: PLC0415
    from framewalk.server.engine import EngineError  # noqa: PLC0415

    listening, options = settings.grpc, server.spool_options_of(settings)
    listening = listening if port is None else replace(listening, port=port)
    options = options if spool is None else replace(options, folder=spool)
    try:
        unknown = unknown_variables(file, os.environ)
        server.serve(settings, listening, options, computes=computes, unknown=unknown)
    except EngineError as error:
        if "\n" not in str(error):
            raise
        # Findings in definitions, which say themselves that they are errors.
        say(str(error))
        raise typer.Exit(1) from error


def settings_of(path: Path | None) -> Config:
    """Read a configuration; say all of its problems and exit where there are any."""
    try:
        return load_config(path, os.environ, lambda warning: warn(str(warning)))
    except ConfigError as error:
        for problem in error.problems:
            complain(str(problem))
        raise typer.Exit(1) from error
