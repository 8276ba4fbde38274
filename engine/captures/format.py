"""Captures: Rover's raw messages on disk, read and written as a stream (capture.md).

A capture is an Arrow IPC stream of (stream, seq, received_at, message) with its version in
the schema metadata. Memory use does not depend on its length: one record batch at a time.
"""

from __future__ import annotations

import hashlib
import io
import os
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import pyarrow as pa
import pyarrow.compute as pc

from framewalk.engine.captures.objects import ObjectFile, ObjectPath, capture_path
from framewalk.engine.closing import Closing
from framewalk.engine.errors import CaptureError
from framewalk.engine.paths import one_path

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from pathlib import Path

    from typing_extensions import Buffer

    from framewalk.engine.paths import Paths

CAPTURE_SUFFIX: Final = ".capture.arrows"
CAPTURE_VERSION: Final = 1
VERSION_KEY: Final = b"framewalk.capture.version"
# In the metadata of a record batch: tells whether the batch is as it was written.
DIGEST_KEY: Final = b"framewalk.batch.digest"

CAPTURE_SCHEMA: Final = pa.schema(
    [
        pa.field("stream", pa.uint64(), nullable=False),
        pa.field("seq", pa.uint32(), nullable=False),
        pa.field("received_at", pa.timestamp("ns", tz="UTC"), nullable=False),
        pa.field("message", pa.binary(), nullable=False),
    ],
    metadata={VERSION_KEY: str(CAPTURE_VERSION)},
)

_READ_BYTES: Final = 1 << 20
_VERSION: Final = re.compile("[1-9][0-9]{0,8}")
_ARROW_FILE_START: Final = b"ARROW1"
_ARROW_STREAM_START: Final = b"\xff\xff\xff\xff"
_ACCEPTED_MESSAGE_TYPES: Final = (pa.binary(), pa.large_binary())


@dataclass(frozen=True, slots=True)
class CapturePosition:
    """How far a capture has been read: always the end of a whole record batch.

    `digest` covers the file's bytes from 0 to `offset_bytes`, so a position recognises its
    capture under any name, and a capture that has grown since.
    """

    offset_bytes: int
    messages: int
    digest: str


@dataclass(frozen=True, slots=True)
class CaptureBatch:
    """One record batch of `CAPTURE_SCHEMA` and the position right after it."""

    messages: pa.RecordBatch
    position: CapturePosition


class CaptureReader(Closing):
    """Iterates over the record batches of one capture file.

    A torn or damaged tail ends the iteration; `warning` then says what was read and what
    was left out. Raises CaptureError where the file is missing, unreadable, not a capture,
    or of a newer version.
    """

    def __init__(self, path: str | Path) -> None:
        """Open `path` and check its schema."""
        self.path = capture_path(path)
        self.warning: str | None = None
        self._messages = 0
        self._file = open_digesting(self.path)
        try:
            self._stream = open_capture(self.path, self._file)
        except CaptureError:
            self._file.close()
            raise

    @property
    def size_bytes(self) -> int:
        """The size of the file when it was opened."""
        return self._file.size_bytes

    @property
    def position(self) -> CapturePosition:
        """The position after the last batch that was returned."""
        return CapturePosition(self._file.offset_bytes, self._messages, self._file.digest())

    def __iter__(self) -> Iterator[CaptureBatch]:
        """Yield every whole record batch that was not read before, in order."""
        return self.until(self.size_bytes)

    def until(self, offset_bytes: int) -> Iterator[CaptureBatch]:
        """Yield the record batches before an offset that is the end of one."""
        while self._file.offset_bytes < offset_bytes:
            batch = self._next()
            if batch is None:
                return
            self._messages += batch.num_rows
            yield CaptureBatch(batch, self.position)

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def _next(self) -> pa.RecordBatch | None:
        whole_bytes = self._file.offset_bytes
        try:
            return next_batch(self._stream)
        except DAMAGE as error:
            self.warning = (
                f"{self.path}: torn or damaged from byte {whole_bytes:,} on "
                f"({_first_line(error)}): {self._messages:,} messages were read, "
                f"{self.size_bytes - whole_bytes:,} bytes were left out; "
                "when you have the whole file, replay it: only the rest is added"
            )
            return None


class CaptureWriter(Closing):
    """Writes one capture file, record batch by record batch.

    The stream's end marker is written by `close`; a file without it is still a capture.
    """

    def __init__(self, path: str | Path, compression: str | None = "zstd") -> None:
        """Create or replace `path`; `compression` is "zstd", "lz4" or None.

        Raises CaptureError where the file cannot be created.
        """
        self.path = one_path(path, CaptureError)
        _check_name(self.path)
        try:
            self._file = pa.OSFile(str(self.path), "wb")
        except OSError as error:
            remedy = "name a file in a folder that exists and is writable"
            raise CaptureError(self.path, _reason(error), remedy) from error
        options = pa.ipc.IpcWriteOptions(compression=compression)
        self._stream = pa.ipc.new_stream(self._file, CAPTURE_SCHEMA, options=options)

    def write(self, messages: pa.RecordBatch) -> None:
        """Append one record batch of `CAPTURE_SCHEMA`; raises CaptureError for another one."""
        try:
            self._stream.write_batch(messages)
        except (pa.ArrowInvalid, TypeError) as error:
            problem = f"this is no batch of messages ({str(error).splitlines()[0]})"
            remedy = "give record batches with the columns of CAPTURE_SCHEMA"
            raise CaptureError(self.path, problem, remedy) from error

    def write_messages(
        self,
        stream: Iterable[int],
        seq: Iterable[int],
        received_at_ns: Iterable[int],
        message: Sequence[bytes],
    ) -> None:
        """Append one record batch made of four columns of equal length."""
        columns = (stream, seq, received_at_ns, message)
        arrays = [
            pa.array(column, type=field.type)
            for column, field in zip(columns, CAPTURE_SCHEMA, strict=True)
        ]
        self.write(pa.RecordBatch.from_arrays(arrays, schema=CAPTURE_SCHEMA))

    def close(self) -> None:
        """Write the end marker and close the file."""
        self._stream.close()
        self._file.close()


def digests_at(path: Path, offsets_bytes: Iterable[int]) -> dict[int, str]:
    """Return the digest of the file from its start up to each of these offsets."""
    digests: dict[int, str] = {}
    file = open_digesting(path)
    try:
        for offset_bytes in sorted(offsets_bytes):
            while file.offset_bytes < offset_bytes:
                if not file.read(min(_READ_BYTES, offset_bytes - file.offset_bytes)):
                    break
            digests[offset_bytes] = file.digest()
    finally:
        file.close()
    return digests


def captures_in(folder: Path) -> list[Path]:
    """Return the captures of a folder, sorted by name."""
    if isinstance(folder, ObjectPath):
        return sorted(one for one in folder.inside() if one.name.endswith(CAPTURE_SUFFIX))
    return sorted(folder.glob(f"*{CAPTURE_SUFFIX}"))


def find_captures(paths: Paths) -> list[Path]:
    """Replace each folder by the captures in it, sorted by name; files stay as they are.

    `paths` is one or several, of files, or of object storage (`s3://bucket/path`). Each capture is
    opened once, so a wrong path or file shows before work begins.

    Raises CaptureError for a folder without a `*.capture.arrows` file, for what is no capture, and
    for names that are not UTF-8.
    """
    found: list[Path] = []
    named = [paths] if isinstance(paths, str | os.PathLike) else paths
    for path in map(capture_path, named):
        if not path.is_dir():
            found.append(path)
            continue
        inside = captures_in(path)
        if not inside:
            raise CaptureError(path, f"no *{CAPTURE_SUFFIX} file in this folder", _CAPTURE_REMEDY)
        found.extend(inside)
    for path in found:
        _check_name(path)
        CaptureReader(path).close()
    return found


def _check_name(path: Path) -> None:
    """Refuse what neither a store nor Arrow can hold."""
    try:
        str(path).encode()
    except UnicodeEncodeError as error:
        raise CaptureError(path, "its name is not UTF-8 text", "name it otherwise") from error


# What pyarrow raises on bytes that are not what it expects.
DAMAGE: Final = (pa.ArrowException, OSError, UnicodeError, MemoryError)
_CAPTURE_REMEDY: Final = f"give a file that framewalk recorded or generated (*{CAPTURE_SUFFIX})"


@dataclass(frozen=True, slots=True)
class Place:
    """A place in a DigestingFile, with the hash of all bytes before it."""

    offset_bytes: int
    hash: hashlib.blake2b


class DigestingFile(io.RawIOBase):
    """A file that knows the digest of all bytes read from it so far."""

    def __init__(self, path: Path) -> None:
        self._file = _opened(path)
        self._hash = hashlib.blake2b(digest_size=16)
        self.size_bytes = self._now_bytes()
        self.offset_bytes = 0

    def readable(self) -> bool:
        """Return True, as pyarrow asks."""
        return True

    def read(self, size: int = -1) -> bytes:
        """Read on, no further than the file's end."""
        # A damaged length may ask for more than there is, and Python would make room for it.
        left = self.unread_bytes
        content = self._file.read(left if size < 0 else min(size, left))
        self._hash.update(content)
        self.offset_bytes += len(content)
        return content

    @property
    def unread_bytes(self) -> int:
        """How much is left of the file as it is now."""
        return max(self._now_bytes() - self.offset_bytes, 0)

    def tell(self) -> int:
        """Return how far the file was read."""
        return self.offset_bytes

    def place(self) -> Place:
        """Return this place, for `back_to`."""
        return Place(self.offset_bytes, self._hash.copy())

    def back_to(self, place: Place) -> None:
        """Go back: what comes after that place was never read."""
        self.offset_bytes = place.offset_bytes
        self._hash = place.hash.copy()
        self._file.seek(place.offset_bytes)

    def digest(self) -> str:
        """Return the digest of all bytes before `offset_bytes`."""
        return self._hash.hexdigest()

    def sync(self) -> None:
        """Force the file's content to disk, whoever wrote it."""
        os.fdatasync(self._file.fileno())

    def close(self) -> None:
        """Close the file."""
        self._file.close()
        super().close()

    def _now_bytes(self) -> int:
        """Return its size: a file may grow, an object does not."""
        if isinstance(self._file, ObjectFile):
            return self._file.size_bytes
        return os.fstat(self._file.fileno()).st_size


def _opened(path: Path) -> io.BufferedReader | ObjectFile:
    return ObjectFile(path) if isinstance(path, ObjectPath) else path.open("rb")


def open_digesting(path: Path) -> DigestingFile:
    """Open a file; raise CaptureError where that is not possible."""
    if path.is_fifo():
        # Reading goes through a capture more than once.
        raise CaptureError(path, "this is a pipe", "write the capture into a file first")
    try:
        return DigestingFile(path)
    except OSError as error:
        raise not_opened(path, error) from error


def open_capture(path: Path, file: io.RawIOBase) -> pa.RecordBatchStreamReader:
    """Read the head of a capture; raise CaptureError where it is none."""
    try:
        stream = pa.ipc.open_stream(file)
        _check_schema(path, stream.schema)
    except DAMAGE as error:
        raise CaptureError(path, _wrong_start(path), _CAPTURE_REMEDY) from error
    return stream


def next_batch(
    stream: pa.RecordBatchStreamReader, *, digest_required: bool = False
) -> pa.RecordBatch | None:
    """Read the next record batch, in CAPTURE_SCHEMA; None at the end. Raises one of DAMAGE.

    A batch that has a digest in its metadata must agree with it, and with `digest_required` it
    must have one.
    """
    try:
        batch, metadata = stream.read_next_batch_with_custom_metadata()
    except StopIteration:
        return None
    batch.validate(full=True)
    messages = as_capture_schema(batch)
    written = (metadata or {}).get(DIGEST_KEY)
    if (written is not None or digest_required) and written != batch_digest(messages):
        problem = "its content is not what was written"
        raise pa.ArrowInvalid(problem)
    return messages


def batch_digest(messages: pa.RecordBatch) -> bytes:
    """Return the digest of a record batch of CAPTURE_SCHEMA, as it is put into its metadata."""
    return parts_digest(part for column in messages.columns for part in _contents(column))


def parts_digest(parts: Iterable[Buffer]) -> bytes:
    """Do so for who has just made a batch of its parts.

    Those are the values of each column one after the other, of messages their sizes (4 bytes each)
    and then their bytes.
    """
    digest = hashlib.blake2b(digest_size=8)
    for part in parts:
        digest.update(part)
    return digest.hexdigest().encode()


def _contents(column: pa.Array) -> Iterator[memoryview]:
    """Yield the bytes that an array's values are, wherever they lie in its buffers."""
    _, values, *data = column.buffers()
    if not len(column):
        return
    if not data:
        width = column.type.byte_width
        yield memoryview(values)[column.offset * width :][: len(column) * width]
        return
    yield memoryview(pc.binary_length(column).buffers()[1])[: len(column) * 4]
    # Cut first: a damaged length need not be a multiple of an offset's.
    whole = memoryview(values)[column.offset * 4 :][: (len(column) + 1) * 4]
    offsets = whole.cast("i")
    if offsets[-1] > offsets[0]:
        yield memoryview(data[0])[offsets[0] : offsets[-1]]


def not_opened(path: Path, error: OSError) -> CaptureError:
    """Return what to tell of a file that cannot be opened."""
    return CaptureError(path, _reason(error), "check the path and its permissions")


def _reason(error: OSError) -> str:
    # Arrow tells more in place of it, the path again.
    return (os.strerror(error.errno) if error.errno else str(error)).lower()


def _wrong_start(path: Path) -> str:
    with _opened(path) as file:
        start = file.read(8)
    if not start:
        return "the file is empty"
    if start.startswith(_ARROW_FILE_START):
        return "this is an Arrow file, not an Arrow stream"
    if start.startswith(_ARROW_STREAM_START):
        return "its header is cut off or damaged"
    return "this is not an Arrow stream"


def _check_schema(path: Path, schema: pa.Schema) -> None:
    text = (schema.metadata or {}).get(VERSION_KEY, b"").decode(errors="replace")
    if not _VERSION.fullmatch(text):
        problem = (
            f"the version in its header is {text[:20]!r}" if text else "no version in its header"
        )
        raise CaptureError(path, f"{problem} ({VERSION_KEY.decode()})", _CAPTURE_REMEDY)
    if int(text) > CAPTURE_VERSION:
        raise CaptureError(
            path,
            f"capture version {text} is newer than {CAPTURE_VERSION}, the newest known here",
            "upgrade framewalk",
        )
    for field in CAPTURE_SCHEMA:
        problem = _field_problem(schema, field)
        if problem:
            raise CaptureError(path, f"column {field.name!r} {problem}", _CAPTURE_REMEDY)


def _field_problem(schema: pa.Schema, field: pa.Field) -> str:
    if field.name not in schema.names:
        return "is missing"
    if schema.names.count(field.name) > 1:
        return "is there more than once"
    found = schema.field(field.name).type
    accepted = _ACCEPTED_MESSAGE_TYPES if field.name == "message" else (field.type,)
    return "" if found in accepted else f"is {found}, not {field.type}"


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]


def as_capture_schema(batch: pa.RecordBatch) -> pa.RecordBatch:
    """Return the columns of CAPTURE_SCHEMA, cast to its types, and no others.

    Raises KeyError or pyarrow.ArrowException where that is not possible.
    """
    for name in CAPTURE_SCHEMA.names:
        if batch[name].null_count:
            problem = f"column {name!r} has nulls"
            raise pa.ArrowInvalid(problem)
    columns = [batch[field.name].cast(field.type) for field in CAPTURE_SCHEMA]
    return pa.RecordBatch.from_arrays(columns, schema=CAPTURE_SCHEMA)
