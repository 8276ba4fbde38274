"""`framewalk mcp`: an agent asks a store, or the server that has it open."""

from __future__ import annotations

import contextlib
import datetime as dt
import threading
from importlib.util import find_spec
from typing import TYPE_CHECKING, Annotated, Final

import duckdb
import typer

from framewalk.cli.asking import Asking, Query, Said, stored_range
from framewalk.cli.console import say, warn
from framewalk.cli.ranges import Wanted, utc_now
from framewalk.cli.sources import (
    DEFAULT_STORE,
    Asked,
    CaOption,
    CertificateOption,
    KeyOption,
    ServerOption,
    StoreOption,
    TokenOption,
)
from framewalk.engine import open_for_reading
from framewalk.engine.errors import FramewalkError, InputError
from framewalk.engine.questions import places_of
from framewalk.queries import shipped_queries, with_values
from framewalk.queries.narrowing import readable
from framewalk.queries.reading import QUERY_PLACE, QueryError, Sandbox, SqlAnswer, one_line, secure

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from framewalk.cli.asking import Source
    from framewalk.queries.mcp import Answer
    from framewalk.queries.mcp import Asked as Question

_PACKAGE: Final = "mcp"
_COMMAND: Final = "framewalk mcp"
_INSTALL: Final = "pip install 'framewalk[mcp]'"
_HOST: Final = "127.0.0.1"
_LONGEST_S: Final = 30.0
# One row more than any tool shows.
_MOST_ROWS: Final = 201
_DEFAULT_LAST: Final = "1h"
_RANGE: Final = ("since", "until")


def mcp(
    context: typer.Context,
    store: StoreOption = DEFAULT_STORE,
    http: Annotated[
        int | None,
        typer.Option(
            "--http",
            metavar="PORT",
            min=1,
            max=65535,
            help="Serve HTTP at this port of 127.0.0.1, path /mcp. Default: stdin and stdout.",
            show_default=False,
        ),
    ] = None,
    server: ServerOption = None,
    token: TokenOption = None,
    tls_ca: CaOption = None,
    tls_certificate: CertificateOption = None,
    tls_key: KeyOption = None,
) -> None:
    """Let an agent ask a store over the Model Context Protocol.

    Its tools only read: the map, one service or edge, what changed, what is slow
    or fails, unknown peers, and SQL. Each answer is short and has the SQL that
    made it.

    It needs the extra mcp: pip install 'framewalk[mcp]'
    """
    if find_spec(_PACKAGE) is None:
        problem = "the package mcp is not installed"
        raise InputError(_COMMAND, problem, _INSTALL)
    # Here, as it is an extra, and slow to load.
    from framewalk.queries.mcp import make_server  # noqa: PLC0415

    place = Asked(context, store, server, token, tls_ca, tls_certificate, tls_key)
    if server is None and not store.exists():
        warn(f"{store}: there is no such file; questions are answered when there is one")
    made = make_server(Stores(place, store))
    if http is None:
        made.run()
        return
    say(f"agents ask at http://{_HOST}:{http}/mcp")
    made.run("streamable-http", host=_HOST, port=http, stateless_http=True, json_response=True)


class Stores:
    """Answers each question from a server that runs by then, or from the file.

    The file is open only while it is asked: a server can start meanwhile.
    """

    def __init__(self, place: Asked, store: Path) -> None:
        """Ask what the options say."""
        self._place = place
        self._store = store
        self._one_at_a_time = threading.Lock()

    def answer(self, question: Question) -> Answer:
        """Return an answer. Raises AnswerError."""
        from framewalk.queries.mcp import Answer, AnswerError  # noqa: PLC0415

        try:
            with self._one_at_a_time:
                query, found = self._asked(question)
        except typer.BadParameter as error:
            raise AnswerError(error.message) from error
        except (FramewalkError, QueryError) as error:
            raise AnswerError(one_line(str(error))) from error
        shown = None if query.range is None else str(query.range)
        return Answer(query.text, shown, found.columns, found.rows, found.truncated)

    def _asked(self, question: Question) -> tuple[Query, SqlAnswer]:
        running = self._place.find_server()
        now = None if running is None else utc_now()
        is_shipped = question.query in shipped_queries()
        last = question.last
        has_range = is_shipped and "since" in shipped_queries()[question.query].places
        if has_range and not (last or question.since or question.until):
            last = _DEFAULT_LAST
        said = Said(
            Wanted.read(last, question.since, question.until),
            dict(question.values),
            question.limit if has_range else None,
        )
        with contextlib.ExitStack() as stack:
            source: Source = running or stack.enter_context(_guarded(self._store))
            if is_shipped:
                query = Asking(source, now, said).find(question.query)
            else:
                query = _own(source, now, question.query, said.wanted)
            return query, source.ask(query.text)


def _own(source: Source, now: dt.datetime | None, text: str, wanted: Wanted) -> Query:
    """Return SQL with its range filled in; unlike what is typed, it never names a file."""
    places = places_of(text)
    if strange := set(places) - set(_RANGE):
        problem = f"only $since and $until are filled in, and not ${min(strange)}"
        raise InputError(QUERY_PLACE, problem, "write the value")
    if not places:
        return Query(text)
    found = wanted.within(lambda: stored_range(source, now), now)
    return Query(with_values(text, found._asdict()), found)


class _Guarded:
    """A store that is read as a server would: one statement, that reads, and not for long."""

    def __init__(self, connection: duckdb.DuckDBPyConnection) -> None:
        self._connection = connection
        self._sandbox = Sandbox(connection)

    def ask(self, query: str) -> SqlAnswer:
        timer = threading.Timer(_LONGEST_S, self._connection.interrupt)
        timer.daemon = True
        timer.start()
        try:
            asked_for = readable(self._connection, self._sandbox.checked(self._connection, query))
            cursor = asked_for.run(self._connection, self._connection.execute)
            columns = [name for name, *_ in cursor.description or ()]
            rows = cursor.fetchmany(_MOST_ROWS)
            return SqlAnswer(columns, rows, truncated=len(rows) == _MOST_ROWS)
        except duckdb.InterruptException as error:
            problem = f"the query took longer than {_LONGEST_S:g} seconds; ask for less"
            raise QueryError(problem) from error
        except duckdb.Error as error:
            raise QueryError(one_line(str(error))) from error
        finally:
            timer.cancel()


@contextlib.contextmanager
def _guarded(store: Path) -> Iterator[_Guarded]:
    connection = open_for_reading(store)
    try:
        secure(connection)
        connection.execute("BEGIN TRANSACTION READ ONLY")
        yield _Guarded(connection)
    finally:
        connection.close()
