"""`framewalk serve --publish s3://...`: storage that refuses, hangs and breaks answers off."""

from __future__ import annotations

from pathlib import Path

import pytest
from comparison import differences, read_views
from object_storage import Fault, object_storage
from recording import collect, recorded, wait_until
from serving import Serving, part_of_bookinfo

from framewalk.engine import Plan, Store, read_entities, replay
from framewalk.engine.captures import captures_in
from framewalk.engine.sharing import Follower, SharedTable

PART = part_of_bookinfo()
DUMP = PART / "kubectl.yaml"
URI = "s3://shared/some/table"
FAULTS = [one for one in Fault if one is not Fault.NONE]


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
            for number, fault in enumerate(FAULTS):
                faults = storage.faults
                storage.fault = fault
                for stream in streams[number :: len(FAULTS)]:
                    collect(server.address, stream)
                wait_until(lambda faults=faults: storage.faults > faults)
                storage.mend()
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
