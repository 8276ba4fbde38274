"""Start-up: what is paid before the first log, beside importing the libraries alone."""

from __future__ import annotations

import sys
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Final

import duckdb
from frame.captures import capture_of
from frame.contest import Answer, Benchmark, Call, Contest, Process, Rival, text_answer
from frame.hours import copy_empty_store, views_answer

from framewalk.engine import Store, load_plan
from framewalk.fixtures import GenerateOptions

if TYPE_CHECKING:
    from collections.abc import Sequence

    from frame.contest import Context

    from framewalk.engine import Plan

PROGRAM: Final = Path(sys.executable).with_name("framewalk")
NEARLY_EMPTY: Final = GenerateOptions("bookinfo", duration_s=2, requests_per_second=1)
COMMANDS: Final = (
    "serve",
    "replay",
    "sql",
    "status",
    "snapshot",
    "record",
    "send",
    "quarantine",
    "config",
    "oal",
)
_IMPORT: Final = "import polars, pyarrow, duckdb; print('imported')"
_COMPILE: Final = "from framewalk.engine import load_plan; print(len(load_plan().metrics))"


def benchmark(context: Context) -> Benchmark:
    """Start the commands, open stores, compile the definitions."""
    plan = load_plan()
    return Benchmark(
        [
            _command("--version", [version("framewalk")], "starting Python and importing typer."),
            _command("--help", COMMANDS, "imports, and rich drawing the page."),
            _nearly_empty_replay(context),
            _new_process("compile definitions, new process", _COMPILE),
            _compile(plan),
            _new_store(context, plan),
            _open_store(context, plan),
        ]
    )


def _imports() -> Rival:
    command = [sys.executable, "-c", _IMPORT]
    runner = Process("import polars, pyarrow, duckdb", 1, command, text_answer)
    return Rival(runner, same_answer=False)


def _command(option: str, told: Sequence[str], limited_by: str) -> Contest:
    name = f"framewalk {option}"

    def answer(output: str) -> Answer:
        assert set(told) <= set(output.split()), output
        return text_answer(name)

    work = Process(name, 1, [PROGRAM, option], answer)
    return Contest(name, "starts", work, limited_by, [_imports()])


def _new_process(name: str, program: str) -> Contest:
    work = Process(name, 1, [sys.executable, "-c", program], lambda text: text_answer(text.strip()))
    limited_by = "building lark's parser from the grammar, beside the imports."
    return Contest(name, "starts", work, limited_by, [_imports()])


def _nearly_empty_replay(context: Context) -> Contest:
    capture = capture_of(NEARLY_EMPTY)
    store = context.folder / "nearly_empty.duckdb"
    paths: list[str | Path] = [capture.path, "--entities", capture.dump_path, "--store", store]

    def answer(output: str) -> Answer:
        logs = f"logs\t{capture.summary.logs:,}"
        assert logs in output.splitlines(), output
        return views_answer(store)

    def remove() -> None:
        store.unlink(missing_ok=True)

    work = Process("replay", 1, [PROGRAM, "replay", *paths], answer, remove)
    limited_by = "making the store, which is more than half of it, and imports."
    return Contest("replay of a nearly empty capture", "starts", work, limited_by, [_imports()])


def _compile(plan: Plan) -> Contest:
    names = [metric.name for metric in plan.metrics]
    work = Call(
        "load_plan",
        len(names),
        load_plan,
        lambda made: text_answer(*(metric.name for metric in made.metrics)),
    )
    limited_by = "lark's LALR parser, which runs in Python a token at a time."
    return Contest("compile definitions, again", "definitions", work, limited_by)


def _new_store(context: Context, plan: Plan) -> Contest:
    path = context.folder / "new.duckdb"

    def make() -> None:
        Store(path, plan).close()

    def answer(_result: None) -> Answer:
        with duckdb.connect(str(path), read_only=True) as connection:
            return text_answer(*_views(connection))

    def remove() -> None:
        path.unlink(missing_ok=True)

    work = Call("new store", 1, make, answer, remove)
    limited_by = (
        "DuckDB binding 18 views with 447 metrics at three resolutions, and all of them once more "
        "for metric_values."
    )
    return Contest("make a store", "stores", work, limited_by)


def _open_store(context: Context, plan: Plan) -> Contest:
    path = context.folder / "opened.duckdb"
    copy_empty_store(context, plan, path)

    def open_store() -> list[str]:
        with Store(path, plan) as store:
            return [name for (name,) in store.query("SELECT name FROM metrics").fetchall()]

    def open_file() -> list[str]:
        with duckdb.connect(str(path)) as connection:
            return [name for (name,) in connection.sql("SELECT name FROM metrics").fetchall()]

    work = Call("Store", 1, open_store, lambda names: text_answer(*names))
    bare = Call("duckdb.connect", 1, open_file, lambda names: text_answer(*names))
    limited_by = "comparing 447 stored definitions with those at hand, and DuckDB's own opening."
    return Contest("open a store", "stores", work, limited_by, [Rival(bare)])


def _views(connection: duckdb.DuckDBPyConnection) -> list[str]:
    rows = connection.execute(
        "SELECT view_name FROM duckdb_views() WHERE NOT internal ORDER BY ALL"
    ).fetchall()
    return [name for (name,) in rows]
