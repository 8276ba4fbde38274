"""Reading captures while they are written, torn, or damaged."""

import io
import random
from itertools import pairwise
from pathlib import Path

import pyarrow as pa
import pytest

from framewalk.engine.captures.format import (
    CAPTURE_SCHEMA,
    DIGEST_KEY,
    CaptureBatch,
    CaptureReader,
    batch_digest,
)
from framewalk.engine.captures.growing import Damage, GrowingCapture

STREAMS = 6


def batch(number: int) -> pa.RecordBatch:
    """Return a batch of one stream; its messages are made of its number."""
    rows = 3 + number
    draws = random.Random(number)  # noqa: S311 - the same ones in each run
    columns = [
        pa.array([number] * rows, pa.uint64()),
        pa.array(range(rows), pa.uint32()),
        pa.array(range(rows), pa.timestamp("ns", tz="UTC")),
        pa.array([draws.randbytes(40) + b"\xff" * 16 for _ in range(rows)], pa.binary()),
    ]
    return pa.RecordBatch.from_arrays(columns, schema=CAPTURE_SCHEMA)


BATCHES = [batch(number) for number in range(STREAMS)]


def written(compression: str | None) -> tuple[bytes, list[int]]:
    """Return a whole capture and the ends of its schema and of its batches."""
    sink = io.BytesIO()
    options = pa.ipc.IpcWriteOptions(compression=compression)
    writer = pa.ipc.new_stream(sink, CAPTURE_SCHEMA, options=options)
    ends = []
    for one in BATCHES:
        if not ends:
            ends.append(len(CAPTURE_SCHEMA.serialize()))
        writer.write_batch(one, custom_metadata={DIGEST_KEY: batch_digest(one)})
        ends.append(sink.tell())
    writer.close()
    return sink.getvalue(), ends


def read(capture: GrowingCapture, *, is_complete: bool) -> tuple[list[CaptureBatch], list[Damage]]:
    """Return the batches that are readable, and the damage."""
    found = list(capture.read(is_complete=is_complete))
    damages = [one for one in found if isinstance(one, Damage)]
    return [one for one in found if not isinstance(one, Damage)], damages


@pytest.mark.parametrize("compression", ["zstd", None])
def test_a_capture_that_grows_byte_by_byte_is_read_batch_by_batch(
    tmp_path: Path, compression: str | None
) -> None:
    content, ends = written(compression)
    path = tmp_path / "grows.capture.arrows"
    path.write_bytes(b"")
    seen = []
    capture = GrowingCapture(path)
    for size in range(1, len(content) + 1):
        with path.open("ab") as file:
            file.write(content[size - 1 : size])
        batches, damages = read(capture, is_complete=False)
        assert not damages
        seen += batches
        assert len(seen) == sum(end <= size for end in ends[1:])
    assert [one.messages for one in seen] == BATCHES
    with CaptureReader(path) as reader:
        assert [one.position for one in seen] == [one.position for one in reader]


@pytest.mark.parametrize("compression", ["zstd", None])
def test_a_torn_tail_is_told_once_nothing_more_is_written(
    tmp_path: Path, compression: str | None
) -> None:
    content, ends = written(compression)
    path = tmp_path / "torn.capture.arrows"
    for size in [*range(1, len(content), 7), *ends]:
        path.write_bytes(content[:size])
        batches, damages = read(GrowingCapture(path), is_complete=True)
        whole = sum(end <= size for end in ends[1:])
        assert [one.messages for one in batches] == BATCHES[:whole]
        at_an_end = size in ends
        assert len(damages) == (0 if at_an_end else 1), size


@pytest.mark.parametrize("compression", ["zstd", None])
def test_damage_costs_the_batch_it_is_in(tmp_path: Path, compression: str | None) -> None:
    content, ends = written(compression)
    path = tmp_path / "damaged.capture.arrows"
    draws = random.Random(3)  # noqa: S311 - the same ones in each run
    for _ in range(600):
        damaged = bytearray(content)
        place = draws.randrange(ends[-1])
        length = draws.choice([1, 1, 4, 40])
        for at in range(place, min(place + length, ends[-1])):
            damaged[at] ^= 1 << draws.randrange(8)
        path.write_bytes(damaged)
        batches, damages = read(GrowingCapture(path), is_complete=True)
        hit = {
            number
            for number, (start, end) in enumerate(pairwise(ends))
            if start < place + length and place < end
        }
        got = [one.messages["stream"][0].as_py() for one in batches]
        assert all(
            one.messages == BATCHES[number] for number, one in zip(got, batches, strict=True)
        ), place
        # Padding may be hit, and then nothing is lost.
        assert set(got) | hit == set(range(STREAMS)), place
        assert got == sorted(set(got)), place
        assert damages or len(got) == STREAMS, place


@pytest.mark.parametrize("bit", range(8))
def test_damage_in_the_head_costs_nothing(tmp_path: Path, bit: int) -> None:
    content, ends = written("zstd")
    path = tmp_path / "damaged.capture.arrows"
    for at in range(ends[0]):
        damaged = bytearray(content)
        damaged[at] ^= 1 << bit
        path.write_bytes(damaged)
        batches, _ = read(GrowingCapture(path), is_complete=True)
        assert [one.messages for one in batches] == BATCHES, at


def test_what_looks_like_many_markers_is_passed_over(tmp_path: Path) -> None:
    content, ends = written("zstd")
    path = tmp_path / "damaged.capture.arrows"
    path.write_bytes(content[: ends[2]] + b"\xff" * 2**20 + content[ends[2] :])
    batches, (damage,) = read(GrowingCapture(path), is_complete=True)
    assert [one.messages for one in batches] == BATCHES
    assert damage.size_bytes == 2**20


def test_reading_goes_on_from_a_known_position(tmp_path: Path) -> None:
    content, _ = written("zstd")
    path = tmp_path / "known.capture.arrows"
    path.write_bytes(content)
    all_of_it, _ = read(GrowingCapture(path), is_complete=True)
    for number, one in enumerate(all_of_it, 1):
        rest, damages = read(GrowingCapture(path, one.position), is_complete=True)
        assert rest == all_of_it[number:]
        assert not damages


def test_damage_is_told_in_a_line(tmp_path: Path) -> None:
    content, ends = written("zstd")
    path = tmp_path / "damaged.capture.arrows"
    path.write_bytes(content[: ends[1]] + b"\0" * 64 + content[ends[1] :])
    batches, (damage,) = read(GrowingCapture(path), is_complete=True)
    assert len(batches) == STREAMS
    assert str(damage) == (
        f"{path}: 64 bytes from byte {ends[1]:,} on are torn or damaged; "
        "what they held is left out, the rest is kept"
    )
