"""Lengths that overflow in a parser cost their message, not the process that reads it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from itertools import chain
from pathlib import Path

import pytest
from batches import Row, as_batch
from comparison import assert_same
from conftest import CAPTURES
from google.protobuf import text_format
from hypothesis import given, settings
from hypothesis import strategies as st
from prepared import framewalk
from wire_bytes import OVERFLOWING_LENGTHS, varint, with_overflowing_lengths

from framewalk.engine import CaptureWriter, Counters, Entities, partial
from framewalk.engine.oal.plan import Plan
from framewalk.engine.wire.access_log_pb2 import EBPFAccessLogMessage

EVERY_FIELD = Path(__file__).parent / "spec" / "message.txtpb"


@pytest.fixture(scope="session")
def plan(few_plan: Plan) -> Plan:
    return few_plan


@pytest.fixture(scope="module")
def good() -> EBPFAccessLogMessage:
    return text_format.Parse(EVERY_FIELD.read_text(), EBPFAccessLogMessage())


@pytest.fixture(scope="module")
def bad(good: EBPFAccessLogMessage) -> list[bytes]:
    return list(with_overflowing_lengths(good.SerializeToString(), good.DESCRIPTOR))


def test_each_costs_its_message_and_nothing_is_written_about_it(
    tmp_path: Path, good: EBPFAccessLogMessage, bad: list[bytes]
) -> None:
    smallest = [b"\x0a" + varint(length) for length in OVERFLOWING_LENGTHS]
    messages = [*chain.from_iterable((good.SerializeToString(), one) for one in bad), *smallest]
    capture = tmp_path / "lengths.capture.arrows"
    count = len(messages)
    with CaptureWriter(capture) as writer:
        writer.write_messages([1] * count, range(count), [10**18] * count, messages)
    dump = CAPTURES / "bookinfo" / "kubectl.yaml"
    store = tmp_path / "store.duckdb"
    done = framewalk("replay", capture, "--entities", dump, "--store", store)
    assert (done.returncode, done.stderr) == (0, "")
    told = dict(line.split("\t") for line in done.stdout.splitlines())
    assert told["messages"].strip() == f"{count:,}"
    assert told["bad input: undecodable message"].strip() == f"{len(bad) + len(smallest):,}"
    assert len(bad) > 500


@settings(max_examples=20)
@given(data=st.data())
def test_the_messages_around_them_count_as_if_they_were_alone(
    plan: Plan, good: EBPFAccessLogMessage, bad: list[bytes], data: st.DataObject
) -> None:
    kept = good.SerializeToString()
    messages = data.draw(st.lists(st.one_of(st.just(kept), st.sampled_from(bad)), max_size=8))
    found = partial([as_batch(rows(messages))], Entities.empty(), plan)
    others = [kept] * messages.count(kept)
    want = partial([as_batch(rows(others))], Entities.empty(), plan)
    undecodable = len(messages) - len(others)
    skipped = Counters(undecodable, quality=Counter(undecodable_message=undecodable))
    assert_same(plan, found, replace(want, counters=want.counters + skipped))


@pytest.mark.parametrize("value", [-1, -10, -11, -128, -129, -(2**63)])
def test_a_value_that_looks_like_one_counts(plan: Plan, value: int) -> None:
    """-1 is written as 2^64 - 1 is."""
    message = EBPFAccessLogMessage()
    message.kernelLogs.add().write.l4Metrics.totalTransmitPackageCount = value
    found = partial([as_batch(rows([message.SerializeToString()]))], Entities.empty(), plan)
    assert found.counters.logs == 1
    assert +found.counters.quality == {"value_out_of_range": 1}


def rows(messages: Sequence[bytes]) -> list[Row]:
    return [(1, seq, 10**18, message) for seq, message in enumerate(messages)]
