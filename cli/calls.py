"""`framewalk calls`: who called whom for what, out of the logs that a store's archive has."""

from __future__ import annotations

import datetime as dt
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Final

import duckdb
import typer

from framewalk.cli.asking import PAGE, Asking, Query, Said, lost_archive
from framewalk.cli.ranges import EPOCH, FromOption, LastOption, Range, ToOption, Wanted
from framewalk.cli.rows import FormatOption, print_answer
from framewalk.cli.sources import DEFAULT_STORE, StoreOption, open_store
from framewalk.engine.calls import (
    ARCHIVED_COLUMNS,
    WINDOW_NS,
    archived_logs,
    calls_of,
    edges_of,
)
from framewalk.engine.errors import InputError, StoreLockedError
from framewalk.queries.reading import QueryError, SqlAnswer, one_line

if TYPE_CHECKING:
    import polars as pl

    from framewalk.cli.sources import StoreFile
# They are in memory together, with all that they are compared by: some 2 GB.
_MOST_LOGS: Final = 2_000_000
_HAS_SAMPLE: Final = "of these logs a sample is left, and calls are not told by a sample"
_ASK_STORE: Final = (
    "ask the store, which has them of all: framewalk sql endpoint_map; or about later hours"
)
_HAS_LOGS: Final = "SELECT 1 FROM duckdb_views() WHERE view_name = 'http_logs'"
# Logs near the range take part in its calls.
_AROUND: Final = f"INTERVAL {WINDOW_NS // 10**9} SECONDS"
_RANGE: Final = (
    f'"time" >= $since::TIMESTAMP - {_AROUND} AND "time" < $until::TIMESTAMP + {_AROUND}'
)
_LOGS: Final = f"SELECT {ARCHIVED_COLUMNS} FROM http_logs WHERE {_RANGE}"  # noqa: S608 - constants
# An earlier version made views without weights, and left out no requests.
_HAS_WEIGHTS: Final = (
    "SELECT 1 FROM duckdb_columns() WHERE table_name = 'http_logs' AND column_name = 'weight'"
)
_SAMPLED: Final = f"SELECT 1 FROM http_logs WHERE weight > 1 AND {_RANGE} LIMIT 1"  # noqa: S608


def calls(
    store: StoreOption = DEFAULT_STORE,
    output: FormatOption = None,
    last: LastOption = None,
    since: FromOption = None,
    until: ToOption = None,
    limit: Annotated[
        int,
        typer.Option("--limit", "-n", metavar="ROWS", min=0, help="Print so many rows; 0 is all."),
    ] = PAGE,
) -> None:
    """Say who called whom for what: each call once, of both its logs.

    The request that a call was made for is told by its trace (exact) or by
    time alone (inferred), else it is unknown.

    The store needs an archive of logs (framewalk replay --archive). Beside a
    running server ask a snapshot.

    Of the last hour: framewalk calls --last 1h
    """
    said = Said(Wanted.read(last, since, until), {}, None)
    try:
        with open_store(store) as source:
            if not source.ask(_HAS_LOGS).rows:
                problem = "this store has no logs, and so no calls"
                raise InputError(store, problem, "make it with framewalk replay --archive")
            found = Asking(source, None, said).find(_LOGS)
            _check_size(source, found)
            sampled = Asking(source, None, said).find(_SAMPLED).text
            if source.ask(_HAS_WEIGHTS).rows and source.ask(sampled).rows:
                raise InputError(str(found.range), _HAS_SAMPLE, _ASK_STORE)
            rows = source.interruptible(lambda connection: connection.sql(found.text).pl())
    except (QueryError, duckdb.Error) as error:
        text = one_line(str(error))
        other = InputError(store, text, "check its archive")
        raise lost_archive(store, text) or other from error
    except StoreLockedError as error:
        remedy = "ask a copy of it (`framewalk snapshot`)"
        raise StoreLockedError(store, error.problem, remedy) from error
    asked = found.range or Range(EPOCH, EPOCH)
    edges = edges_of(_within(calls_of(archived_logs(rows)), asked))
    answer = SqlAnswer(edges.columns, edges.rows())
    print_answer(replace(found, limit=limit or None), answer, output)


def _check_size(source: StoreFile, query: Query) -> None:
    """Raise InputError for more logs than are put together at once."""
    ((logs,),) = source.ask(f"SELECT count(*) FROM ({query.text})").rows  # noqa: S608 - our own
    if logs > _MOST_LOGS:
        problem = f"these are {logs:,} logs, and at most {_MOST_LOGS:,} are put together at once"
        raise InputError(str(query.range), problem, "ask about less time")


def _within(calls: pl.DataFrame, asked: Range) -> pl.DataFrame:
    """Return the calls that count in the range."""
    times_ns, since_ns, until_ns = calls["time_ns"], _ns(asked.since), _ns(asked.until)
    return calls.filter((times_ns >= since_ns) & (times_ns < until_ns))


def _ns(time: dt.datetime) -> int:
    return (time - EPOCH) // dt.timedelta(microseconds=1) * 1000
