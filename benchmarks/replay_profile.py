"""Where the CPU time of a whole replay goes, by stage.

    python benchmarks/replay_profile.py CAPTURE --entities DUMP

Replays into a new store in this process and takes its CPU time, user and system of all threads, as
each stage begins and ends. What a stage calls of another counts for the other alone.
"""

from __future__ import annotations

import argparse
import inspect
import sys
import tempfile
import time
from collections import defaultdict
from contextlib import contextmanager, redirect_stdout
from functools import wraps
from importlib import import_module
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from frame.table import rich_table, seconds
from rich.console import Console

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

IMPORTS: Final = "imports"
REST: Final = "reading, counting, the rest"
# Functions of the engine by the stage they are; a method has its class before it.
STAGES: Final = {
    "load_plan": "definitions",
    "Store.__init__": "a new store",
    "decode": "decode",
    "follow_streams": "follow streams",
    "flatten": "flatten",
    "resolve": "resolve",
    "log_states": "phase 1 (log_states)",
    "roll_up_in_parts": "phase 2 (roll-up)",
    "Store.commit_many": "store commit",
    "Store.close": "store commit",
}


class Clock:
    """CPU seconds by stage."""

    def __init__(self) -> None:
        self.spent_s: defaultdict[str, float] = defaultdict(float)
        self._running = [REST]
        self._since_s = 0.0

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Count for a stage what is done meanwhile."""
        self._turn()
        self._running.append(name)
        try:
            yield
        finally:
            self._turn()
            self._running.pop()

    def _turn(self) -> None:
        now_s = time.process_time()
        self.spent_s[self._running[-1]] += now_s - self._since_s
        self._since_s = now_s

    def timed(self, work: Callable[..., Any], name: str) -> Callable[..., Any]:
        """Return the same function, or generator function, with its time taken."""

        @wraps(work)
        def call(*arguments: Any, **options: Any) -> Any:  # noqa: ANN401 - any stage's
            with self.stage(name):
                return work(*arguments, **options)

        @wraps(work)
        def iterate(*arguments: Any, **options: Any) -> Any:  # noqa: ANN401 - as above
            items = work(*arguments, **options)
            while True:
                with self.stage(name):
                    item = next(items, None)
                if item is None:
                    return
                yield item

        return iterate if inspect.isgeneratorfunction(work) else call


def main() -> int:
    """Replay, and print a line for each stage."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("capture", type=Path)
    parser.add_argument("--entities", type=Path, required=True, help="the Kubernetes dump")
    arguments = parser.parse_args()
    clock = Clock()
    with clock.stage(IMPORTS):
        import_module("framewalk.cli.replay")
        command: Callable[[], None] = import_module("framewalk.cli").main
    _take_times(clock)
    with tempfile.TemporaryDirectory() as folder, redirect_stdout(StringIO()), clock.stage(REST):
        store = Path(folder) / "profiled.duckdb"
        # Of other processes nothing would be seen here.
        options = ["--entities", arguments.entities, "--store", store, "--workers", 1]
        sys.argv[1:] = map(str, ["replay", arguments.capture, *options])
        _run(command)
    total_s = sum(clock.spent_s.values())
    names = [IMPORTS, *dict.fromkeys(STAGES.values()), REST]
    lines = [
        (name, seconds(clock.spent_s[name]), f"{clock.spent_s[name] / total_s:.0%}")
        for name in names
    ]
    Console().print(
        rich_table(("stage", "CPU", "share"), [*lines, ("together", seconds(total_s), "100%")])
    )
    return 0


def _run(command: Callable[[], None]) -> None:
    try:
        command()
        code: str | int | None = 0
    except SystemExit as ended:
        code = ended.code
    assert not code, f"the replay ended with {code}"


def _take_times(clock: Clock) -> None:
    """Put the clock around the stages, wherever the engine knows them by name."""
    modules = [module for name, module in sys.modules.items() if name.startswith("framewalk.")]
    for path, stage in STAGES.items():
        owner, _, name = path.rpartition(".")
        holders = {vars(module).get(owner) if owner else module for module in modules}
        found = [
            holder for holder in holders if holder is not None and callable(vars(holder).get(name))
        ]
        assert found, f"the engine has no {path}"
        for holder in found:
            setattr(holder, name, clock.timed(getattr(holder, name), stage))


if __name__ == "__main__":
    sys.exit(main())
