"""`framewalk sql`: ask a store, or the server that has it open."""

from __future__ import annotations

import re
from contextlib import ExitStack
from os.path import isfile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final, Protocol

import typer

from framewalk.cli.console import stdout, warn
from framewalk.cli.rows import Format, print_rows
from framewalk.cli.sources import (
    DEFAULT_STORE,
    Asked,
    CaOption,
    CertificateOption,
    KeyOption,
    ServerOption,
    StoreOption,
    TokenOption,
    open_store,
)
from framewalk.engine.errors import InputError
from framewalk.queries import shipped_queries
from framewalk.queries.reading import QUERY_PLACE, QueryError

if TYPE_CHECKING:
    from framewalk.queries.reading import SqlAnswer

_NO_COLUMN: Final = re.compile(r'column "?(\w+)"? not found')


class _Source(Protocol):
    def ask(self, query: str) -> SqlAnswer: ...


def _query_help() -> str:
    names = ", ".join(shipped_queries())
    return f"SQL, a file with SQL (*.sql), a view, or the name of a shipped query: {names}."


def sql(
    context: typer.Context,
    query: Annotated[str, typer.Argument(metavar="QUERY", help=_query_help(), show_default=False)],
    store: StoreOption = DEFAULT_STORE,
    output: Annotated[
        Format | None,
        typer.Option(
            "--format",
            "-f",
            help="How to print the rows. Default: table in a terminal, csv in a pipe.",
            show_default=False,
        ),
    ] = None,
    server: ServerOption = None,
    token: TokenOption = None,
    tls_ca: CaOption = None,
    tls_certificate: CertificateOption = None,
    tls_key: KeyOption = None,
) -> None:
    """Ask a store in SQL. It is only read, and a server may be writing it.

    Of several statements (a; b) all are run and the rows of the last one are printed; a server
    answers one at a time.

    Views: SCOPE_minute, SCOPE_hour and SCOPE_day of each scope; metrics, entities, metric_values.

    Scopes: service, service_instance and endpoint, and each with _relation.
    """
    query = _as_name(query)
    text = _find_query(query)
    asked = Asked(context, store, server, token, tls_ca, tls_certificate, tls_key)
    running = asked.find_server()
    with ExitStack() as stack:
        source: _Source = running or stack.enter_context(open_store(store))
        try:
            answer = source.ask(f"FROM {text}" if _is_view(source, text) else text)
        except QueryError as error:
            raise _explained(query, str(error)) from error
        except InputError as error:
            if error.place != QUERY_PLACE:
                raise
            raise InputError(_place(query), error.problem, error.remedy) from error
    if answer.truncated:
        remedy = "ask for less, or take a snapshot"
        warn(f"these are the first {len(answer.rows):,} rows, the server gives no more; {remedy}")
    form = output or (Format.TABLE if stdout.is_terminal else Format.CSV)
    print_rows(form, answer.columns, answer.rows)


def _as_name(query: str) -> str:
    """Return a name without the semicolon after it, and any other query as it is."""
    name = query.strip().rstrip("; \n")
    return name if _is_name(name) else query


def _is_name(query: str) -> bool:
    return query.replace("-", "_").isidentifier()


def _is_file(query: str) -> bool:
    """Tell a path from SQL that ends in a comment on one."""
    is_one_word = len(query.split()) == 1
    # pathlib's raises where a text is too long for a path.
    return query.endswith(".sql") and (is_one_word or isfile(query))  # noqa: PTH113


def _find_query(query: str) -> str:
    shipped = shipped_queries()
    if query in shipped:
        return shipped[query]
    if not _is_file(query):
        return query
    try:
        return Path(query).read_text(encoding="utf-8")
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise InputError(query, reason, "check the path and its permissions") from error
    except UnicodeDecodeError as error:
        raise InputError(query, "this is not UTF-8 text", "save it as such") from error


def _is_view(source: _Source, text: str) -> bool:
    if not text.isidentifier():
        return False
    views = "SELECT 1 FROM duckdb_views() WHERE NOT internal AND view_name = lower('{}')"
    return bool(source.ask(views.format(text)).rows)


def _place(query: str) -> str:
    named = query in shipped_queries() or _is_file(query)
    return query if named else QUERY_PLACE


def _explained(query: str, text: str) -> InputError:
    if "read-only mode" in text:
        problem = "this would change the store, and framewalk sql only reads"
        return InputError(_place(query), problem, "ask with SELECT or FROM")
    shipped = shipped_queries()
    missing = _NO_COLUMN.search(text)
    if query in shipped and missing:
        problem = f"this store has no metric {missing[1]}; it was made with other definitions"
        return InputError(query, problem, "ask for what `FROM metrics` lists")
    if query not in shipped and _is_name(query):
        names = ", ".join(shipped)
        problem = "there is no shipped query and no view of this name"
        return InputError(query, problem, f"there are {names}")
    return InputError(_place(query), text, "correct the query")
