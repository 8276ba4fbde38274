"""`framewalk entities`: record what a cluster holds, and check what a source does."""

from __future__ import annotations

import threading
import time
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from framewalk.cli.console import stdout, warn
from framewalk.engine.errors import EntitiesError
from framewalk.engine.kubernetes import (
    ClusterAccess,
    ClusterWatch,
    EntitiesRecorder,
    read_dumps,
)

if TYPE_CHECKING:
    from framewalk.engine.kubernetes import Inventory

_FIRST_LIST_S = 30
_NS_PER_S = 10**9
_MIB = 2**20

_Kubeconfig = Annotated[
    Path | None,
    typer.Option(
        "--kubeconfig",
        metavar="FILE",
        exists=True,
        dir_okay=False,
        help="The cluster of this file. Default: the one in which this runs, else that of "
        "$KUBECONFIG or of ~/.kube/config.",
        show_default=False,
    ),
]
_Context = Annotated[
    str,
    typer.Option(
        "--context",
        metavar="NAME",
        help="A context of the kubeconfig. Default: its current one.",
        show_default=False,
    ),
]

entities = typer.Typer(
    name="entities",
    help="Record who has which address in a cluster, and check what a source says of it.",
    no_args_is_help=True,
    add_completion=False,
)


@entities.command()
def record(
    output: Annotated[
        Path, typer.Argument(metavar="FILE", help="Append to this file; it is made if not there.")
    ],
    kubeconfig: _Kubeconfig = None,
    context: _Context = "",
    max_mib: Annotated[
        int,
        typer.Option(
            "--max-mib",
            min=1,
            help="Begin again, with what there is, when the file is larger.",
        ),
    ] = 1024,
    for_seconds: Annotated[
        float | None,
        typer.Option(
            "--for",
            metavar="SECONDS",
            min=0,
            help="Stop after this time. Default: with Ctrl-C.",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Watch a cluster, and append what happens to a file that --entities takes."""
    access = ClusterAccess(kubeconfig, context)
    try:
        recorder = EntitiesRecorder(output, max_mib * _MIB)
    except OSError as error:
        problem = (error.strerror or str(error)).lower()
        remedy = "name a file that can be written"
        raise EntitiesError(output, problem, remedy) from error
    until_s = time.monotonic() + for_seconds if for_seconds is not None else float("inf")
    with recorder, ClusterWatch(access, recorder.add) as watch, suppress(KeyboardInterrupt):
        is_listed = watch.wait_listed(min(_FIRST_LIST_S, max(until_s - time.monotonic(), 0)))
        if not is_listed:
            warn(f"{access}: not listed yet, it is tried again")
        while time.monotonic() < until_s and recorder.problem is None:
            threading.Event().wait(min(until_s - time.monotonic(), 0.2))
        for problem in watch.warnings:
            warn(problem)
    if recorder.problem is not None:
        problem = (recorder.problem.strerror or str(recorder.problem)).lower()
        raise EntitiesError(output, problem, "make room on the disk, then record again")
    stdout.print(f"{output}: {recorder.events:,} events", highlight=False)


@entities.command()
def check(
    sources: Annotated[
        list[Path] | None,
        typer.Argument(metavar="[[NAME=]PATH]...", help="Files and folders, as --entities takes."),
    ] = None,
    kubernetes: Annotated[
        bool | None,
        typer.Option("--kubernetes", help="List the cluster as well.", show_default=False),
    ] = None,
    kubeconfig: _Kubeconfig = None,
    context: _Context = "",
) -> None:
    """Tell what sources hold: how many of what, from when to when, and what is odd."""
    if not sources and not kubernetes:
        message = "name a file or a folder, or say --kubernetes"
        raise typer.BadParameter(message)
    for source in sources or ():
        dumps = read_dumps([source])
        for cluster, inventory in dumps.inventories.items():
            _show(f"{source}" + (f" ({cluster})" if cluster else ""), inventory)
        for problem in dumps.warnings:
            warn(problem)
    if kubernetes:
        access = ClusterAccess(kubeconfig, context)
        with ClusterWatch(access) as watch:
            if not watch.wait_listed(_FIRST_LIST_S):
                problem = watch.problem or f"no list within {_FIRST_LIST_S} s"
                remedy = "check that it is there, and that the account may list and watch"
                raise EntitiesError(str(access), problem, remedy)
            _show(str(access), watch.inventory())
            for problem in watch.warnings:
                warn(problem)


def _show(source: str, inventory: Inventory) -> None:
    counts = {
        "pods": inventory.pods,
        "Services": inventory.services,
        "EndpointSlices": inventory.slices,
        "nodes": inventory.nodes,
    }
    held = ", ".join(f"{len(found):,} {name}" for name, found in counts.items())
    stdout.print(f"{source}: {held}", highlight=False)
    created = [
        one.newest.created_ns for one in inventory.histories if one.newest.created_ns is not None
    ]
    seen = [span.last.at_ns for one in inventory.histories for span in one.spans]
    if created:
        first, last = _time(min(created)), _time(max(*created, *seen))
        stdout.print(f"  from {first} to {last}", highlight=False)
    gone = sum(one.gone is not None for one in inventory.histories)
    over = sum(one.newest.is_over for one in inventory.pods)
    stdout.print(f"  {gone:,} are gone, {over:,} pods have ended", highlight=False)
    for name in ("pods", "Services"):
        if not counts[name]:
            warn(f"{source}: no {name}, so no address has a name")
    bare = sum(not one.newest.ip_addresses for one in inventory.pods)
    if bare:
        stdout.print(f"  {bare:,} pods without an address", highlight=False)


def _time(time_ns: int) -> str:
    return datetime.fromtimestamp(time_ns // _NS_PER_S, UTC).isoformat()
