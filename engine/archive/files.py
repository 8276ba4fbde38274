"""The folder of an archive: its files are written whole and to the disk before they are listed.

Each is KIND/HOUR/NUMBER.parquet. What is in the folder by such a name and is not listed was never
part of the archive, or is not any more. Other files are not the archive's and are left alone.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import fcntl
import json
import os
import re
from dataclasses import dataclass
from itertools import chain
from typing import IO, TYPE_CHECKING, Final, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from framewalk.engine.archive.minutes import served_span
from framewalk.engine.archive.schema import HTTP, KINDS, TABLES, TIME, arrow_schema
from framewalk.engine.errors import StoreError, StoreLockedError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from pathlib import Path

MARKER: Final = "archive.json"
_VERSION: Final = 1
_MIXED: Final = "mixed"
_NAME: Final = re.compile(r"\d{12}\.parquet")
_HOUR: Final = re.compile(r"\d{4}-\d\d-\d\dT\d\d|" + _MIXED)
# What a new file system has at its root.
_OF_FILE_SYSTEMS: Final = frozenset({"lost+found"})
_PATTERN_CHARACTERS: Final = frozenset("*?[]{}")
_MAGIC: Final = b"PAR1"
_EPOCH: Final = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
_EMPTY: Final = "{}.parquet"

# Measured on requests: level 9 saves 1 % of level 1, for twice the time.
COMPRESSION: Final = "zstd"
COMPRESSION_LEVEL: Final = 1
# What a query that finds its rows by their time or edge reads at least.
ROW_GROUP_ROWS: Final = 65_536


_KEY: Final = b"framewalk.merged"


class Origin(NamedTuple):
    """Of which files (numbers) the rows of one are, and how many rows these had together.

    Where it is sampled only some of these rows are left.
    """

    files: frozenset[int]
    rows: int
    is_sampled: bool = False

    def as_metadata(self) -> dict[bytes, bytes]:
        """Return what a Parquet file says of it."""
        said = {"files": sorted(self.files), "rows": self.rows, "is_sampled": self.is_sampled}
        return {_KEY: json.dumps(said, separators=(",", ":")).encode()}


def origin_of(path: Path) -> Origin | None:
    """Return what a file says of its origin; None for one that was not merged, or is no file."""
    try:
        said = json.loads((pq.read_metadata(path).metadata or {})[_KEY])
        numbers = frozenset(map(int, said["files"]))
        return Origin(numbers, int(said["rows"]), bool(said["is_sampled"]))
    except (OSError, pa.ArrowException, KeyError, TypeError, ValueError):
        return None


@dataclass(frozen=True, slots=True)
class ArchivedFile:
    """A file: where it is, and what is in it.

    `hour` is that of all its rows, in hours since 1970; None where they are of several. Of requests
    `served_first_ns` and `served_last_ns` are when the first and the last began to be served; an
    earlier version did not say so. `is_sampled` tells whether only some rows are left; None of an
    earlier version, whose files have not all columns.
    """

    number: int
    kind: str
    hour: int | None
    rows: int
    size_bytes: int
    first_ns: int
    last_ns: int
    served_first_ns: int | None = None
    served_last_ns: int | None = None
    is_sampled: bool | None = None

    @property
    def served_ns(self) -> tuple[int, int]:
        """Return when the first and the last request began to be served, or else their logs."""
        if self.served_first_ns is None or self.served_last_ns is None:
            return self.first_ns, self.last_ns
        return self.served_first_ns, self.served_last_ns

    @property
    def name(self) -> str:
        """Return its path in the folder."""
        return f"{self.kind}/{_hour_name(self.hour)}/{self.number:012}.parquet"


def _hour_name(hour: int | None) -> str:
    if hour is None:
        return _MIXED
    return f"{_EPOCH + dt.timedelta(hours=hour):%Y-%m-%dT%H}"


def oldest(files: Iterable[ArchivedFile], size_bytes: int) -> list[ArchivedFile]:
    """Return the files whose logs end first, of so many bytes together, if there are."""
    found: list[ArchivedFile] = []
    for file in sorted(files, key=lambda file: file.last_ns):
        if size_bytes <= 0:
            break
        found.append(file)
        size_bytes -= file.size_bytes
    return found


def problem_of(error: Exception) -> str:
    """Return what could not be written, and why, in a few words."""
    problem = (str(error).splitlines() or [type(error).__name__])[0].lower()
    return (error.strerror or problem).lower() if isinstance(error, OSError) else problem


def open_file(path: Path, texts: Sequence[str]) -> pq.ParquetFile:
    """Open a file to read texts as dictionaries; raises OSError and pa.ArrowException."""
    try:
        return pq.ParquetFile(path, read_dictionary=list(texts), page_checksum_verification=True)
    except (KeyError, UnicodeError) as error:
        # What names its columns is damaged.
        problem = f"a column is not there ({error})"
        raise pa.ArrowInvalid(problem) from error


def empty_file(folder: Path, kind: str) -> Path:
    """Return the file without rows from which a view has its columns."""
    return folder / _EMPTY.format(kind)


class ArchiveFolder:
    """A folder that one process writes: `close` lets another one.

    `identity` is the archive's, which the store has too. Raises StoreError where it is another
    one's, no archive's, or cannot be used.
    """

    def __init__(self, path: Path, identity: str) -> None:
        # Views name their files wherever a process was started, and by one name.
        self.path = path.absolute().resolve()
        self._check_name()
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            self._marker = self._locked()
            try:
                self._check_identity(identity)
                for kind in KINDS:
                    self._write_empty(kind)
            except BaseException:
                self._marker.close()
                raise
        except OSError as error:
            problem = (error.strerror or str(error)).lower()
            remedy = "check the path of the archive, and its permissions"
            raise StoreError(path, f"cannot be used as an archive ({problem})", remedy) from error

    def close(self) -> None:
        """Let another process write it."""
        self._marker.close()

    def write(
        self,
        number: int,
        kind: str,
        hour: int | None,
        tables: Iterable[pa.Table],
        *,
        origin: Origin | None = None,
    ) -> ArchivedFile:
        """Write a file of rows of a kind, to the disk; a part of one is not left behind.

        `origin` is that of a merged one.

        Raises OSError.
        """
        target = self.path / ArchivedFile(number, kind, hour, 0, 0, 0, 0).name
        is_new = not target.parent.is_dir()
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            found = _written(target, kind, tables, origin)
            _sync(target, target.parent, *([target.parent.parent, self.path] if is_new else []))
        except BaseException:
            with contextlib.suppress(OSError):
                target.unlink(missing_ok=True)
            raise
        size_bytes = target.stat().st_size
        is_sampled = origin is not None and origin.is_sampled
        return ArchivedFile(
            number, kind, hour, found.rows, size_bytes, *found[1:], is_sampled=is_sampled
        )

    def look(self, path: Path, like: ArchivedFile, *, is_sampled: bool) -> ArchivedFile:
        """Return what is known of a file that is there, of the kind and the hour of another.

        Raises OSError, and pyarrow.ArrowException for one that is damaged.
        """
        names = [TIME] + (["duration_ns", *_SERVING] if like.kind == HTTP else [])
        found = _with_span(_NOTHING, pq.read_table(path, columns=names), like.kind)
        size_bytes = path.stat().st_size
        number, rest = int(path.stem), found[1:]
        return ArchivedFile(
            number, like.kind, like.hour, found.rows, size_bytes, *rest, is_sampled=is_sampled
        )

    def has(self, file: ArchivedFile) -> bool:
        """Tell whether a file is there, with as much as it had."""
        try:
            return (self.path / file.name).stat().st_size == file.size_bytes
        except OSError:
            return False

    def problem(self, file: ArchivedFile) -> str:
        """Say why a file cannot be read; the empty string where nothing is seen."""
        path = self.path / file.name
        try:
            size_bytes = path.stat().st_size
            if size_bytes != file.size_bytes:
                return f"it has {size_bytes:,} bytes, and had {file.size_bytes:,}"
            with path.open("rb") as content:
                begin = content.read(len(_MAGIC))
                content.seek(-len(_MAGIC), os.SEEK_END)
                is_whole = begin == content.read() == _MAGIC
        except FileNotFoundError:
            return "it is missing"
        except OSError as error:
            return (error.strerror or str(error)).lower()
        return "" if is_whole else "it is no Parquet file"

    def remove(self, files: Iterable[ArchivedFile]) -> None:
        """Remove files, and folders that have none any more; what cannot be stays for the start."""
        for file in files:
            path = self.path / file.name
            with contextlib.suppress(OSError):
                path.unlink(missing_ok=True)
                path.parent.rmdir()

    def remove_others(self, listed: Iterable[ArchivedFile]) -> int:
        """Remove what a process that was ended has left; returns how many files that were."""
        names = {file.name for file in listed}
        removed = 0
        for path in self.own_files():
            if path.relative_to(self.path).as_posix() not in names:
                with contextlib.suppress(OSError):
                    path.unlink()
                    removed += 1
                    path.parent.rmdir()
        return removed

    def next_number(self) -> int:
        """Return a number that no file here has, nor a higher one."""
        return max((int(path.stem) for path in self.own_files()), default=-1) + 1

    def own_files(self) -> Iterator[Path]:
        """Yield the paths of files that have the name of one of the archive, listed or not."""
        for kind in KINDS:
            for folder in sorted((self.path / kind).glob("*")):
                if _HOUR.fullmatch(folder.name) and not folder.is_symlink():
                    yield from (one for one in folder.iterdir() if _NAME.fullmatch(one.name))

    def _check_name(self) -> None:
        if _PATTERN_CHARACTERS & set(str(self.path)):
            problem = "DuckDB would take this path for a pattern of names"
            remedy = f"name one without {' '.join(sorted(_PATTERN_CHARACTERS))}"
            raise StoreError(self.path, problem, remedy)

    def _locked(self) -> IO[bytes]:
        marker = self.path / MARKER
        others = {one.name for one in self.path.iterdir()} - _OF_FILE_SYSTEMS
        if others and not marker.exists():
            problem = "this folder has other files, and is no archive"
            raise StoreError(self.path, problem, "name a new or an empty folder")
        content = marker.open("a+b")
        try:
            fcntl.flock(content, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            content.close()
            problem = "another process writes this archive"
            raise StoreLockedError(self.path, problem, "stop it, or wait for it") from error
        return content

    def _check_identity(self, identity: str) -> None:
        self._marker.seek(0)
        text = self._marker.read()
        if not text:
            self._marker.write(json.dumps({"archive": identity, "version": _VERSION}).encode())
            self._marker.flush()
            os.fsync(self._marker.fileno())
            return
        try:
            said = json.loads(text)
            found, version = str(said["archive"]), int(said["version"])
        except (ValueError, KeyError, TypeError) as error:
            problem = f"its {MARKER} is damaged"
            raise StoreError(self.path, problem, "name another folder") from error
        if version > _VERSION:
            problem = f"a newer framewalk made this archive (version {version})"
            raise StoreError(self.path, problem, "upgrade framewalk")
        if found != identity:
            problem = "this is the archive of another store"
            raise StoreError(self.path, problem, "name a new folder, or that store")

    def _write_empty(self, kind: str) -> None:
        target = empty_file(self.path, kind)
        with contextlib.suppress(OSError, pa.ArrowException):
            if pq.read_schema(target).equals(arrow_schema(kind)):
                return
        temporary = target.with_suffix(".tmp")
        _written(temporary, kind, [arrow_schema(kind).empty_table()])
        temporary.replace(target)


class _Found(NamedTuple):
    """What a file got."""

    rows: int
    first_ns: int
    last_ns: int
    served_first_ns: int | None = None
    served_last_ns: int | None = None


_NOTHING: Final = _Found(0, 2**63 - 1, 0)
_SERVING: Final = ("serving_before_ns", "serving_after_ns")


def _written(
    target: Path, kind: str, tables: Iterable[pa.Table], origin: Origin | None = None
) -> _Found:
    """Write tables, which have one schema, to a file; there is at least one."""
    found = _NOTHING
    each = iter(tables)
    first = next(each)
    with _writer(target, kind, first.schema) as writer:
        for table in chain([first], each):
            writer.write_table(table, ROW_GROUP_ROWS)
            if table.num_rows:
                found = _with_span(found, table, kind)
        if origin is not None:
            writer.add_key_value_metadata(origin.as_metadata())
    return found


def _with_span(found: _Found, table: pa.Table, kind: str) -> _Found:
    times = pc.min_max(table[TIME].cast(pa.int64()))
    first_ns = min(found.first_ns, times["min"].as_py())
    last_ns = max(found.last_ns, times["max"].as_py())
    rows = found.rows + table.num_rows
    if kind != HTTP:
        return _Found(rows, first_ns, last_ns)
    served = served_span(table)
    if found.served_first_ns is not None and found.served_last_ns is not None:
        served = min(served[0], found.served_first_ns), max(served[1], found.served_last_ns)
    return _Found(rows, first_ns, last_ns, *served)


def _writer(target: Path, kind: str, schema: pa.Schema) -> pq.ParquetWriter:
    columns = TABLES[kind]
    packed = [column.name for column in columns if column.is_packed]
    return pq.ParquetWriter(
        target,
        schema,
        compression=COMPRESSION,
        compression_level=COMPRESSION_LEVEL,
        use_dictionary=[column.name for column in columns if column.has_dictionary],
        # The bytes of numbers that are alike are next to each other then: a tenth less than of any
        # other way, and the fastest.
        column_encoding=dict.fromkeys(packed, "BYTE_STREAM_SPLIT"),
        # That texts were numbers of a dictionary concerns nobody who reads them.
        store_schema=False,
        write_page_checksum=True,
    )


def _sync(*paths: Path) -> None:
    """Force files and folders to the disk."""
    for path in paths:
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
