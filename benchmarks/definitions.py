"""What definitions cost: the CPU time of a replay with all 426 against 40 basic ones.

Both run in turn, as `framewalk replay` in processes of their own; the ratio of each pair and
their median are printed. The answer comes first: what both define must be equal.

    python benchmarks/definitions.py --seconds 300 --pairs 5

Ends with 1 where the ratio is above what is accepted.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
from pathlib import Path

from frame.contest import Process, text_answer
from rich.console import Console
from rich.progress import track
from rich.table import Table

from framewalk.engine import load_plan, open_for_reading
from framewalk.fixtures import GenerateOptions, generate

BASIC_COUNT = 40
LARGEST_RATIO = 1.5


def basic_definitions() -> list[tuple[str, str]]:
    """Return name and text of the first definitions of a service: traffic and its timings."""
    metrics = [metric for metric in load_plan().metrics if metric.scope.name == "K8SService"]
    return [(metric.name, str(metric.definition)) for metric in metrics[:BASIC_COUNT]]


def replay_cpu_s(capture: Path, store: Path, *options: str) -> float:
    """Replay into a new store; return user and system CPU seconds of the process."""
    store.unlink(missing_ok=True)
    program = Path(sys.executable).with_name("framewalk")
    entities = capture.with_name("kubectl.yaml")
    paths: list[str | Path] = [capture, "--entities", entities, "--store", store]
    command = [program, "replay", *paths, "--workers", "1", *options]
    return Process("replay", 1, command, text_answer).run().cpu_s


def assert_equal_answers(one: Path, other: Path, names: list[str]) -> None:
    """Compare what both stores define, and that there is something to compare."""
    columns = ", ".join(names)
    rows = []
    for path in (one, other):
        with open_for_reading(path) as store:
            query = f"SELECT time_bucket, service, {columns} FROM service_minute ORDER BY ALL"  # noqa: S608 - metric names
            rows.append(store.sql(query).fetchall())
    assert rows[0] == rows[1]
    assert len(rows[0]) > 10


def main() -> int:
    """Measure, print each pair, and tell whether the definitions cost too much."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seconds", type=int, default=300, help="length of the capture")
    parser.add_argument("--rate", type=float, default=100, help="requests per second")
    parser.add_argument("--pairs", type=int, default=5, help="how often both run")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        pairs, logs = measure(Path(name), arguments)
    ratio = print_table(pairs, logs)
    return int(ratio > LARGEST_RATIO)


def measure(folder: Path, arguments: argparse.Namespace) -> tuple[list[tuple[float, float]], int]:
    """Make the capture and run the pairs; return their CPU seconds, and the number of logs."""
    capture = folder / "boutique.capture.arrows"
    options = GenerateOptions(
        "boutique", duration_s=arguments.seconds, requests_per_second=arguments.rate
    )
    made = generate(options, capture, folder / "kubectl.yaml")
    basic = basic_definitions()
    oal = folder / "basic.oal"
    oal.write_text("\n".join(text for _, text in basic), encoding="utf-8")
    every, few = folder / "every.duckdb", folder / "few.duckdb"
    pairs = []
    for _ in track(range(arguments.pairs), "replaying", transient=True):
        all_s = replay_cpu_s(capture, every)
        basic_s = replay_cpu_s(capture, few, "--oal", str(oal))
        assert_equal_answers(every, few, [name for name, _ in basic])
        pairs.append((all_s, basic_s))
    return pairs, made.logs


def print_table(pairs: list[tuple[float, float]], logs: int) -> float:
    """Print each pair; return the median of the ratios."""
    table = Table("426 definitions, CPU s", "40 definitions, CPU s", "ratio")
    for all_s, basic_s in pairs:
        table.add_row(f"{all_s:.2f}", f"{basic_s:.2f}", f"{all_s / basic_s:.2f}")
    ratio = statistics.median(all_s / basic_s for all_s, basic_s in pairs)
    Console().print(table)
    print(f"{logs:,} logs; median ratio {ratio:.2f}, allowed {LARGEST_RATIO}")
    return ratio


if __name__ == "__main__":
    sys.exit(main())
