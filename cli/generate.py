"""`framewalk generate`: make a capture to try things with."""

from __future__ import annotations

from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Final

import typer

from framewalk.cli.console import second_progress, stdout
from framewalk.engine.captures import CAPTURE_SUFFIX
from framewalk.engine.errors import InputError
from framewalk.fixtures import SCENARIOS, GenerateOptions
from framewalk.fixtures import generate as generate_capture

# Those in which every time of a capture and its cluster fits into 64-bit nanoseconds.
_YEARS: Final = range(1972, 2261)

# A type made of what the generator knows; mypy only follows members written out.
Scenario = StrEnum("Scenario", {name.upper(): name for name in SCENARIOS})  # type: ignore[misc]


def _as_utc(start: datetime | None) -> datetime | None:
    if start is None:
        return None
    if start.year in _YEARS:
        start = start.astimezone(UTC) if start.tzinfo else start.replace(tzinfo=UTC)
    if start.year not in _YEARS:
        problem = f"the year must be from {_YEARS[0]} to {_YEARS[-1]}, in UTC"
        raise typer.BadParameter(problem)
    return start


def _check_free(*paths: Path) -> None:
    """Refuse to overwrite: a dump of another cluster would be taken for that of its capture."""
    for path in paths:
        if path.exists():
            remedy = "name another folder (--output), or overwrite it with --force"
            raise InputError(path, "this file is there already", remedy)


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
            callback=_as_utc,
            help="When the capture begins, in UTC unless it ends in an offset such as +02:00. "
            "Default: 2026-11-02T09:00:00.",
            show_default=False,
        ),
    ] = None,
    clock_offset: Annotated[
        float,
        typer.Option(
            min=0, max=60, metavar="SECONDS", help="How far apart the clocks of nodes are."
        ),
    ] = 0.0,
    traced: Annotated[
        float,
        typer.Option(
            min=0, max=100, metavar="PERCENT", help="Requests that enter with trace headers."
        ),
    ] = 35.0,
    one_request: Annotated[
        float,
        typer.Option(
            min=0,
            max=100,
            metavar="PERCENT",
            help="Calls that have a connection of their own; the others share theirs.",
        ),
    ] = 2.5,
    lost: Annotated[
        float, typer.Option(min=0, max=100, metavar="PERCENT", help="HTTP logs that are missing.")
    ] = 0.0,
    *,
    truth: Annotated[
        bool,
        typer.Option(
            "--truth",
            help="Write DIR/SCENARIO.calls.parquet, too: each call, its two logs, and the call "
            "that it was made for.",
        ),
    ] = False,
    force: Annotated[bool, typer.Option("--force", help="Overwrite files that are there.")] = False,
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
        start=start or GenerateOptions.start,
        clock_offset_s=clock_offset,
        traced_permille=round(traced * 10),
        one_request_permille=round(one_request * 10),
        lost_permille=round(lost * 10),
    )
    capture, dump = output / f"{scenario.value}{CAPTURE_SUFFIX}", output / "kubectl.yaml"
    calls = output / f"{scenario.value}.calls.parquet"
    if not force:
        _check_free(dump, capture, *([calls] if truth else []))
    output.mkdir(parents=True, exist_ok=True)
    with second_progress() as progress:
        task = progress.add_task(capture.name, total=duration)
        summary = generate_capture(
            options,
            capture,
            dump,
            lambda done_s: progress.update(task, completed=done_s),
            calls if truth else None,
        )
    stdout.print(
        f"{capture}: {summary.messages:,} messages with {summary.logs:,} logs in "
        f"{summary.streams:,} streams, {summary.size_bytes:,} bytes\n"
        f"{dump}: its cluster\n"
        f"next: framewalk replay {capture} --entities {dump} --store metrics.duckdb",
        highlight=False,
    )
