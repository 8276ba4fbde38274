"""Logs that are kept for relations between endpoints alone, at times that are passed in."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from capture_parts import in_parts
from test_relating import Rows, rows_of
from test_upkeep import NOW_S, Engine

from framewalk.engine import Entities, Store, read_entities, replay
from framewalk.engine.archive import Archive, ArchiveOptions, Mode
from framewalk.engine.oal.plan import Plan
from framewalk.engine.remaking import relate
from framewalk.fixtures import GenerateOptions, generate
from framewalk.server.engine.link import ArchiveSettings

PASSING = ArchiveOptions(Mode.HTTP, is_passing=True)
MINUTES = 6
FILES = "SELECT count(*) FROM internal.archived"
LOGS = "SELECT count(*) FROM http_logs"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A capture of six minutes up to now."""
    folder = tmp_path_factory.mktemp("made")
    begins = dt.datetime.fromtimestamp(NOW_S - 60 * MINUTES, dt.UTC)
    options = GenerateOptions(
        "bookinfo", duration_s=60 * MINUTES, requests_per_second=1, start=begins
    )
    generate(options, folder / "made.capture.arrows", folder / "dump.yaml")
    return folder


@pytest.fixture(scope="module")
def entities(made: Path) -> Entities:
    return read_entities(made / "dump.yaml")


@pytest.fixture(scope="module")
def parts(made: Path) -> list[Path]:
    """The capture in twelve, each of whole streams of any minutes."""
    return in_parts(made / "made.capture.arrows", 12)


@pytest.fixture(scope="module")
def whole(made: Path, entities: Entities, few_plan: Plan) -> Rows:
    """What is made of all logs at once, where all are kept."""
    with (
        Store(":memory:", few_plan) as store,
        Archive(store, made / "whole", ArchiveOptions(Mode.HTTP)) as archive,
    ):
        replay([made / "made.capture.arrows"], entities, store, archive=archive)
        relate(store, archive)
        store.compact()
        return rows_of(store)


@contextmanager
def opened(engine: Engine, options: ArchiveOptions = PASSING) -> Iterator[Archive]:
    """Have an engine archive as it does after a start."""
    engine.start()
    with Archive(engine.store, engine.folder / "logs", options) as archive:
        engine.follower.archive = archive
        yield archive
        engine.follower.archive = None


@pytest.fixture
def engine(tmp_path: Path, few_plan: Plan, entities: Entities) -> Iterator[Engine]:
    settings = ArchiveSettings("http", tmp_path / "logs", 3, 2**30, ("traces",), is_passing=True)
    one = Engine(tmp_path, few_plan, entities, archive=settings)
    with one.store:
        yield one


def number(engine: Engine, sql: str) -> int:
    ((found,),) = engine.store.query(sql).fetchall()
    return int(found)


def related(engine: Engine) -> Rows:
    """Return all relations, with minutes, hours and days made of what was committed."""
    engine.store.compact()
    return rows_of(engine.store)


def test_relations_are_those_of_logs_that_are_kept(
    engine: Engine, parts: list[Path], whole: Rows, entities: Entities
) -> None:
    """All come an hour late, within ten minutes, and the process is another in between."""
    engine.elapsed_s += 3_600
    for own in (parts[:6], parts[6:]):
        with opened(engine) as archive:
            for paths in (own[:3], own[3:]):
                replay(paths, entities, engine.store, archive=archive)
                for _ in range(5):
                    engine.run_after(30)
                assert archive.changed_minutes() == []
                assert list((engine.folder / "logs").glob("http/*/*"))
            assert number(engine, LOGS) > 0
    with opened(engine):
        for _ in range(10):
            engine.run_after(60)
        assert related(engine) == whole
        for _ in range(20):
            engine.run_after(60)
        assert (number(engine, FILES), number(engine, LOGS)) == (0, 0)
        assert not list((engine.folder / "logs").glob("http/*/*"))
    assert related(engine) == whole


def test_minutes_that_are_not_over_keep_their_logs(
    engine: Engine, made: Path, whole: Rows, entities: Entities
) -> None:
    """By a clock that is half an hour behind."""
    engine.lie_s = -1_800
    with opened(engine) as archive:
        replay([made / "made.capture.arrows"], entities, engine.store, archive=archive)
        for _ in range(20):
            engine.run_after(60)
        assert number(engine, FILES) > 0
        for _ in range(40):
            engine.run_after(60)
        assert number(engine, FILES) == 0
    assert related(engine) == whole


def test_what_is_later_than_the_window_counts_in_metrics_alone(
    engine: Engine, parts: list[Path], entities: Entities
) -> None:
    calls = "SELECT sum(kubernetes_service_connect_cpm) FROM service_minute"
    with opened(engine) as archive:
        replay(parts[1:], entities, engine.store, archive=archive)
        for _ in range(30):
            engine.run_after(60)
        before, counted = related(engine), number(engine, calls)
        assert number(engine, FILES) == 0
        replay(parts[:1], entities, engine.store, archive=archive)
        for _ in range(30):
            engine.run_after(60)
        assert number(engine, FILES) == 0
        assert archive.changed_minutes() == []
        assert number(engine, calls) > counted
        calls_views = [view for view in before if view.startswith("endpoint_calls")]
        assert {view: related(engine)[view] for view in calls_views} == {
            view: before[view] for view in calls_views
        }


def test_logs_that_were_kept_before_stay(
    engine: Engine, parts: list[Path], entities: Entities
) -> None:
    kept_all = ArchiveOptions(Mode.HTTP)
    for options, own in ((kept_all, parts[:3]), (PASSING, parts[3:6]), (kept_all, parts[6:9])):
        with opened(engine, options) as archive:
            kept = number(engine, LOGS)
            replay(own, entities, engine.store, archive=archive)
            came = number(engine, LOGS)
            assert came > kept
            for _ in range(30):
                engine.elapsed_s += 60
                relate(engine.store, archive)
                archive.drop_related(engine.elapsed_s)
            assert number(engine, LOGS) == (kept if options.is_passing else came)
