"""What a server takes before it has read its spool is counted once, by an engine of later."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from comparison import differences, read_views
from faulty_disk import FaultyDisk
from recording import DEADLINE_S, collect, recorded, wait_until
from serving import BOOKINFO, Serving

from framewalk.engine import Plan, Store, read_entities, replay

DUMP = BOOKINFO / "kubectl.yaml"


@pytest.fixture(scope="session")
def plan(few_plan: Plan) -> Plan:
    return few_plan


def test_streams_sent_while_the_spool_is_read_are_counted_once(tmp_path: Path, plan: Plan) -> None:
    streams = recorded(BOOKINFO)[:6]
    with FaultyDisk(tmp_path / "disk") as disk:
        first = Serving(tmp_path, "--entities", DUMP, FRAMEWALK_SQL="-")
        try:
            collect(first.address, streams[0])
        finally:
            assert first.stop() == 0
        disk.hang()
        server = Serving(tmp_path, "--entities", DUMP, FRAMEWALK_SQL="-", **disk.environment)
        try:
            with ThreadPoolExecutor() as senders:
                sent = [senders.submit(collect, server.address, one) for one in streams]
                assert not any(one.done() for one in sent)
                disk.heal()
                assert [one.result(DEADLINE_S) for one in sent] == [b""] * len(streams)
            total = sum(map(len, streams))
            wait_until(server.has_stored_all, DEADLINE_S)
        finally:
            assert server.stop() == 0
    with Store(server.store, plan) as store, Store(":memory:", plan) as other:
        ((stored,),) = store.query(
            "SELECT sum(count) FROM internal.counters WHERE kind = 'messages'"
        ).fetchall()
        assert stored == total
        replay([server.spool], read_entities(DUMP), other)
        assert differences(read_views(store), read_views(other)) == []
