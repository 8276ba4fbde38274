"""Captures on object storage of the S3 API, `s3://bucket/path`, read as files are.

What storage asks for is taken from the environment, as for the table that engines share: AWS_REGION
and credentials, AWS_ENDPOINT_URL, AWS_ALLOW_HTTP, AWS_TIMEOUT, AWS_CONNECT_TIMEOUT. Nothing is
copied to a disk: an object is read by ranges, each again where an answer fails or is cut off.
"""

from __future__ import annotations

import io
import os
import re
import stat
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path, PosixPath
from typing import TYPE_CHECKING, Any, Final, Self

import pyarrow as pa

from framewalk.engine.errors import CaptureError
from framewalk.engine.paths import one_path

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from pyarrow.fs import S3FileSystem

_SCHEME: Final = "s3://"
_URI: Final = re.compile(r"s3://[^/]+(/[^/]+)*/?")
_OTHER_URI: Final = re.compile("[a-z][a-z0-9+.-]*://")
# What is fetched at once: little of who wants the head alone, more of who reads on.
_LEAST_BYTES: Final = 64 * 2**10
_MOST_BYTES: Final = 4 * 2**20
_ATTEMPTS: Final = 3
_TIMEOUT: Final = "30s"
_CONNECT_TIMEOUT: Final = "5s"
_DURATION: Final = re.compile(r"(\d+(?:\.\d+)?) ?(ms|s|m)")
_UNIT_S: Final = {"ms": 0.001, "s": 1.0, "m": 60.0}
# What the library says where nobody may read, or who asks is not known.
_REFUSED: Final = ("ACCESS_DENIED", "INVALID_ACCESS_KEY_ID", "SIGNATURE_DOES_NOT_MATCH")
_LONGEST: Final = 300


class ObjectPath(PosixPath):
    """A capture on object storage, or what the names of some begin with (a folder of them).

    A Path, so that whoever is given captures need not know where they are: of what a path can be
    asked only this is, all else is of files. Raises CaptureError where storage does not answer.
    """

    def __str__(self) -> str:
        return f"{_SCHEME}{self.key}"

    @property
    def key(self) -> str:
        """The bucket, and the object's name there."""
        return "/".join(self.parts[1:])

    def absolute(self) -> Self:
        """Return it: it is the same in every folder."""
        return self

    def is_fifo(self) -> bool:
        """Return False."""
        return False

    def is_dir(self, *, follow_symlinks: bool = True) -> bool:  # noqa: ARG002 - there are none
        """Tell whether names of objects go on from here, and none ends here."""
        return stat.S_ISDIR(self._found()[0])

    def stat(self, *, follow_symlinks: bool = True) -> os.stat_result:  # noqa: ARG002 - as above
        """Return the size of an object; raise CaptureError where there is none."""
        mode, size_bytes = self._found()
        if not mode:
            raise _missing(self)
        return os.stat_result((mode, 0, 0, 1, 0, 0, size_bytes, 0, 0, 0))

    def inside(self) -> list[ObjectPath]:
        """Return the objects whose names go on from here, without those further down."""
        from pyarrow.fs import FileSelector  # noqa: PLC0415 - as in _client

        with _explaining(self):
            found = _client(self).get_file_info(FileSelector(self.key))
        return [ObjectPath(_SCHEME + one.path) for one in found if one.is_file]

    def _found(self) -> tuple[int, int]:
        """Return its mode, 0 where nothing is there, and its size."""
        with _explaining(self):
            found = _client(self).get_file_info(self.key)
        if found.is_file:
            return stat.S_IFREG, found.size
        return (stat.S_IFDIR if found.type.name == "Directory" else 0), 0


class ObjectFile(io.RawIOBase):
    """An object, read from its begin on or from where `seek` says."""

    def __init__(self, path: ObjectPath) -> None:
        self._path = path
        with _explaining(path):
            self._object = _client(path).open_input_file(path.key)
            self.size_bytes: int = self._object.size()
        self._at = 0
        # What was fetched, and where it begins.
        self._fetched, self._begin = b"", 0
        self._next_bytes = _LEAST_BYTES

    def readable(self) -> bool:
        """Return True, as pyarrow asks."""
        return True

    def seekable(self) -> bool:
        """Return True."""
        return True

    def tell(self) -> int:
        """Return how far it was read."""
        return self._at

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Go to a byte, by its number."""
        if whence != os.SEEK_SET:
            raise io.UnsupportedOperation
        self._at = offset
        return offset

    def will_read(self, size_bytes: int) -> None:
        """Fetch so much at once where something is read next."""
        self._next_bytes = size_bytes

    def read(self, size: int = -1) -> bytes:
        """Read on. Raises CaptureError."""
        left = max(self.size_bytes - self._at, 0)
        size = left if size < 0 else min(size, left)
        if not self._begin <= self._at <= self._at + size <= self._begin + len(self._fetched):
            self._fetch(size)
        begin = self._at - self._begin
        content = self._fetched[begin : begin + size]
        self._at += len(content)
        return content

    def close(self) -> None:
        """Let go of it."""
        self._object.close()
        super().close()

    def _fetch(self, size: int) -> None:
        """Have so much from here on, and some of what follows."""
        is_here = self._begin <= self._at <= self._begin + len(self._fetched)
        kept = self._fetched[self._at - self._begin :] if is_here else b""
        wanted = max(size - len(kept), self._next_bytes)
        with _explaining(self._path):
            self._fetched = kept + self._object.read_at(wanted, self._at + len(kept))
        self._begin = self._at
        self._next_bytes = min(2 * self._next_bytes, _MOST_BYTES)


def capture_path(path: str | os.PathLike[str]) -> Path:
    """Return where a capture is, or a folder of them: a file's path, or that of an object.

    Raises CaptureError for what is neither.
    """
    if isinstance(path, ObjectPath):
        return path
    if isinstance(path, str) and path.startswith(_SCHEME):
        # Its parts would be left out of a path.
        is_odd = any(part in {".", ".."} for part in path.split("/"))
        if is_odd or not _URI.fullmatch(path):
            raise CaptureError(path, "this is no object or folder", "name s3://BUCKET/PATH")
        return ObjectPath(path)
    if isinstance(path, str) and _OTHER_URI.match(path) and not Path(path).exists():
        problem = "captures are read from files, and from storage of the S3 API"
        raise CaptureError(path, problem, "name a file, or s3://BUCKET/PATH")
    return one_path(path, CaptureError)


def are_objects(path: Path) -> bool:
    """Tell whether a path is one of object storage."""
    return isinstance(path, ObjectPath)


@dataclass(frozen=True, slots=True)
class _Options:
    endpoint: str | None
    region: str | None
    timeout_s: float
    connect_timeout_s: float


def _client(path: ObjectPath) -> S3FileSystem:
    """Return what storage is asked with. Raises CaptureError for settings that cannot be."""
    endpoint = os.environ.get("AWS_ENDPOINT_URL") or None
    if endpoint and endpoint.startswith("http://") and not _is_true("AWS_ALLOW_HTTP"):
        remedy = "name one with https://, or set AWS_ALLOW_HTTP=true"
        raise CaptureError(path, "AWS_ENDPOINT_URL is without TLS", remedy)
    region = os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION") or None
    times_s = (
        _seconds(path, os.environ, "AWS_TIMEOUT", _TIMEOUT),
        _seconds(path, os.environ, "AWS_CONNECT_TIMEOUT", _CONNECT_TIMEOUT),
    )
    try:
        return _client_of(_Options(endpoint, region, *times_s))
    except ImportError as error:
        problem = "this build of pyarrow cannot read object storage"
        raise CaptureError(path, problem, "install the one of PyPI") from error


@lru_cache(maxsize=1)
def _client_of(options: _Options) -> S3FileSystem:
    # Here, as it starts threads, and whoever reads files alone needs it not.
    from pyarrow.fs import AwsStandardS3RetryStrategy, S3FileSystem  # noqa: PLC0415

    own: dict[str, Any] = {}
    if options.endpoint is not None:
        own = {"endpoint_override": options.endpoint, "scheme": options.endpoint.split(":")[0]}
    if options.region is not None:
        own["region"] = options.region
    return S3FileSystem(
        request_timeout=options.timeout_s,
        connect_timeout=options.connect_timeout_s,
        retry_strategy=AwsStandardS3RetryStrategy(max_attempts=_ATTEMPTS),
        **own,
    )


def _is_true(variable: str) -> bool:
    return os.environ.get(variable, "").lower() in {"true", "1", "yes", "on"}


def _seconds(
    path: ObjectPath, environment: Mapping[str, str], variable: str, default: str
) -> float:
    text = environment.get(variable, default)
    match = _DURATION.fullmatch(text.strip())
    if match is None:
        raise CaptureError(path, f"{variable} is {text!r}", "give it as 30s or 500ms")
    return float(match[1]) * _UNIT_S[match[2]]


@contextmanager
def _explaining(path: ObjectPath) -> Iterator[None]:
    """Tell what storage did not do: unlike damage of a file it may be over the next time."""
    try:
        yield
    except FileNotFoundError as error:
        raise _missing(path) from error
    except (OSError, pa.ArrowException) as error:
        text = " ".join(str(error).split()) or type(error).__name__
        said = text if len(text) <= _LONGEST else f"{text[:_LONGEST]}..."
        if "NO_SUCH_BUCKET" in text:
            raise _missing(path) from error
        if any(one in text for one in _REFUSED):
            remedy = "check AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, and who may read it"
            raise CaptureError(path, f"storage refuses access ({said})", remedy) from error
        problem = f"storage does not answer as it should ({said})"
        raise CaptureError(path, problem, "see to it, and run this again: it goes on") from error


def _missing(path: ObjectPath) -> CaptureError:
    problem = "there is no such object, and no folder of captures"
    return CaptureError(path, problem, "check the bucket, the path and AWS_ENDPOINT_URL")
