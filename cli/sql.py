"""`framewalk sql`: ask a store, or the server that has it open."""

from __future__ import annotations

import re
from contextlib import ExitStack
from typing import TYPE_CHECKING, Annotated, Final

import typer

from framewalk.cli.asking import (
    PAGE,
    Asking,
    NamespaceOption,
    Query,
    Said,
    ServiceOption,
    Source,
    is_file,
    lost_archive,
    values_of,
)
from framewalk.cli.ranges import FromOption, LastOption, ToOption, Wanted, utc_now
from framewalk.cli.rows import FormatOption, print_answer
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
from framewalk.queries.reading import QUERY_PLACE, QueryError, SqlAnswer

if TYPE_CHECKING:
    from framewalk.engine.questions import Question

_NO_COLUMN: Final = re.compile(r'column "?(\w+)"? not found')


def _query_help() -> str:
    names = ", ".join(shipped_queries())
    return f"SQL, a file with SQL (*.sql), a view, or the name of a shipped query: {names}."


def sql(
    context: typer.Context,
    query: Annotated[str, typer.Argument(metavar="QUERY", help=_query_help(), show_default=False)],
    store: StoreOption = DEFAULT_STORE,
    output: FormatOption = None,
    last: LastOption = None,
    since: FromOption = None,
    until: ToOption = None,
    service: ServiceOption = None,
    namespace: NamespaceOption = None,
    parameters: Annotated[
        list[str] | None,
        typer.Option(
            "--param",
            "-p",
            metavar="NAME=VALUE",
            help="What $NAME in the query stands for; may be given several times.",
            show_default=False,
        ),
    ] = None,
    limit: Annotated[
        int | None,
        typer.Option(
            "--limit",
            "-n",
            metavar="ROWS",
            min=0,
            help=f"Print so many rows of a shipped query or a view; 0 is all. Default: {PAGE} of "
            "a shipped list.",
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

    Of several statements (a; b) all are run and the rows of the last one are
    printed; a server answers one at a time.

    Views: SCOPE_minute, SCOPE_hour and SCOPE_day of each scope; metrics,
    entities, metric_values.

    Scopes: service, service_instance and endpoint, and each with _relation.

    Macros: SCOPE_between(since, until), metric_values_of(metric, since, until);
    each shipped query that has a range is one, too.

    Of the last hour: framewalk sql service_map --last 1h

    Of a time (UTC): framewalk sql errors --from 2026-11-02T09:00 --to 2026-11-03

    Of a namespace: framewalk sql slowest_endpoints --namespace shop --limit 10

    Of one service: framewalk sql service_dashboard --service cart.shop

    By a metric: framewalk sql top_services -p metric=kubernetes_service_apdex

    Your own: framewalk sql 'FROM service_between($since, $until)' --last 30m
    """
    query = _as_name(query)
    said = Said(
        Wanted.read(last, since, until), values_of(service, namespace, parameters or ()), limit
    )
    place = Asked(context, store, server, token, tls_ca, tls_certificate, tls_key)
    found, answer = answer_of(query, said, place)
    print_answer(found, answer, output)


def answer_of(query: str, said: Said, place: Asked) -> tuple[Query, SqlAnswer]:
    """Ask a running server, or else the file: return what was asked, and its rows.

    Raises InputError where the query is at fault, StoreError where the file is.
    """
    running = place.find_server()
    now = None if running is None else utc_now()
    with ExitStack() as stack:
        source: Source = running or stack.enter_context(open_store(place.store))
        try:
            found = Asking(source, now, said).find(query)
            return found, source.ask(found.text)
        except QueryError as error:
            raise _explained(query, str(error)) from error
        except InputError as error:
            if error.place != QUERY_PLACE:
                raise
            raise InputError(_place(query), error.problem, error.remedy) from error


def _as_name(query: str) -> str:
    """Return a name without the semicolon after it, and any other query as it is."""
    name = query.strip().rstrip("; \n")
    return name if _is_name(name) else query


def _is_name(query: str) -> bool:
    return query.replace("-", "_").isidentifier()


def _place(query: str) -> str:
    named = query in shipped_queries() or is_file(query)
    return query if named else QUERY_PLACE


def _explained(query: str, text: str) -> InputError:
    if "read-only mode" in text:
        problem = "this would change the store, and framewalk sql only reads"
        return InputError(_place(query), problem, "ask with SELECT or FROM")
    if lost := lost_archive(_place(query), text):
        return lost
    if query in shipped_queries():
        return _of_shipped(shipped_queries()[query], text)
    missing = _NO_COLUMN.search(text)
    if missing and missing[1] == "time_bucket" and _is_name(query):
        problem = "this view has no time_bucket, and so no range of time"
        return InputError(query, problem, "ask it without --last, --from and --to")
    if _is_name(query):
        names = ", ".join(shipped_queries())
        problem = "there is no shipped query and no view of this name"
        return InputError(query, problem, f"there are {names}")
    return InputError(_place(query), text, "correct the query")


def _of_shipped(question: Question, text: str) -> InputError:
    name, missing = question.name, _NO_COLUMN.search(text)
    if question.is_of_archive and "_logs does not exist" in text:
        remedy = "have a replay or a server keep them (docs/archive.md)"
        return InputError(name, "this store has no logs", remedy)
    if "does not support the supplied arguments" in text:
        problem = "this store was last written by an earlier framewalk"
        return InputError(name, problem, "replay into it, or start a server on it, once")
    if missing:
        problem = f"this store has no metric {missing[1]}; it was made with other definitions"
        return InputError(name, problem, "ask for what `FROM metrics` lists")
    if "metric" in question.places and "COLUMNS" in text:
        problem = "there is no such metric of these entities"
        return InputError(name, problem, "name one that `FROM metrics` lists for their scope")
    return InputError(name, text, "correct the query")
