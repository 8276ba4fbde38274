"""An answer as chunks of bytes, made while DuckDB still works: JSON, or an Arrow IPC stream.

A chunk is made when it is asked for, so memory holds one of them, however long the answer. Each
form says at its end whether rows were left out; an answer that breaks off says why.
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any, Final, Protocol

import pyarrow as pa

from framewalk.engine.errors import InputError
from framewalk.engine.views import quoted
from framewalk.queries.reading.json_values import as_json, plain, unique_names
from framewalk.queries.reading.query import QUERY_PLACE

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    import duckdb

    from framewalk.queries.reading.readable import Readable

ARROW_TYPE: Final = "application/vnd.apache.arrow.stream"
JSON_TYPE: Final = "application/json"

# Keys of metadata: of a field, DuckDB's name of its type; of the last batch, how the answer ended.
DUCKDB_TYPE: Final = b"duckdb_type"
END: Final = b"framewalk"

# What DuckDB makes of these would be other values.
_NOT_IN_ARROW: Final = re.compile(r"\bBIT\b|\bTIME WITH TIME ZONE\b")

# Made once: json.dumps would make one for each row.
_encode: Final = json.JSONEncoder(ensure_ascii=False, allow_nan=False).encode

_PLAIN_TYPES: Final = frozenset({int, str, bool, type(None)})

_CHUNK_BYTES: Final = 1 << 18
_BATCH_ROWS: Final = 10_000
_JSON_ROWS: Final = 500


class Answer(Protocol):
    """One answer in one form."""

    media_type: str

    def chunks(
        self, cursor: duckdb.DuckDBPyConnection, readable: Readable, max_rows: int
    ) -> Iterator[bytes]:
        """Run a statement and yield the answer: its first `max_rows` rows."""
        ...

    def failure(self, problem: str) -> bytes:
        """Return what ends an answer that has begun and cannot go on."""
        ...


class JsonAnswer:
    """`{"columns": [{"name", "type"}], "rows": [{...}], "truncated": false}`.

    Integers of any size are exact, times are ISO 8601, structs and maps are objects, what JSON
    has no number for is null. Columns of one name are told apart: a, a_1.
    """

    media_type = JSON_TYPE

    def __init__(self) -> None:
        self._begun = False

    def chunks(
        self, cursor: duckdb.DuckDBPyConnection, readable: Readable, max_rows: int
    ) -> Iterator[bytes]:
        """Run a statement and yield the answer: its first `max_rows` rows."""
        return _gathered(self._texts(cursor, readable, max_rows))

    def _texts(
        self, cursor: duckdb.DuckDBPyConnection, readable: Readable, max_rows: int
    ) -> Iterator[bytes]:
        readable.run(cursor, cursor.execute)
        described = cursor.description or []
        columns = [{"name": one[0], "type": str(one[1])} for one in described]
        names = unique_names([one[0] for one in described])
        yield f'{{"columns": {as_json(columns)}, "rows": ['.encode()
        given = 0
        while given <= max_rows:
            rows = cursor.fetchmany(min(_JSON_ROWS, max_rows - given + 1))
            kept = rows[: max_rows - given]
            yield self._records(names, kept)
            given += len(rows)
            if not rows:
                break
        truncated = "true" if given > max_rows else "false"
        yield f'\n], "truncated": {truncated}}}\n'.encode()

    def _records(self, names: Sequence[str], rows: Sequence[tuple[Any, ...]]) -> bytes:
        if not rows:
            return b""
        records = ",\n".join(_record(names, row) for row in rows)
        separator = ",\n" if self._begun else "\n"
        self._begun = True
        return f"{separator}{records}".encode()

    def failure(self, problem: str) -> bytes:
        """Return what ends the text as JSON, with the error."""
        return f'\n], "error": {json.dumps(problem)}}}\n'.encode()


class ArrowAnswer:
    """Record batches, and a last one without rows that says how it ended, in its metadata.

    Under the key "framewalk": `{"truncated": false}`, or `{"error": "..."}`. Each field has
    DuckDB's name of its type in its metadata, as Arrow has no 128-bit integers and UUIDs.
    """

    media_type = ARROW_TYPE

    def __init__(self) -> None:
        self._sink = _Sink()
        self._schema = pa.schema([])
        self._writer: Any = None

    def chunks(
        self, cursor: duckdb.DuckDBPyConnection, readable: Readable, max_rows: int
    ) -> Iterator[bytes]:
        """Run a statement and yield the answer: its first `max_rows` rows."""
        return _gathered(self._messages(cursor, readable, max_rows))

    def _messages(
        self, cursor: duckdb.DuckDBPyConnection, readable: Readable, max_rows: int
    ) -> Iterator[bytes]:
        relation = readable.run(cursor, cursor.sql)
        _check_types(relation)
        reader = relation.to_arrow_reader(_BATCH_ROWS)
        # A result that is open keeps its transaction from ending.
        with reader:
            self._schema = _with_types(reader.schema, list(map(str, relation.types)))
            self._writer = pa.ipc.new_stream(self._sink, self._schema)
            given = 0
            for batch in reader:
                kept = batch.slice(0, max_rows - given)
                self._writer.write_batch(pa.record_batch(kept.columns, schema=self._schema))
                given += batch.num_rows
                yield self._sink.take()
                if given > max_rows:
                    break
        self._write_end({"truncated": given > max_rows})
        self._writer.close()
        yield self._sink.take()

    def failure(self, problem: str) -> bytes:
        """Return the last batch, with the error."""
        if self._writer is None:
            return b""
        self._write_end({"error": problem})
        return self._sink.take()

    def _write_end(self, end: dict[str, object]) -> None:
        nothing = [pa.nulls(0, field.type) for field in self._schema]
        batch = pa.record_batch(nothing, schema=self._schema)
        self._writer.write_batch(batch, custom_metadata={END: json.dumps(end).encode()})


class _Sink:
    """A file in memory that is emptied again and again."""

    closed = False

    def __init__(self) -> None:
        self._parts: list[bytes] = []

    def write(self, part: bytes) -> int:
        self._parts.append(bytes(part))
        return len(part)

    def flush(self) -> None:
        """Do nothing: all is in memory."""

    def close(self) -> None:
        """Do nothing: what was written is still to be taken."""

    def take(self) -> bytes:
        taken = b"".join(self._parts)
        self._parts.clear()
        return taken


def _with_types(schema: pa.Schema, types: Sequence[str]) -> pa.Schema:
    return pa.schema(
        field.with_metadata({**(field.metadata or {}), DUCKDB_TYPE: name.encode()})
        for field, name in zip(schema, types, strict=True)
    )


def _check_types(relation: duckdb.DuckDBPyRelation) -> None:
    for column, kind in zip(relation.columns, map(str, relation.types), strict=True):
        if _NOT_IN_ARROW.search(kind) and not kind.startswith("ENUM"):
            problem = f"Arrow has no type for column {column}, which is {kind}"
            raise InputError(QUERY_PLACE, problem, f"cast it: {quoted(column)}::VARCHAR")


def _gathered(parts: Iterable[bytes]) -> Iterator[bytes]:
    """Yield the same bytes in fewer pieces."""
    buffer = bytearray()
    for part in parts:
        buffer += part
        if len(buffer) >= _CHUNK_BYTES:
            yield bytes(buffer)
            buffer.clear()
    if buffer:
        yield bytes(buffer)


def _record(names: Sequence[str], row: Sequence[Any]) -> str:
    values = [value if type(value) in _PLAIN_TYPES else plain(value) for value in row]
    return _encode(dict(zip(names, values, strict=True)))
