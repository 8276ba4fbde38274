"""Make captures of a large cluster, and stores of hours of it.

    python benchmarks/large_cluster.py capture --services 1000 --minutes 10 --output build/large
    python benchmarks/large_cluster.py store --services 1000 --minutes 60 --output build/hour.duckdb
    python benchmarks/large_cluster.py day build/hour.duckdb
    python benchmarks/large_cluster.py ask build/hour.duckdb
    python benchmarks/large_cluster.py growth --services 100 300 --hours 1

1,000 services are 5,000 pods, 20,000 endpoints, 10,000 pairs of services and 50,000 pairs of pods,
each of which makes a request a minute: 300,000 logs. `capture` writes large.capture.arrows and
kubectl.json. `day` rolls a store up and copies its newest hour to the hours before, as far as the
questions ask for it; `ask` asks a store these questions, and answers as a server does or, with
`--plain`, as DuckDB alone. `growth` makes stores of these sizes, asks them, replays ten minutes of
each size, and adds what it took to a file of JSON, which is drawn; the stores stay in build/growth
(1,000 services and 24 hours: 13 GB). With `--copies` one hour of a store is computed and the others
are copies, and nothing is replayed.
"""

from __future__ import annotations

import argparse
import os
import resource
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

import duckdb
from large.cluster import make_cluster, write_dump
from large.copies import copy_hour
from large.growing import (
    Growth,
    Replayed,
    asked_again,
    draw,
    measure_copied,
    measure_point,
    measure_replay,
    read_growth,
    table_lines,
    write_growth,
)
from large.hours import write_store
from large.minutes import Minutes
from large.questions import QUESTIONS, ask_all

from framewalk.engine.captures import CAPTURE_SUFFIX, CaptureWriter

if TYPE_CHECKING:
    from collections.abc import Callable

    from large.minutes import Minute

# How many minutes are made; later ones are the same again.
VARIANTS: Final = 10
CAPTURE_NAME: Final = f"large{CAPTURE_SUFFIX}"
DUMP_NAME: Final = "kubectl.json"
RESULTS: Final = Path(__file__).parent / "results"
PLOTS: Final = Path(__file__).parents[1] / "docs" / "images" / "large_growth.svg"
STORES: Final = Path(__file__).parents[1] / "build" / "growth"
_REPLAYED_MINUTES: Final = 10
_BLOCK_BYTES: Final = 2**18
# Tables with fewer rows than this take a block of their own or less.
_TABLES: Final = """
    SELECT schema_name, table_name, estimated_size FROM duckdb_tables()
    WHERE estimated_size >= 1000 ORDER BY 1, 2
"""
_BLOCKS: Final = "SELECT count(DISTINCT block_id) FROM pragma_storage_info(?) WHERE persistent"


@dataclass(frozen=True, slots=True)
class Written:
    """What a capture holds."""

    messages: int
    logs: int
    streams: int
    size_bytes: int


def write_capture(folder: Path, services: int, minutes: int, variants: int = VARIANTS) -> Written:
    """Write a capture of so many minutes, and the cluster's dump."""
    folder.mkdir(parents=True, exist_ok=True)
    cluster = make_cluster(services)
    write_dump(cluster, folder / DUMP_NAME)
    made = Minutes(cluster)
    messages = streams = 0
    kept: dict[int, Minute] = {}
    with CaptureWriter(folder / CAPTURE_NAME) as out:
        for minute in range(minutes):
            variant = minute % variants
            one = kept.get(variant) or made.make(variant)
            if minutes > variants:
                kept[variant] = one
            for batch in one.batches(minute):
                out.write(batch)
            messages += one.messages
            streams += one.streams
    size_bytes = (folder / CAPTURE_NAME).stat().st_size
    return Written(messages, minutes * made.logs, streams, size_bytes)


def main() -> int:
    """Do what is asked for."""
    options = _arguments()
    started_s, started_cpu_s = time.perf_counter(), time.process_time()
    make: Callable[[argparse.Namespace], None] = options.make
    make(options)
    elapsed_s, cpu_s = time.perf_counter() - started_s, time.process_time() - started_cpu_s
    print(f"made in {cpu_s:,.1f} CPU s, {elapsed_s:,.1f} s")
    return 0


def _make_capture(options: argparse.Namespace) -> None:
    written = write_capture(options.output, options.services, options.minutes, options.variants)
    print(*(f"{name} {value:,}" for name, value in asdict(written).items()), sep=", ")
    print(f"{options.output / CAPTURE_NAME}, {options.output / DUMP_NAME}")


def _make_store(options: argparse.Namespace) -> None:
    def tell(done: int) -> None:
        size_mb = options.output.stat().st_size / 10**6
        print(f"\r{done:,} minutes, {size_mb:,.0f} MB", end="", file=sys.stderr, flush=True)

    options.output.parent.mkdir(parents=True, exist_ok=True)
    minutes = Minutes(make_cluster(options.services))
    write_store(options.output, minutes, options.minutes, variants=options.variants, tell=tell)
    print(file=sys.stderr)
    print(f"{options.output}: {options.output.stat().st_size:,} bytes")


def _measure_growth(options: argparse.Namespace) -> None:
    """Measure what is not there yet; each figure is written as soon as it is known."""
    growth = read_growth(options.json)
    if options.again:
        growth.points[:] = [asked_again(one, options.stores) for one in growth.points]
        write_growth(growth, options.json)
    known = {(one.services, one.hours) for one in growth.points}
    for services in options.services:
        for hours in options.hours:
            if (services, hours) not in known:
                print(f"{services:,} services, {hours} h", file=sys.stderr)
                measure = measure_copied if options.copies else measure_point
                growth.points.append(measure(services, hours, options.stores))
                write_growth(growth, options.json)
        if not options.copies and services not in {one.services for one in growth.replays}:
            print(f"{services:,} services, a replay", file=sys.stderr)
            growth.replays.append(_replayed(services))
            write_growth(growth, options.json)
    _print_growth(growth)
    draw(growth, options.plots)
    print(f"{options.json}, {options.plots}")


def _replayed(services: int) -> Replayed:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        written = write_capture(folder, services, _REPLAYED_MINUTES)
        return measure_replay(services, folder / CAPTURE_NAME, folder / DUMP_NAME, written.logs)


def _print_growth(growth: Growth) -> None:
    columns = ("services", "hours", "MB", "commit CPU s", "roll-up CPU s", *QUESTIONS)
    print(*columns, sep=" | ")
    for line in table_lines(growth):
        print(*line, sep=" | ")
    for one in growth.replays:
        per_million = one.cpu_s / one.logs * 10**6
        print(
            f"{one.services:,} services, replay: {one.logs:,} logs, {one.cpu_s:.1f} CPU s,"
            f" {per_million:.2f} a million"
        )


def _make_day(options: argparse.Namespace) -> None:
    def tell(done: int) -> None:
        print(f"\r{done} hours", end="", file=sys.stderr, flush=True)

    copy_hour(options.store, options.hours, tell)
    print(f"\n{options.store}: {options.store.stat().st_size:,} bytes")


def _ask(options: argparse.Namespace) -> None:
    """Print what each question takes, and the most memory that the process had by its end."""
    print(f"{'question':<44} {'CPU ms':>8} {'ms':>8} {'rows':>8}")
    for name, one in ask_all(options.store, plain=options.plain).items():
        print(f"{name:<44} {one.cpu_s * 1000:>8,.0f} {one.elapsed_s * 1000:>8,.0f} {one.rows:>8,}")
    used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    print(f"{used / 10**6:,.0f} MB at most; load {os.getloadavg()[0]:.0f}")


def _print_sizes(options: argparse.Namespace) -> None:
    """Print what the tables of a store take, in blocks of the file."""
    with duckdb.connect(str(options.store), read_only=True) as connection:
        tables = connection.sql(_TABLES).fetchall()
        print(f"{'table':<44} {'rows':>12} {'MB':>8} {'bytes a row':>12}")
        for schema, table, rows in tables:
            ((blocks,),) = connection.execute(_BLOCKS, [f"{schema}.{table}"]).fetchall()
            size_bytes = blocks * _BLOCK_BYTES
            per_row = size_bytes / rows
            print(f"{table:<44} {rows:>12,} {size_bytes / 10**6:>8,.1f} {per_row:>12,.0f}")
    print(f"{'the file':<44} {'':>12} {options.store.stat().st_size / 10**6:>8,.1f}")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    capture = commands.add_parser("capture", help="write a capture and the cluster's dump")
    capture.add_argument("--output", type=Path, required=True, metavar="DIR")
    capture.add_argument("--minutes", type=int, default=10)
    capture.set_defaults(make=_make_capture, variants=VARIANTS)
    store = commands.add_parser("store", help="write a store, from states and not from logs")
    store.add_argument("--output", type=Path, required=True, metavar="FILE")
    store.add_argument("--minutes", type=int, default=60)
    store.set_defaults(make=_make_store, variants=4)
    growth = commands.add_parser("growth", help="measure how costs grow, and draw it")
    growth.add_argument("--services", type=int, nargs="+", default=[100, 300, 1_000, 3_000])
    growth.add_argument("--hours", type=int, nargs="+", default=[1])
    growth.add_argument("--json", type=Path, default=RESULTS / "growth.json")
    growth.add_argument("--plots", type=Path, default=PLOTS)
    growth.add_argument("--stores", type=Path, default=STORES, help="where stores are kept")
    growth.add_argument("--again", action="store_true", help="ask the stores that were kept again")
    growth.add_argument(
        "--copies", action="store_true", help="compute an hour of each store, and copy it"
    )
    growth.set_defaults(make=_measure_growth)
    for command in (capture, store):
        command.add_argument("--services", type=int, default=1_000)
        command.add_argument("--variants", type=int, help="how many minutes are computed")
    day = commands.add_parser("day", help="copy the newest hour of a store to hours before it")
    day.add_argument("store", type=Path)
    day.add_argument("--hours", type=int, default=24)
    day.set_defaults(make=_make_day)
    ask = commands.add_parser("ask", help="print what a store takes to answer the questions")
    ask.add_argument("store", type=Path)
    ask.add_argument("--plain", action="store_true", help="by DuckDB alone, and not by a server")
    ask.set_defaults(make=_ask)
    sizes = commands.add_parser("sizes", help="print what the tables of a store take")
    sizes.add_argument("store", type=Path)
    sizes.set_defaults(make=_print_sizes)
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
