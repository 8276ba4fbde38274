"""What a follower needs that starts with nothing, or was away, on a table of a day.

    python benchmarks/following.py --services 1000 --minutes 12
    python benchmarks/following.py --services 1000 --minutes 1440 --at-once 60 --view service
    python benchmarks/following.py --services 1000 --minutes 1440 --commands
    python benchmarks/following.py --services 1000 --minutes 1440 --once

The first takes all scopes, the second a day of services alone, in the files that a table has which
is tidied once an hour. Engines have published them (large/shared.py) to a table on this machine's
disk. Told are CPU and elapsed seconds and the most memory of followers,
each in a process of its own that does what `framewalk query-server --follow` does; with --commands
they are such commands, and one is stopped (SIGSTOP), and one ended, for a quarter of the minutes
each; with --once it is one command that starts with nothing on all of it. Exits with 1 if one takes
more than 1 GiB.
"""

from __future__ import annotations

import argparse
import multiprocessing
import signal
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final

from frame.memory_peak import peak_bytes
from large.followed import FollowerProcess
from large.shared import Day, kinds_of

from framewalk.engine import Store, load_plan
from framewalk.engine.oal import make_plan
from framewalk.engine.sharing import SharedTable
from framewalk.server.following import Following, FollowOptions, Kept

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from large.followed import Reached

_MOST_BYTES: Final = 2**30
_BYTES_PER_MIB: Final = 2**20
_EVERY_S: Final = 5
_KEPT: Final = Kept(ttl_days=(7, 7, 7), budget_bytes=2**40)
_SECONDS_PER_MINUTE: Final = 60
_ROWS: Final = "SELECT sum(estimated_size) FROM duckdb_tables() WHERE table_name LIKE '%_states'"


@dataclass(frozen=True, slots=True)
class Done:
    """What a process has done: `rows` that are there then, and what it took."""

    rows: int
    cpu_s: float
    elapsed_s: float
    peak_bytes: int


def follow(uri: str, path: Path) -> Done:
    """Bring a store to where a table is by now."""
    cpu_s, elapsed_s = time.process_time(), time.monotonic()
    options = FollowOptions(uri, _EVERY_S, tidy_every_s=0, table_days=8)
    with Following(options, _KEPT, path) as following:
        store = following.open(time.time(), time.monotonic())
        if store is None:
            raise FileNotFoundError(uri)
        while following.step(time.time(), time.monotonic()) < _EVERY_S:
            pass
        ((rows,),) = store.run(_ROWS)
        return _done(int(rows), cpu_s, elapsed_s)


def tidy(uri: str, _path: Path) -> Done:
    """Merge the small files of a table, as one of the followers does."""
    cpu_s, elapsed_s = time.process_time(), time.monotonic()
    table = SharedTable(uri)
    table.open()
    table.tidy(None)
    return _done(0, cpu_s, elapsed_s)


def compact(_uri: str, path: Path) -> Done:
    """Make hours and days of what a follower has, as it does every five minutes."""
    cpu_s, elapsed_s = time.process_time(), time.monotonic()
    with Store(path, make_plan(())) as store:
        store.limit_memory()
        store.compact()
        ((rows,),) = store.run(_ROWS)
        return _done(int(rows), cpu_s, elapsed_s)


def _done(rows: int, cpu_s: float, elapsed_s: float) -> Done:
    spent_s = time.process_time() - cpu_s, time.monotonic() - elapsed_s
    return Done(rows, *spent_s, peak_bytes())


def _alone(work: Callable[[str, Path], Done], uri: str, path: Path) -> Done:
    """Do work in a process of its own, whose memory is its own, too."""
    spawned = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=spawned) as process:
        return process.submit(work, uri, path).result()


def main() -> int:
    """Measure, and print."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--services", type=int, default=1_000)
    parser.add_argument("--minutes", type=int, default=1_440)
    parser.add_argument("--engines", type=int, default=1)
    parser.add_argument(
        "--at-once", type=int, default=1, help="minutes of an engine in one commit of the table"
    )
    parser.add_argument("--view", default="", help="of one scope alone, such as service")
    parser.add_argument(
        "--commands", action="store_true", help="framewalk query-server --follow, stopped and ended"
    )
    parser.add_argument(
        "--once", action="store_true", help="framewalk query-server --follow, begun with nothing"
    )
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        commands = _measure_commands if options.commands else _measure
        measure = _measure_once if options.once else commands
        return 0 if measure(options, Path(name)) else 1


def _measure_commands(options: argparse.Namespace, folder: Path) -> bool:
    """Have a follower begin with a half, and miss a quarter stopped and another ended."""
    table, day = _begun(options, folder)
    half, most = options.minutes // 2, options.minutes * 3 // 4
    path, largest = folder / "followed.duckdb", 0

    def tell(name: str, one: Reached) -> None:
        nonlocal largest
        largest = max(largest, one.peak_bytes)
        print(_line(name, Done(one.rows, one.cpu_s, one.elapsed_s, one.peak_bytes)), flush=True)

    rows = day.write(table, range(half), options.at_once)
    with FollowerProcess(table.uri, path) as follower:
        tell("starts with nothing, on half of it", follower.reach(table.version))
        follower.signal(signal.SIGSTOP)
        rows += day.write(table, range(half, most), options.at_once)
        go_on = partial(follower.signal, signal.SIGCONT)
        tell("was stopped for a quarter", follower.reach(table.version, go_on))
        follower.end()
    rows += day.write(table, range(most, options.minutes), options.at_once)
    with FollowerProcess(table.uri, path) as follower:
        tell("was ended for a quarter", follower.reach(table.version))
        follower.end()
    _print_size(table, rows)
    with FollowerProcess(table.uri, folder / "new.duckdb") as follower:
        tell("starts with nothing", follower.reach(table.version))
        follower.end()
    stores = [_rows_of(path), _rows_of(folder / "new.duckdb")]
    if stores[0] != stores[1]:
        print(f"they have {stores[0]:,} and {stores[1]:,} minutes of entities")
    return stores[0] == stores[1] and largest <= _MOST_BYTES


def _measure_once(options: argparse.Namespace, folder: Path) -> bool:
    """Have a follower begin with all of it."""
    table, day = _begun(options, folder)
    rows = day.write(table, range(options.minutes), options.at_once)
    _print_size(table, rows)
    path = folder / "followed.duckdb"
    with FollowerProcess(table.uri, path) as follower:
        one = follower.reach(table.version)
        follower.end()
    done = Done(one.rows, one.cpu_s, one.elapsed_s, one.peak_bytes)
    print(_line("starts with nothing", done), flush=True)
    return one.peak_bytes <= _MOST_BYTES


def _begun(options: argparse.Namespace, folder: Path) -> tuple[SharedTable, Day]:
    """Make an empty table, and what is to be in it."""
    table = SharedTable(str(folder / "table"))
    table.create(load_plan())
    first_minute = int(time.time() // _SECONDS_PER_MINUTE) - options.minutes
    kinds = kinds_of(table, folder, options.services, options.view)
    return table, Day(kinds, options.engines, first_minute)


def _rows_of(path: Path) -> int:
    with Store(path, make_plan(())) as store:
        views = [f"{scope.scope.view}_minute" for scope in store.plan.scopes]
        counts = [store.query(f"SELECT count(*) FROM {one}").fetchall() for one in views]  # noqa: S608
        return sum(int(count) for ((count,),) in counts)


def _print_size(table: SharedTable, rows: int) -> None:
    size_bytes = sum(one.size_bytes for one in table.files())
    print(f"{rows:,} rows, {len(table.files()):,} files, {size_bytes / _BYTES_PER_MIB:,.0f} MiB")


def _measure(options: argparse.Namespace, folder: Path) -> bool:
    table, day = _begun(options, folder)
    half = options.minutes // 2
    done: list[tuple[str, Done]] = []

    def measure(name: str, work: Callable[[str, Path], Done], path: Path) -> None:
        done.append((name, _alone(work, table.uri, path)))
        print(_line(*done[-1]), flush=True)

    rows = day.write(table, range(half), options.at_once)
    measure("starts with nothing, on half of it", follow, folder / "away.duckdb")
    rows += day.write(table, range(half, options.minutes), options.at_once)
    _print_size(table, rows)
    measure("was away for the other half", follow, folder / "away.duckdb")
    measure("starts with nothing", follow, folder / "new.duckdb")
    measure("makes hours and days of it", compact, folder / "new.duckdb")
    measure("tidies the table", tidy, folder)
    table.open()
    size_bytes = sum(one.size_bytes for one in table.files())
    print(f"{len(table.files()):,} files, {size_bytes / _BYTES_PER_MIB:,.0f} MiB")
    measure("starts with nothing, tidied", follow, folder / "tidied.duckdb")
    return _is_right(done, rows - options.minutes * options.engines)


def _is_right(done: Sequence[tuple[str, Done]], rows: int) -> bool:
    """Say what is wrong: a follower that does not have all rows, or has too much memory."""
    followed = [(name, one) for name, one in done[1:] if one.rows]
    short = [name for name, one in followed if "hours" not in name and one.rows != rows]
    large = [name for name, one in done if one.peak_bytes > _MOST_BYTES]
    for name in short:
        print(f"{name}: it does not have all {rows:,} rows")
    for name in large:
        print(f"{name}: more than 1 GiB")
    return not short and not large


def _line(name: str, one: Done) -> str:
    rate = f"{one.cpu_s * 1e6 / one.rows:6.1f} us a row" if one.rows else ""
    return (
        f"{name:36}{one.rows:12,} rows {one.cpu_s:8.1f} s CPU {one.elapsed_s:8.1f} s elapsed"
        f" {one.peak_bytes / _BYTES_PER_MIB:8,.0f} MiB {rate}"
    )


if __name__ == "__main__":
    sys.exit(main())
