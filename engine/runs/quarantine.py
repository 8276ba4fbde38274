"""Messages that stop an engine: found among those that were read, and set aside.

A message is set aside only after it has ended three processes alone, each time followed by one that
lived on what was read before it. So a kill at random and a machine out of memory set nothing aside.
What is set aside is in a capture of its own, with what its stream had said before, and an index
names its place, so that an engine leaves it out for as long as its segment is there.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from enum import Enum, auto
from typing import TYPE_CHECKING, Final

import pyarrow as pa
from google.protobuf.message import DecodeError
from pydantic import TypeAdapter

from framewalk.engine.captures import CAPTURE_SUFFIX, CaptureWriter, captures_in
from framewalk.engine.errors import InputError
from framewalk.engine.wire.access_log_pb2 import EBPFAccessLogMessage

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable
    from pathlib import Path

    from framewalk.engine.captures import CaptureBatch
    from framewalk.engine.runs.reading import Reading

# All captures of messages set aside together; the oldest go.
QUARANTINE_BYTES: Final = 64 * 2**20
_INDEX_NAME: Final = "set-aside.json"
SET_ASIDE_REMEDY: Final = (
    "send its capture to whoever maintains framewalk; a later version may read it"
)
_DEATHS: Final = 3


@dataclass(frozen=True, slots=True)
class Place:
    """Where a message is: its capture, the end of its record batch there, its row in that.

    `digest` is that of the batch, by which it is known in a copy, too; empty where an earlier
    version has set it aside.
    """

    segment: str
    end_bytes: int
    row: int
    digest: str = ""

    def is_in(self, path: Path, batch: CaptureBatch) -> bool:
        """Tell whether the message is one of this batch."""
        if self.end_bytes != batch.position.offset_bytes:
            return False
        return self.digest == batch.position.digest if self.digest else self.segment == path.name


@dataclass(frozen=True, slots=True)
class SetAside:
    """A message that is left out: which one of its stream, and what it does."""

    place: Place
    stream: int
    seq: int
    size_bytes: int
    problem: str

    @property
    def capture(self) -> str:
        """The name of the capture that has it."""
        stem = self.place.segment.removesuffix(CAPTURE_SUFFIX)
        return f"{stem}-{self.place.end_bytes}-{self.place.row}{CAPTURE_SUFFIX}"


_INDEX: Final = TypeAdapter(list[SetAside])


class Quarantine:
    """The folder of what is set aside: in that of a spool, or beside a store.

    Raises InputError for an index that is none.
    """

    def __init__(self, folder: Path, most_bytes: int = QUARANTINE_BYTES) -> None:
        self.folder = folder
        self._most_bytes = most_bytes
        self._index = folder / _INDEX_NAME
        self._entries = self._read()

    @property
    def entries(self) -> tuple[SetAside, ...]:
        """What is left out, in the order in which it was found."""
        return tuple(self._entries)

    def rows_of(self, path: Path, batch: CaptureBatch) -> list[int]:
        """Return the rows of a record batch that are to be left out."""
        return [one.place.row for one in self._entries if one.place.is_in(path, batch)]

    def add(self, place: Place, batch: CaptureBatch, problem: str) -> tuple[SetAside, list[str]]:
        """Set a message aside; returns it, and the captures that had to make room."""
        stream, seq, message = (
            batch.messages[name][place.row].as_py() for name in ("stream", "seq", "message")
        )
        found = SetAside(place, stream, seq, len(message), problem)
        self.folder.mkdir(mode=0o700, exist_ok=True)
        path = self.folder / place.segment
        if not path.exists():
            path = self.folder / found.capture
            with CaptureWriter(path) as writer:
                writer.write(alone(batch.messages, place.row))
            _force(path)
        self._entries.append(found)
        gone = self._make_room(path)
        self._entries = [one for one in self._entries if self._matters(one)]
        self._write()
        return found, gone

    def _make_room(self, newest: Path) -> list[str]:
        sizes_bytes = {path: path.stat().st_size for path in captures_in(self.folder)}
        total_bytes = sum(sizes_bytes.values())
        gone = []
        for path in sorted(sizes_bytes.keys() - {newest}):
            if total_bytes <= self._most_bytes:
                break
            path.unlink()
            total_bytes -= sizes_bytes[path]
            gone.append(path.name)
        return gone

    def _matters(self, found: SetAside) -> bool:
        """Tell whether a message can still be read: in its segment, or in its capture."""
        segment = found.place.segment
        places = (self.folder.parent / segment, self.folder / segment, self.folder / found.capture)
        return any(place.exists() for place in places)

    def _read(self) -> list[SetAside]:
        try:
            return _INDEX.validate_json(self._index.read_bytes())
        except FileNotFoundError:
            return []
        except ValueError as error:
            problem = "this is no index of messages that were set aside"
            raise InputError(self._index, problem, "move it away") from error

    def _write(self) -> None:
        partial = self._index.with_name(f"{_INDEX_NAME}.partial")
        partial.write_bytes(_INDEX.dump_json(self._entries))
        partial.chmod(0o600)
        _force(partial)
        partial.replace(self._index)
        _force(self.folder)


def _force(path: Path) -> None:
    """Force a file or folder to disk: what it says is not found again."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def without(messages: pa.RecordBatch, rows: Collection[int]) -> pa.RecordBatch:
    """Return messages (CAPTURE_SCHEMA) without some rows."""
    if not rows:
        return messages
    left_out = set(rows)
    kept = [row for row in range(messages.num_rows) if row not in left_out]
    return messages.take(pa.array(kept, pa.int64()))


def alone(messages: pa.RecordBatch, row: int) -> pa.RecordBatch:
    """Return one message (CAPTURE_SCHEMA) behind what its stream had said of node and connection.

    Those before it keep nothing else, so no log is in them.
    """
    before = messages.slice(0, row).filter(_is_of(messages, row).slice(0, row))
    said = [_without_logs(content) for content in before["message"].to_pylist()]
    column = messages.schema.get_field_index("message")
    field = messages.schema.field(column)
    context = before.set_column(column, field, pa.array(said, field.type))
    kept = [at for at, content in enumerate(said) if content]
    rows = [context.take(pa.array(kept, pa.int64())), messages.slice(row, 1)]
    return pa.Table.from_batches(rows, messages.schema).combine_chunks().to_batches()[0]


def _is_of(messages: pa.RecordBatch, row: int) -> pa.BooleanArray:
    stream = messages["stream"][row].as_py()
    return pa.array([one == stream for one in messages["stream"].to_pylist()])


def _without_logs(content: bytes) -> bytes:
    try:
        message = EBPFAccessLogMessage.FromString(content)
    except DecodeError:
        return b""
    said = EBPFAccessLogMessage()
    for name in ("node", "connection"):
        if message.HasField(name):
            getattr(said, name).CopyFrom(getattr(message, name))
    return said.SerializeToString()


class Verdict(Enum):
    """What a search found: nothing that dies, no single message, the machine, or a message."""

    HARMLESS = auto()
    TOGETHER = auto()
    UNCLEAR = auto()
    DEADLY = auto()


def search(
    reading: Reading,
    count: int,
    lives_first: Callable[[int], bool],
    lives_alone: Callable[[int], bool],
    keep: Callable[[Reading], None],
) -> tuple[Verdict, Reading]:
    """Find the first of `count` messages over which a process dies: it is number `dies` - 1.

    `lives_first` tells whether a process lives on so many of the first messages, `lives_alone` on
    one; `keep` writes down what is known, for a search that goes on after the death of this one.
    """
    lives, dies = reading.lives, reading.dies
    if not dies:
        if lives_first(count):
            return Verdict.HARMLESS, replace(reading, lives=count)
        dies = count
    while dies - lives > 1:
        middle = (lives + dies) // 2
        if lives_first(middle):
            lives = middle
        else:
            dies = middle
        reading = replace(reading, lives=lives, dies=dies)
        keep(reading)
    reading = replace(reading, lives=lives, dies=dies)
    for _ in range(_DEATHS):
        if lives_alone(dies - 1):
            return Verdict.TOGETHER, reading
        if not lives_first(lives):
            return Verdict.UNCLEAR, reading
    return Verdict.DEADLY, reading


def row_of(batches: Iterable[tuple[Path, CaptureBatch]], number: int) -> tuple[Place, CaptureBatch]:
    """Return the place of a message by its number in these record batches.

    Raises IndexError where there are fewer.
    """
    left = number
    for path, batch in batches:
        if left < batch.messages.num_rows:
            position = batch.position
            return Place(path.name, position.offset_bytes, left, position.digest), batch
        left -= batch.messages.num_rows
    message = f"there is no message {number}"
    raise IndexError(message)
