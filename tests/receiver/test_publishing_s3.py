"""`framewalk serve --publish s3://...`: storage that refuses, hangs and breaks answers off."""

from __future__ import annotations

from pathlib import Path

import pytest
from comparison import differences, read_views
from followers import FollowerProcess
from object_storage import Fault, object_storage
from recording import Messages, collect, recorded, wait_until
from serving import Serving, part_of_bookinfo

from framewalk.engine import Plan, Store, read_entities, replay
from framewalk.engine.archive import Archive, ArchiveOptions, Mode
from framewalk.engine.captures import captures_in
from framewalk.engine.oal import make_plan
from framewalk.engine.remaking import relate
from framewalk.engine.sharing import Follower, SharedTable

PART = part_of_bookinfo()
DUMP = PART / "kubectl.yaml"
URI = "s3://shared/some/table"
CALLS = "SELECT * FROM endpoint_calls_minute ORDER BY ALL"
LOGS = "SELECT * EXCLUDE (request) FROM http_logs ORDER BY ALL"
FAULTS = [one for one in Fault if one is not Fault.NONE]


def send(server: Serving, streams: list[Messages]) -> None:
    for stream in streams:
        collect(server.address, stream)


def test_whatever_storage_does_each_commit_is_published_once(
    tmp_path: Path, few_plan: Plan, monkeypatch: pytest.MonkeyPatch
) -> None:
    streams = recorded(PART)
    with object_storage() as storage:
        for name, value in storage.environment.items():
            monkeypatch.setenv(name, value)
        environment = {"FRAMEWALK_SQL": "-", "FRAMEWALK_PUBLISH_INTERVAL_SECONDS": "0.1"}
        options = ("--entities", DUMP, "--publish", URI)
        with Serving(tmp_path, *options, **environment, **storage.environment) as server:
            storage.go_through(FAULTS, lambda number: send(server, streams[number :: len(FAULTS)]))
            server.wait_until_stored(sum(map(len, streams)))
            wait_until(lambda: server.metrics()["framewalk_publish_pending_commits"] == 0)
            # It does not keep an engine from its end, either.
            faults, storage.fault = storage.faults, Fault.HANG
            wait_until(lambda: storage.faults > faults)
            assert server.stop() == 0
            storage.mend()
        table = SharedTable(URI)
        assert table.open()
        with Store(":memory:", table.plan()) as store, Store(":memory:", few_plan) as whole:
            for _ in Follower(store, table).follow(0):
                pass
            replay(captures_in(PART), read_entities(DUMP), whole)
            assert differences(read_views(store), read_views(whole)) == []


def test_whatever_storage_does_logs_are_published_and_archived_once(
    tmp_path: Path, few_plan: Plan, monkeypatch: pytest.MonkeyPatch
) -> None:
    streams = recorded(PART)
    with object_storage() as storage:
        storage.part = "logs"
        for name, value in storage.environment.items():
            monkeypatch.setenv(name, value)
        environment = {
            "FRAMEWALK_SQL": "-",
            "FRAMEWALK_PUBLISH_INTERVAL_SECONDS": "0.1",
            "FRAMEWALK_ARCHIVE_MODE": "http",
            "FRAMEWALK_ARCHIVE_DIRECTORY": str(tmp_path / "logs"),
            "FRAMEWALK_PUBLISH_LOGS": "true",
        }
        options = ("--entities", DUMP, "--publish", URI)
        with Serving(tmp_path, *options, **environment) as server:
            storage.go_through(FAULTS, lambda number: send(server, streams[number :: len(FAULTS)]))
            server.wait_until_stored(sum(map(len, streams)))
            wait_until(lambda: server.metrics()["framewalk_publish_pending_commits"] == 0)
            assert server.stop() == 0
        folder = str(tmp_path / "follower-logs")
        storage.fault = Fault.FORBIDDEN
        with FollowerProcess(
            tmp_path, "follower", URI, FRAMEWALK_ARCHIVE_DIRECTORY=folder
        ) as follower:
            # None of the logs can be read before the last fault is over; nothing is written here.
            storage.go_through(FAULTS[:-1], lambda _: None)
            with (
                Store(":memory:", few_plan) as whole,
                Archive(whole, tmp_path / "one", ArchiveOptions(Mode.HTTP)) as archive,
            ):
                replay(captures_in(PART), read_entities(DUMP), whole, archive=archive)
                relate(whole, archive)
                calls, wanted = whole.query(CALLS).fetchall(), read_views(whole)
                logs = whole.query(LOGS).fetchall()
            wait_until(lambda: follower.ask(CALLS) == calls)
            assert follower.stop() == 0
    with Store(follower.store, make_plan(())) as store:
        assert differences(read_views(store), wanted) == []
        assert store.query(CALLS).fetchall() == calls
        assert len(logs) > 1
        assert store.query(LOGS).fetchall() == logs
