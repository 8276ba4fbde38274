"""What several tests need."""

from __future__ import annotations

from collections.abc import Generator, Iterator
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


# Their asserts tell what they compared, as those of tests do. It has to come before any import.
pytest.register_assert_rewrite(*helpers())

import server_logs  # noqa: E402


def pytest_configure(config: pytest.Config) -> None:
    """Have failures printed as they come; with several processes, by the one that has them all."""
    if not hasattr(config, "workerinput"):
        config.pluginmanager.register(_Failures(config))


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
def few_plan() -> Plan:
    """One shipped definition of each function in each scope: a store of them is soon made."""
    return load_plan(FEW)


@pytest.fixture(params=["bookinfo", "boutique"], scope="session")
def scenario(request: pytest.FixtureRequest) -> Path:
    """The folder of each committed capture with its dump."""
    return CAPTURES / request.param
