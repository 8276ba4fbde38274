"""A statement and its parameters, and who runs it: what clients name reaches DuckDB only so."""

from __future__ import annotations

import datetime as dt
import re
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Protocol, TypeAlias

import duckdb
import numpy as np
import numpy.typing as npt
import pyarrow as pa

from framewalk.engine.errors import InputError
from framewalk.engine.views import literal
from framewalk.queries.reading import QUERY_PLACE

if TYPE_CHECKING:
    from framewalk.queries.reading import SqlAnswer


# Texts and names, in which a ? is none of a parameter; and the parameters.
_PLACES: Final = re.compile(r"""('[^']*'|"[^"]*")|\?""")


class Statement(NamedTuple):
    """SQL with a `?` for each parameter."""

    sql: str
    parameters: list[object]

    @property
    def sendable(self) -> list[object]:
        """The parameters as DuckDB takes them: no text of its has half a character."""
        return [_whole(one) if isinstance(one, str) else one for one in self.parameters]

    @property
    def written(self) -> str:
        """The same without parameters, to be read by people, or run by a server."""
        values = iter(self.sendable)
        return _PLACES.sub(lambda found: found[0] if found[1] else _written(next(values)), self.sql)


class Answering(Protocol):
    """Who answers queries: a server that has the store open, or a file that is read."""

    def ask(self, query: str) -> SqlAnswer:
        """Return the rows of a query."""
        ...


# A cursor of a store, or who asks one.
Reader: TypeAlias = duckdb.DuckDBPyConnection | Answering


def rows_of(reader: Reader, statement: Statement) -> list[tuple[Any, ...]]:
    """Run a statement and return its rows. Raises what the reader raises."""
    if isinstance(reader, duckdb.DuckDBPyConnection):
        return reader.execute(statement.sql, statement.sendable).fetchall()
    return _asked(reader, statement).rows


def table_of(reader: Reader, statement: Statement) -> pa.Table:
    """Run a statement and return its rows as columns. Raises what the reader raises."""
    if isinstance(reader, duckdb.DuckDBPyConnection):
        # Not `sql`, which binds a view twice: that is most of what a small answer costs.
        found = reader.execute(statement.sql, statement.sendable).fetchnumpy()
        return pa.table({name: _as_arrow(column) for name, column in found.items()})
    answer = _asked(reader, statement)
    columns = list(zip(*answer.rows, strict=True)) or [()] * len(answer.columns)
    names = [f"column_{number}" for number in range(len(columns))]
    return pa.table([pa.array(column) for column in columns], names=names)


def _as_arrow(column: npt.NDArray[Any]) -> pa.Array:
    if isinstance(column, np.ma.MaskedArray):
        return pa.array(column.data, mask=np.ma.getmaskarray(column))
    return pa.array(column)


def _asked(reader: Answering, statement: Statement) -> SqlAnswer:
    answer = reader.ask(statement.written)
    if answer.truncated:
        problem = f"the server gives no more than {len(answer.rows):,} rows at once"
        raise InputError(QUERY_PLACE, problem, "ask about less time, or with a longer step")
    return answer


def _whole(text: str) -> str:
    return text.encode("utf-8", "surrogatepass").decode("utf-8", "replace")


def _written(value: object) -> str:
    return literal(value.isoformat(" ") if isinstance(value, dt.datetime) else str(value))
