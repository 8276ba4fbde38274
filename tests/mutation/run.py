"""Changes 100 places of four rooms, one at a time, and lists the changes that no test noticed.

python tests/mutation/run.py --seed 11

Tests are named per room: all of a room's would take days. The table keeps the reasons that
somebody wrote into it, as long as the change survives.
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from checkout import ROOT, Checkout, NotTriedError, Outcome, Run
from mutants import Mutant, mutants_of
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

TABLE = Path(__file__).with_name("survivors.md")
VALUES = "tests/test_values.py::test_committed_captures_have_the_reference_values"
HOSTILE = "tests/test_values.py::test_hostile_captures_have_the_reference_values"
ORDER = "tests/test_order.py::test"
LONG_TESTS_OF_COMPACT = (
    "killed_while_it_compacts",
    "more_rows_than_are_worked_on_at_once",
    "readers_neither_stop_compaction_nor_notice_it",
    "a_steady_load_does_not_make_the_file_grow",
)
# The tests of each room, those first that notice most in little time.
ROOMS: dict[str, tuple[str, ...]] = {
    "engine/stages": (
        f"{VALUES}[bookinfo-minute]",
        "tests/test_values.py::test_entities_have_the_component_ids_of_their_connections",
        "tests/test_streams.py",
        f"{ORDER}_the_ends_of_time_resolve_the_same_alone_and_among_others",
        f"{ORDER}_no_message_of_a_long_batch_is_left_out",
        f"{ORDER}_what_is_worked_on_at_once_is_bounded_by_messages_too",
        HOSTILE,
    ),
    "engine/states": (
        f"{ORDER}_a_sum_is_exact_within_the_range_and_stops_at_its_ends",
        f"{ORDER}_a_sum_by_label_stops_at_the_end_of_the_range_however_it_was_committed",
        f"{VALUES}[bookinfo-hour]",
        "tests/test_compact.py::test_sums_that_stop_at_the_end_of_the_range",
        f"{ORDER}_captures_merge_in_any_grouping_and_order",
        HOSTILE,
    ),
    "engine/store": (
        "tests/test_values.py::test_identifiers_are_made_of_names_alone[bookinfo]",
        "tests/test_store_definitions.py",
        f"{VALUES}[bookinfo-hour]",
        "tests/test_compact.py",
        *(f"--deselect=tests/test_compact.py::test_{name}" for name in LONG_TESTS_OF_COMPACT),
        "tests/test_bad_input.py::test_bad_store",
        "tests/test_bad_input.py::test_store_that_cannot_be_made",
    ),
    "receiver/spool": ("tests/receiver/test_spool.py",),
}
# A mutant is in a loop when its tests take this many times as long as without it.
PATIENCE = 8
SHORTEST_LIMIT_S = 60
MINUTE_S = 60
Results = Mapping[Mutant, Run]
# A file and a change in it: lines move.
Place = tuple[str, str]
HEAD = """\
# Mutants that survived

Made by `make mutants` (tests/mutation/run.py, seed {seed}, {count} mutants): a change of one place,
then the tests that are named for its room. What stands here no test noticed. The reasons are
written by hand, and kept by the next run.

| room | mutants | tried | killed | by the time limit | survived |
|---|---|---|---|---|---|
"""


def room_of(mutant: Mutant) -> str:
    return mutant.path.rpartition("/")[0]


def all_mutants(room: str) -> list[Mutant]:
    # A door has no behaviour of its own.
    modules = sorted(path for path in (ROOT / room).glob("*.py") if path.stem != "__init__")
    return [
        mutant
        for path in modules
        for mutant in mutants_of(path.relative_to(ROOT).as_posix(), path.read_bytes())
    ]


def sample(mutants: Mapping[str, Sequence[Mutant]], count: int, seed: int) -> list[Mutant]:
    """Choose mutants of each room in proportion to how many it has, in a random order."""
    draws = random.Random(seed)  # noqa: S311 - reproducible
    total = sum(map(len, mutants.values()))
    exact = {room: count * len(of_room) / total for room, of_room in mutants.items()}
    shares = Counter({room: int(share) for room, share in exact.items()})
    most_cut = sorted(exact, key=lambda room: exact[room] % 1, reverse=True)
    shares.update(most_cut[: count - shares.total()])
    chosen = [
        one for room, of_room in mutants.items() for one in draws.sample(of_room, shares[room])
    ]
    draws.shuffle(chosen)
    return chosen


def limits(checkout: Checkout, rooms: Iterable[str], console: Console) -> dict[str, float]:
    """Run the rooms' tests without a mutant, and return how long they may take with one."""
    found = {}
    for room in rooms:
        run = checkout.run(None, ROOMS[room], limit_s=600)
        if run.outcome is not Outcome.SURVIVED:
            sys.exit(f"{room}: its tests fail without a mutant\n{run.output}")
        console.print(f"{room}: {run.duration_s:.0f} s without a mutant")
        found[room] = max(SHORTEST_LIMIT_S, PATIENCE * run.duration_s)
    return found


def tried(
    folder: Path, mutants: Sequence[Mutant], longest_s: float, console: Console
) -> Iterator[tuple[Mutant, Run]]:
    """Run the tests against one mutant after the other, until the time is up."""
    end_s = time.monotonic() + longest_s
    checkout = Checkout(folder)
    limits_s = limits(checkout, set(map(room_of, mutants)), console)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, TimeElapsedColumn(), console=console) as progress:
        for mutant in progress.track(mutants, description="mutants"):
            room, rest_s = room_of(mutant), end_s - time.monotonic()
            if rest_s <= 0:
                return
            try:
                run = checkout.run(mutant, ROOMS[room], min(limits_s[room], rest_s))
            except NotTriedError as error:
                console.print(f"not tried: {mutant}\n{error}", markup=False)
                continue
            if run.outcome is Outcome.TIMEOUT and rest_s < limits_s[room]:
                return
            console.print(f"{run.outcome} in {run.duration_s:.0f} s: {mutant}", markup=False)
            yield mutant, run


def reasons() -> dict[Place, str]:
    """Return why mutants survived, as somebody wrote it into the table."""
    if not TABLE.exists():
        return {}
    rows = [line.strip("|").split(" | ") for line in TABLE.read_text().splitlines()]
    return {
        (cells[0].strip().split(":")[0], cells[1]): cells[2].strip()
        for cells in rows
        if len(cells) == 3
    }


def escaped(change: str) -> str:
    return change.replace("|", "\\|")


def table_of(mutants: Sequence[Mutant], results: Results, known: Mapping[Place, str]) -> str:
    lines = []
    for room in ROOMS:
        outcomes = Counter(run.outcome for one, run in results.items() if room_of(one) == room)
        of_room = sum(room_of(mutant) == room for mutant in mutants)
        counts = [of_room, outcomes.total(), *(outcomes[outcome] for outcome in Outcome)]
        lines.append(f"| {room} | " + " | ".join(map(str, counts)) + " |")
    lines += ["", "| place | change | why |", "|---|---|---|"]
    survivors = [one for one, run in results.items() if run.outcome is Outcome.SURVIVED]
    for one in sorted(survivors, key=lambda mutant: (mutant.path, mutant.line, mutant.change)):
        change = escaped(one.change)
        why = known.get((one.path, change), "")
        lines.append(f"| {one.path}:{one.line} | {change} | {why} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seed", type=int, default=11, help="which mutants are chosen")
    parser.add_argument("--count", type=int, default=100, help="how many are chosen")
    parser.add_argument("--minutes", type=float, default=90, help="when to stop in any case")
    parser.add_argument("--only", default="", help="try those whose place or change has this text")
    options = parser.parse_args()
    console = Console(soft_wrap=True)
    mutants = {room: all_mutants(room) for room in ROOMS}
    chosen = [
        one for one in sample(mutants, options.count, options.seed) if options.only in str(one)
    ]
    console.print(f"{len(chosen)} of {sum(map(len, mutants.values()))} mutants")
    results: dict[Mutant, Run] = {}
    known, head = reasons(), HEAD.format(seed=options.seed, count=len(chosen))
    with tempfile.TemporaryDirectory(prefix="framewalk-mutants-") as folder:
        for mutant, run in tried(Path(folder), chosen, options.minutes * MINUTE_S, console):
            results[mutant] = run
            if not options.only:
                table = table_of(chosen, results, known)
                TABLE.write_text(head + table, encoding="utf-8")
    console.print(f"{len(chosen) - len(results)} were not tried; the survivors: {TABLE}")


if __name__ == "__main__":
    main()
