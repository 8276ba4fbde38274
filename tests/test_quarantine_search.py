"""The search for a message that ends processes, and what is set aside: without processes."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest
from batches import as_batch
from conftest import CAPTURES
from hypothesis import given
from hypothesis import strategies as st

from framewalk.engine import CaptureReader, InputError
from framewalk.engine.captures.format import CaptureBatch, CapturePosition
from framewalk.engine.runs.quarantine import (
    Place,
    Quarantine,
    SetAside,
    Verdict,
    alone,
    search,
    without,
)
from framewalk.engine.runs.reading import Reading
from framewalk.engine.wire.access_log_pb2 import EBPFAccessLogMessage

BOOKINFO = CAPTURES / "bookinfo" / "bookinfo.capture.arrows"


class Machine:
    """Processes that die of some messages, of everything for a while, or of too many together."""

    def __init__(self, deadly: set[int], most: int = 10**9, bad_luck: int = 0) -> None:
        self.deadly = deadly
        self.most = most
        self.bad_luck = bad_luck
        self.attempts = 0

    def lives_first(self, count: int) -> bool:
        return self._lives(range(count))

    def lives_alone(self, number: int) -> bool:
        return self._lives(range(number, number + 1))

    def _lives(self, numbers: range) -> bool:
        self.attempts += 1
        if self.bad_luck:
            self.bad_luck -= 1
            return False
        return len(numbers) <= self.most and not any(one in numbers for one in self.deadly)


def found_by(machine: Machine, count: int, known: Reading) -> tuple[Verdict, Reading]:
    return search(known, count, machine.lives_first, machine.lives_alone, lambda _: None)


@given(
    st.integers(1, 5_000).flatmap(lambda n: st.tuples(st.just(n), st.sets(st.integers(0, n - 1))))
)
def test_the_first_deadly_message_is_found_in_few_attempts(drawn: tuple[int, set[int]]) -> None:
    count, deadly = drawn
    machine = Machine(deadly)
    verdict, reading = found_by(machine, count, Reading())
    if deadly:
        assert verdict is Verdict.DEADLY
        assert reading.dies - 1 == min(deadly)
    else:
        assert verdict is Verdict.HARMLESS
    assert machine.attempts <= 1 + count.bit_length() + 6


@given(st.integers(2, 500), st.data())
def test_a_search_that_died_goes_on_where_it_was(count: int, data: st.DataObject) -> None:
    deadly = data.draw(st.integers(0, count - 1))
    written: list[Reading] = []
    machine = Machine({deadly})
    search(Reading(), count, machine.lives_first, machine.lives_alone, written.append)
    for known in written:
        assert known.lives <= deadly < known.dies
        verdict, reading = found_by(Machine({deadly}), count, known)
        assert (verdict, reading.dies - 1) == (Verdict.DEADLY, deadly)


@given(st.integers(2, 2_000), st.data())
def test_too_many_together_are_nobodys_fault(count: int, data: st.DataObject) -> None:
    most = data.draw(st.integers(1, count - 1))
    verdict, _ = found_by(Machine(set(), most=most), count, Reading())
    assert verdict is Verdict.TOGETHER


@given(st.integers(1, 2_000), st.integers(1, 200))
def test_deaths_of_another_cause_set_nothing_aside(count: int, bad_luck: int) -> None:
    verdict, _ = found_by(Machine(set(), bad_luck=bad_luck), count, Reading())
    assert verdict is not Verdict.DEADLY


@pytest.fixture
def batch() -> CaptureBatch:
    messages = as_batch(
        [(stream, seq, 10**18, b"%d" % seq) for stream in (1, 2) for seq in range(3)]
    )
    return CaptureBatch(messages, CapturePosition(4_096, 6, "digest"))


def test_what_is_set_aside_is_left_out_by_whoever_looks_next(
    batch: CaptureBatch, tmp_path: Path
) -> None:
    folder, segment = tmp_path / "quarantine", Path("00000000000000000001.capture.arrows")
    (tmp_path / segment).touch()
    place = Place(segment.name, 4_096, 4)
    found, gone = Quarantine(folder).add(place, batch, "exit code 1")
    assert (found, gone) == (SetAside(place, 2, 1, 1, "exit code 1"), [])
    again = Quarantine(folder)
    assert again.entries == (found,)
    assert again.rows_of(segment, batch) == [4]
    assert again.rows_of(Path("another"), batch) == []
    left = without(batch.messages, again.rows_of(segment, batch))
    assert left["message"].to_pylist() == [b"0", b"1", b"2", b"0", b"2"]


def test_the_oldest_go_and_are_still_left_out(batch: CaptureBatch, tmp_path: Path) -> None:
    (tmp_path / "2").touch()
    quarantine = Quarantine(tmp_path / "quarantine", most_bytes=3_000)
    gone = [
        name
        for row in range(6)
        for name in quarantine.add(Place("2" if row else "1", 4_096, row), batch, "")[1]
    ]
    kept = sorted(path.name for path in quarantine.folder.glob("*.arrows"))
    assert gone
    assert kept == sorted({one.capture for one in quarantine.entries} - set(gone))
    # That of a segment which is gone with its capture is of no more use.
    assert [one.place.row for one in quarantine.entries] == [1, 2, 3, 4, 5]


def test_an_index_that_is_none_is_told(tmp_path: Path) -> None:
    (tmp_path / "set-aside.json").write_text("{}")
    with pytest.raises(InputError, match="no index of messages that were set aside; move it away"):
        Quarantine(tmp_path)


def test_alone_a_message_has_what_its_stream_said_before() -> None:
    with CaptureReader(BOOKINFO) as reader:
        messages = pa.Table.from_batches([one.messages for one in reader]).combine_chunks()
    rows = messages.to_batches()[0]
    streams = rows["stream"].to_pylist()
    row = next(at for at in range(2_000, len(streams)) if streams[:at].count(streams[at]) > 3)
    one = alone(rows, row)
    *context, last = map(EBPFAccessLogMessage.FromString, one["message"].to_pylist())
    assert set(one["stream"].to_pylist()) == {streams[row]}
    assert last.SerializeToString() == rows["message"][row].as_py()
    assert context[0].HasField("node")
    assert not any(said.kernelLogs or said.HasField("protocolLog") for said in context)
    assert any(said.HasField("connection") for said in context)
