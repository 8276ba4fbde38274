"""What an archive costs: bytes a log, by kind and by column, and CPU time, beside none.

    python benchmarks/archive_costs.py --seconds 540 --rounds 3 --json archive.json

Of a generated bookinfo capture; `none` archives nothing. Modes run in turn, and medians are told
with what they are of:

- replays, in commits of half a million logs and in small ones whose files are merged at the end;
- the parts of a live engine by a clock of their own: a commit every five seconds, files merged and
  relations made every minute; each kind of step by itself, so that it is told what merging takes;
- a server fed by a sender: CPU time of its engine process alone.

Ends with 1 where a log takes more bytes than it may, or `http` more CPU time.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from collections import defaultdict
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

# As the engine of a server; before Polars is loaded.
os.environ.setdefault("POLARS_MAX_THREADS", "1")

import pyarrow.parquet as pq
from frame.server import running
from live import boutique_load, load_server
from live_steps import Steps, count_steps, engine_options, see_to

from framewalk.engine import CaptureReader, Store, load_plan, read_entities
from framewalk.engine import replay as replay_captures
from framewalk.engine.archive import KINDS, Archive, ArchiveOptions, Mode
from framewalk.engine.runs import SpoolFollower
from framewalk.fixtures import GenerateOptions, generate
from framewalk.receiver.spool import Fsync, Spool, SpoolOptions
from framewalk.server.engine import ArchiveSettings, Naming, Upkeep

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from framewalk.engine import Plan

# Those of a server, of which a replay has no `off`.
MODES: Final = ("none", "off", "http", "all")
# What a log may take, and how much more CPU time `http` may take than `none`.
MOST_BYTES: Final = {"http": 65, "connection": 16, "transfer": 27}
_LARGE, _SMALL = "a replay", "a replay in small commits, merged"
_COMMITS, _MERGING = "a live engine, commits alone", "a live engine, with merging"
_RELATIONS, _SERVED = "a live engine, and relations", "a server, before any merging"
MOST_CPU: Final = {_LARGE: 1.25, _SMALL: 1.40, _COMMITS: 1.25, _MERGING: 1.40, _SERVED: 1.25}
_LARGE_COMMIT: Final = 500_000
# About what five seconds bring to a server.
_SMALL_COMMIT: Final = 10_000
_LOOK_S: Final = 5
_NS: Final = 10**9
_MILLION: Final = 10**6
_COLUMNS_SHOWN: Final = 12


@dataclass(frozen=True, slots=True)
class Made:
    """What is archived: a capture, with its dump, and its streams by the time they have come."""

    capture: Path
    dump: Path
    logs: int


@dataclass(frozen=True, slots=True)
class Kind:
    """What the files of a kind of logs take: rows, and compressed bytes by column."""

    rows: int
    columns: Mapping[str, int]
    all_bytes: int

    @property
    def bytes_a_row(self) -> float:
        """The share of a row in all that the files are."""
        return self.all_bytes / max(self.rows, 1)


def make(folder: Path, seconds: int, rate: float) -> Made:
    """Make the capture."""
    capture, dump = folder / "bookinfo.capture.arrows", folder / "kubectl.yaml"
    options = GenerateOptions("bookinfo", duration_s=seconds, requests_per_second=rate)
    return Made(capture, dump, generate(options, capture, dump).logs)


def replayed(made: Made, plan: Plan, folder: Path, mode: str, commit_logs: int) -> float:
    """Replay into a new store; returns CPU seconds, with merging and without relations."""
    entities = read_entities(made.dump)
    with ExitStack() as stack:
        store = stack.enter_context(Store(folder / "metrics.duckdb", plan))
        archive = None
        if mode != "none":
            options = ArchiveOptions(Mode(mode))
            archive = stack.enter_context(Archive(store, folder / "logs", options))
        began_s = time.process_time()
        replay_captures([made.capture], entities, store, commit_logs=commit_logs, archive=archive)
        while archive is not None and archive.compact(0):
            pass
        return time.process_time() - began_s


def sizes(folder: Path) -> dict[str, Kind]:
    """Return what the files of an archive take."""
    found = {}
    for kind in KINDS:
        rows = all_bytes = 0
        columns: defaultdict[str, int] = defaultdict(int)
        for path in (folder / kind).rglob("*.parquet"):
            told = pq.read_metadata(path)
            rows += told.num_rows
            all_bytes += path.stat().st_size
            for group in range(told.num_row_groups):
                for number in range(told.num_columns):
                    column = told.row_group(group).column(number)
                    columns[column.path_in_schema] += column.total_compressed_size
        if rows:
            found[kind] = Kind(rows, columns, all_bytes)
    return found


def clocked(made: Made, plan: Plan, folder: Path, mode: str) -> Steps:
    """Drive the parts of a live engine over the capture, by its own clock."""
    streams = sorted(_streams(made.capture))
    begin_s = streams[0][0] / _NS
    options = engine_options(folder, made.dump)
    options.spool_folder.mkdir()
    if mode != "none":
        options = replace(options, archive=_settings(folder, mode))
    spool = Spool(SpoolOptions(options.spool_folder, segment_bytes=2**24, fsync=Fsync.NEVER))
    steps = Steps()
    with ExitStack() as stack:
        store = stack.enter_context(Store(options.store_path, plan))
        naming = stack.enter_context(Naming(options, store, begin_s))
        follower = stack.enter_context(SpoolFollower(options.spool_folder, store, 0.0, ""))
        follower.holding.wait_s = options.name_wait_s
        if options.archive is not None:
            settings = options.archive
            kept = ArchiveOptions(Mode(settings.mode), is_passing=settings.is_passing)
            follower.archive = stack.enter_context(Archive(store, settings.folder, kept))
        upkeep = Upkeep(options, store, follower, begin_s, 0.0)
        count_steps(upkeep, store, steps)
        at, elapsed_s = 0, 0.0
        # Until what waits for a name has been counted, too.
        while at < len(streams) or elapsed_s * _NS < streams[-1][0] - begin_s * _NS + 20 * _NS:
            elapsed_s += _LOOK_S
            while at < len(streams) and streams[at][0] <= (begin_s + elapsed_s) * _NS:
                _, messages, times = streams[at]
                spool.append(messages, times).result()
                at += 1
            see_to(steps, (naming, follower, upkeep), begin_s + elapsed_s, elapsed_s)
        spool.close()
    assert steps.logs == made.logs, (steps.logs, made.logs)
    return steps


def _streams(capture: Path) -> Iterator[tuple[int, list[bytes], list[int]]]:
    """Yield streams: when the last message came, the messages, and when each came (ns)."""
    found: dict[int, tuple[list[bytes], list[int]]] = {}
    with CaptureReader(capture) as reader:
        for batch in reader:
            columns = (batch.messages[name] for name in ("stream", "message"))
            times = batch.messages["received_at"].cast("int64").to_pylist()
            numbers, messages = (column.to_pylist() for column in columns)
            for number, message, time_ns in zip(numbers, messages, times, strict=True):
                own = found.setdefault(number, ([], []))
                own[0].append(message)
                own[1].append(time_ns)
    for messages, own_times in found.values():
        yield max(own_times), messages, own_times


def _settings(folder: Path, mode: str) -> ArchiveSettings:
    texts = ("hosts", "paths", "traces")
    is_passing = mode == "off"
    kept = "http" if is_passing else mode
    return ArchiveSettings(kept, folder / "logs", 3, 10 * 2**30, texts, is_passing=is_passing)


def served(mode: str, rate: float, seconds: float) -> float:
    """Send to a server at a rate; returns CPU seconds of its engine for a million logs."""
    load = boutique_load()
    environment = {"FRAMEWALK_SQL": "-", "FRAMEWALK_ARCHIVE_MODE": mode}
    with tempfile.TemporaryDirectory() as name:
        dump = Path(name) / load.dump_name
        dump.write_text(load.dump_text)
        with running(dump, environment) as server:
            live = load_server(server, load.stream, rate, seconds)
    return live.engine_cpu_s / live.logs * _MILLION


class Table:
    """Figures of modes, by what was measured; each round adds one to each."""

    def __init__(self) -> None:
        self.rows: dict[str, dict[str, list[float]]] = {}

    def add(self, what: str, mode: str, cpu_s: float) -> None:
        """Add CPU seconds for a million logs."""
        self.rows.setdefault(what, {}).setdefault(mode, []).append(cpu_s)
        # A run takes long: what is cut off has told what it knew.
        print(f"{what}, {mode}: {cpu_s:.2f} s (load {os.getloadavg()[0]:.0f})", flush=True)

    def more(self, what: str, mode: str) -> float:
        """Return how many times the median of `none` that of a mode is."""
        own = self.rows[what]
        return statistics.median(own[mode]) / statistics.median(own["none"])

    def print(self) -> None:
        """Print a line for each row and mode."""
        for what, modes in self.rows.items():
            for mode, found in modes.items():
                every = ", ".join(f"{one:.2f}" for one in found)
                median = statistics.median(found)
                beside = f"{self.more(what, mode) - 1:+5.0%}" if "none" in modes else ""
                print(f"{what:34} {mode:5} {median:6.2f} s {beside:6} ({every})")


def measure(options: argparse.Namespace) -> tuple[dict[str, Kind], Table]:
    """Measure all of it, in rounds in which modes follow each other."""
    table, kinds, plan = Table(), {}, load_plan()
    with tempfile.TemporaryDirectory() as name:
        made = make(Path(name), options.seconds, options.rate)
        print(f"{made.logs:,} logs of {options.seconds} s; load {os.getloadavg()[0]:.0f}")
        for _ in range(options.rounds):
            for mode in MODES:
                kinds |= _round(made, plan, mode, table)
        for _ in range(options.served_rounds):
            for mode in MODES:
                cpu_s = served(mode, options.served_rate, options.served_seconds)
                table.add(_SERVED, mode, cpu_s)
        print(f"load {os.getloadavg()[0]:.0f} at the end")
    return kinds, table


def _round(made: Made, plan: Plan, mode: str, table: Table) -> dict[str, Kind]:
    kinds: dict[str, Kind] = {}
    millions = made.logs / _MILLION
    replays = [] if mode == "off" else [(_LARGE, _LARGE_COMMIT), (_SMALL, _SMALL_COMMIT)]
    for what, commit_logs in replays:
        with tempfile.TemporaryDirectory() as name:
            table.add(what, mode, replayed(made, plan, Path(name), mode, commit_logs) / millions)
            if mode != "none":
                kinds |= sizes(Path(name) / "logs")
    with tempfile.TemporaryDirectory() as name:
        steps = clocked(made, plan, Path(name), mode).each
    commits = sum(steps[one].cpu_s for one in ("look", "names", "names kept"))
    every, relations = commits + steps["upkeep"].cpu_s, steps["  relate"].cpu_s
    table.add(_COMMITS, mode, commits / millions)
    table.add(_MERGING, mode, (every - relations) / millions)
    table.add(_RELATIONS, mode, every / millions)
    return kinds


def main() -> int:
    """Measure, and print what was measured."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seconds", type=int, default=600, help="length of the capture")
    parser.add_argument("--rate", type=float, default=60, help="requests that enter, per second")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--served-rounds", type=int, default=3, help="of a server")
    parser.add_argument("--served-rate", type=float, default=5_000, help="messages per second")
    parser.add_argument("--served-seconds", type=float, default=60)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures here, too")
    options = parser.parse_args()
    kinds, table = measure(options)
    for kind, found in kinds.items():
        most = MOST_BYTES[kind]
        print(f"{kind}: {found.rows:,} rows, {found.bytes_a_row:.1f} bytes each, at most {most}")
        columns = sorted(found.columns.items(), key=lambda one: -one[1])
        for name, size_bytes in columns[:_COLUMNS_SHOWN]:
            print(f"  {name:36} {size_bytes / found.rows:6.2f}")
    print("CPU seconds for a million logs, the median, beside none, and each")
    table.print()
    if options.json is not None:
        told = {
            "cpu_s_per_million_logs": table.rows,
            "bytes_a_row": {
                kind: {name: size / one.rows for name, size in one.columns.items()}
                for kind, one in kinds.items()
            },
        }
        options.json.write_text(json.dumps(told, indent=2))
    return int(any(_missed(kinds, table)))


def _missed(kinds: Mapping[str, Kind], table: Table) -> Iterator[bool]:
    """Yield of each limit whether it is missed, and print it."""
    for kind, found in kinds.items():
        yield found.bytes_a_row > MOST_BYTES[kind]
    for what, most in MOST_CPU.items():
        more = table.more(what, "http") if what in table.rows else 0.0
        if more > most:
            print(f"{what}: http takes {more:.2f} times as much, allowed {most:.2f}")
        yield more > most


if __name__ == "__main__":
    sys.exit(main())
