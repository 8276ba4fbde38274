"""What several tests need."""

from __future__ import annotations

import fcntl
import json
import os
import signal
import time
from collections.abc import Generator, Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from framewalk.engine.oal.files.definitions import load_plan
from framewalk.engine.oal.plan import Plan
from framewalk.engine.store.store import Store

# No test fails because a machine is slow.
settings.register_profile("patient", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("patient")

TESTS = Path(__file__).parent
CAPTURES = TESTS.parent / "fixtures" / "captures"
FEW = TESTS / "few.oal"


def helpers() -> Iterator[str]:
    """Yield the names of all modules and packages that tests import from this folder."""
    for path in TESTS.rglob("*.py"):
        if path.name == "__init__.py":
            yield path.parent.name
        elif not path.name.startswith("test_") and path != Path(__file__):
            yield path.stem


# What takes longest, the longest first.
LONGEST = (
    "test_serve.py",
    "test_benchmarks.py",
    "test_quarantine.py",
    "test_relating.py",
    "test_record.py",
    "test_compact.py",
    "test_serve_full_disk.py",
    "test_second_engine.py",
    "test_operator.py",
    "test_archive.py",
    "test_page.py",
    "test_replay_once.py",
    "test_connections.py",
    "test_order.py",
)
# What a test leaves running is ended with the tests: CI waits for it otherwise.
RUN = "TESTS_RUN"

# Their asserts tell what they compared, as those of tests do. It has to come before any import.
pytest.register_assert_rewrite(*helpers())

import processes  # noqa: E402
import server_logs  # noqa: E402


def pytest_configure(config: pytest.Config) -> None:
    """Have failures printed as they come; with several processes, by the one that has them all.

    It is also the one that ends, at the end, what tests have left running.
    """
    if not hasattr(config, "workerinput"):
        config.pluginmanager.register(_Failures(config))
        os.environ[RUN] = f"{os.getpid()} {time.time_ns()}"


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the files that take longest, so that all processes end at the same time.

    The others come by their names, not by their folders: tests of servers wait much of the time,
    those of stores compute all the time, and beside each other they leave no processor idle.
    """
    place = {name: number for number, name in enumerate(LONGEST)}
    items.sort(key=lambda item: (place.get(item.path.name, len(LONGEST)), item.path.name))


@pytest.hookimpl(trylast=True)
def pytest_unconfigure(config: pytest.Config) -> None:
    """End what tests have left running."""
    if not hasattr(config, "workerinput"):
        for process in processes.started_with(f"{RUN}={os.environ.get(RUN)}"):
            with suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)


class _Failures:
    """Prints each failure at once: a run that is cut off has told what it knew."""

    def __init__(self, config: pytest.Config) -> None:
        self._config = config

    @pytest.hookimpl(trylast=True)
    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        terminal = self._config.pluginmanager.get_plugin("terminalreporter")
        if not report.failed or terminal is None:
            return
        terminal.ensure_newline()
        terminal.section(f"{report.nodeid} ({report.when})", sep="-", red=True)
        terminal.write_line(report.longreprtext)
        for title, text in report.sections:
            terminal.section(title, sep="-")
            terminal.write_line(text)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    call: pytest.CallInfo[None],
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Show what servers logged where a test fails."""
    report = yield
    if report.failed:
        report.sections += server_logs.sections()
    if call.when == "teardown":
        server_logs.forget_ended()
    return report


@pytest.fixture(scope="session")
def plan() -> Plan:
    """All shipped definitions."""
    return load_plan()


@pytest.fixture(scope="session")
def empty_store(plan: Plan, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty store of all shipped definitions, to be copied: to make one takes a second."""
    path = tmp_path_factory.mktemp("empty") / "empty.duckdb"
    Store(path, plan).close()
    return path


@pytest.fixture(scope="session")
def golden_store(plan: Plan, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store of what an OAP was fed whose answers are in golden/, not to be written.

    It is made once for all processes that run tests; beside it is what was counted, as JSON.
    """
    # Here, as a folder of tests may have this file and none of its helpers.
    from golden_stores import make_golden_store  # noqa: PLC0415

    base = tmp_path_factory.getbasetemp()
    shared = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    path = shared / "golden.duckdb"
    with (shared / "golden.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not path.exists():
            made = shared / "golden.made.duckdb"
            counted = make_golden_store(made, plan)
            path.with_suffix(".json").write_text(json.dumps(counted))
            made.rename(path)
    return path


@pytest.fixture(scope="session")
def few_plan() -> Plan:
    """One shipped definition of each function in each scope: a store of them is soon made."""
    return load_plan(FEW)


@pytest.fixture(params=["bookinfo", "boutique"], scope="session")
def scenario(request: pytest.FixtureRequest) -> Path:
    """The folder of each committed capture with its dump."""
    return CAPTURES / request.param
