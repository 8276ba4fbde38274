"""`framewalk generate`: make a capture to try things with."""

from __future__ import annotations

from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Final

import typer

from framewalk.cli.console import second_progress, stdout
from framewalk.engine.capture import CAPTURE_SUFFIX
from framewalk.fixtures import SCENARIOS, GenerateOptions
from framewalk.fixtures import generate as generate_capture

# Those in which every time of a capture and its cluster fits into 64-bit nanoseconds.
_YEARS: Final = range(1972, 2261)

# A type made of what the generator knows; mypy only follows members written out.
Scenario = StrEnum("Scenario", {name.upper(): name for name in SCENARIOS})  # type: ignore[misc]


def _check_start(start: datetime | None) -> datetime | None:
    if start is not None and start.year not in _YEARS:
        problem = f"the year must be from {_YEARS[0]} to {_YEARS[-1]}"
        raise typer.BadParameter(problem)
    return start


def generate(
    scenario: Annotated[
        Scenario,
        typer.Argument(
            help="The cluster: bookinfo (six services, MySQL, an ingress gateway) or boutique "
            "(eleven services, Redis).",
            show_default=False,
        ),
    ],
    output: Annotated[
        Path,
        typer.Option("--output", "-o", metavar="DIR", file_okay=False, help="Where the files go."),
    ] = Path(),
    seed: Annotated[int, typer.Option(help="The same options give the same capture.")] = 1,
    duration: Annotated[
        int, typer.Option(min=1, metavar="SECONDS", help="The length of the capture.")
    ] = 180,
    rate: Annotated[
        float,
        typer.Option(
            min=0.01,
            max=100_000,
            metavar="REQUESTS",
            help="Requests per second that enter the cluster; each causes several calls inside.",
        ),
    ] = 20.0,
    pods: Annotated[
        int, typer.Option(min=1, max=100, help="Pods per deployment that can have several.")
    ] = 2,
    start: Annotated[
        datetime | None,
        typer.Option(
            callback=_check_start,
            help="When the capture begins, in UTC. Default: 2026-11-02T09:00:00.",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Make a realistic capture of a small cluster, with the Kubernetes dump that goes with it.

    Writes DIR/SCENARIO.capture.arrows and DIR/kubectl.yaml.
    """
    options = GenerateOptions(
        scenario=scenario.value,
        seed=seed,
        duration_s=duration,
        requests_per_second=rate,
        replicas=pods,
        start=start.replace(tzinfo=UTC) if start else GenerateOptions.start,
    )
    output.mkdir(parents=True, exist_ok=True)
    capture, dump = output / f"{scenario.value}{CAPTURE_SUFFIX}", output / "kubectl.yaml"
    with second_progress() as progress:
        task = progress.add_task(capture.name, total=duration)
        summary = generate_capture(
            options, capture, dump, lambda done_s: progress.update(task, completed=done_s)
        )
    stdout.print(
        f"{capture}: {summary.messages:,} messages with {summary.logs:,} logs in "
        f"{summary.streams:,} streams, {summary.size_bytes:,} bytes\n"
        f"{dump}: its cluster\n"
        f"next: framewalk replay {capture} --entities {dump} --store metrics.duckdb",
        highlight=False,
    )
