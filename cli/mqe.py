"""`framewalk mqe`: ask a store, or the server that has it open, by an MQE expression."""

from __future__ import annotations

import datetime as dt
from contextlib import ExitStack
from dataclasses import dataclass
from enum import StrEnum
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from framewalk.cli.asking import stored_range
from framewalk.cli.console import say, stdout
from framewalk.cli.ranges import (
    FromOption,
    LastOption,
    Range,
    ToOption,
    Wanted,
    shown,
    utc_now,
)
from framewalk.cli.rows import Format, FormatOption, Rows, print_rows
from framewalk.cli.sources import (
    DEFAULT_STORE,
    Asked,
    CaOption,
    CertificateOption,
    KeyOption,
    ServerOption,
    StoreFile,
    StoreOption,
    TokenOption,
    open_store,
)
from framewalk.engine.errors import InputError
from framewalk.queries.metrics import Buckets, Catalogue, Step
from framewalk.queries.mqe import (
    Entity,
    ExpressionError,
    ExpressionResult,
    Request,
    ResultType,
    evaluate_all,
    explain,
    parse,
)
from framewalk.queries.reading import QueryError

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import TypeAlias

    from framewalk.cli.asking import Source
    from framewalk.queries.metrics import Reader, Statement
    from framewalk.queries.mqe import ResultSeries

    _Answer: TypeAlias = Callable[[Request, Reader], ExpressionResult | list[Statement]]

_EXPLAIN: Final = "explain"
_DEFAULT_LAST: Final = "1h"
# More buckets than this are shown by the next longer step; an OAP has the same bound.
_MOST_BUCKETS: Final = 500
# Entities as expressions name them, and the options that do.
_OPTIONS: Final = {
    "destServiceName": "--dest-service",
    "serviceName": "--service",
    "destServiceInstanceName": "--dest-instance",
    "serviceInstanceName": "--instance",
    "destEndpointName": "--dest-endpoint",
    "endpointName": "--endpoint",
}


class StepName(StrEnum):
    """How long a bucket is."""

    MINUTE = "minute"
    HOUR = "hour"
    DAY = "day"


def _named(option: str, text: str) -> Any:  # noqa: ANN401 - as typer declares it
    return typer.Option(option, metavar="NAME", help=text, show_default=False)


def mqe(
    context: typer.Context,
    words: Annotated[
        list[str],
        typer.Argument(
            metavar="[explain] EXPRESSION",
            help="An MQE expression. With explain before it, print the SQL that is run for it.",
            show_default=False,
        ),
    ],
    store: StoreOption = DEFAULT_STORE,
    output: FormatOption = None,
    last: LastOption = None,
    since: FromOption = None,
    until: ToOption = None,
    step: Annotated[
        StepName | None,
        typer.Option(
            "--step",
            help=f"How long a bucket is. Default: the shortest of which there are at most "
            f"{_MOST_BUCKETS}.",
            show_default=False,
        ),
    ] = None,
    service: Annotated[
        str | None, _named("--service", "The service, or of a relation the one that calls.")
    ] = None,
    instance: Annotated[str | None, _named("--instance", "The instance of the service.")] = None,
    endpoint: Annotated[str | None, _named("--endpoint", "The endpoint of the service.")] = None,
    dest_service: Annotated[
        str | None, _named("--dest-service", "Of a relation the service that is called.")
    ] = None,
    dest_instance: Annotated[str | None, _named("--dest-instance", "The instance of that.")] = None,
    dest_endpoint: Annotated[str | None, _named("--dest-endpoint", "The endpoint of that.")] = None,
    server: ServerOption = None,
    token: TokenOption = None,
    tls_ca: CaOption = None,
    tls_certificate: CertificateOption = None,
    tls_key: KeyOption = None,
) -> None:
    """Ask a store by an MQE expression, as SkyWalking's dashboards do.

    The metric says what it is about: of a service name --service, of an
    instance --instance, too; of a relation --dest-service. Without --last,
    --from and --to it is about the last hour.

    A mean: framewalk mqe 'avg(kubernetes_service_http_call_time)' --service cart.shop

    A list: framewalk mqe 'top_n(kubernetes_service_http_call_cpm, 5, des)' --last 6h

    Its SQL: framewalk mqe explain 'avg(kubernetes_service_apdex)' --service cart.shop
    """
    expression = _expression(words)
    wanted = Wanted.read(last, since, until)
    entity = Entity(
        service,
        None if service is None else True,
        instance,
        endpoint,
        dest_service,
        None if dest_service is None else True,
        dest_instance,
        dest_endpoint,
    )
    place = Asked(context, store, server, token, tls_ca, tls_certificate, tls_key)
    running = place.find_server()
    now = None if running is None else utc_now()
    answer: _Answer = _statements if len(words) > 1 else _evaluated
    with ExitStack() as stack:
        source = running or stack.enter_context(open_store(store))
        try:
            buckets = _buckets(source, wanted, now, step)
            asked = partial(answer, Request(expression, entity, buckets))
            found = source.read(asked) if isinstance(source, StoreFile) else asked(source)
        except QueryError as error:
            problem = f"the store does not answer: {error}"
            raise InputError(expression, problem, "check that framewalk made it") from error
    if isinstance(found, list):
        _print_statements(found)
    elif found.error is not None:
        raise _explained(expression, found.error)
    else:
        _print(buckets, found, output)


def _statements(request: Request, reader: Reader) -> list[Statement]:
    return explain(reader, Catalogue.of(reader), [request])


def _evaluated(request: Request, reader: Reader) -> ExpressionResult:
    return evaluate_all(reader, Catalogue.of(reader), [request])[0]


def _expression(words: list[str]) -> str:
    """Return the expression; raises BadParameter and InputError."""
    if len(words) > 2 or (len(words) > 1 and words[0] != _EXPLAIN):  # noqa: PLR2004 - as below
        problem = "one expression is asked for at a time: put it in quotes"
        raise typer.BadParameter(problem, param_hint="EXPRESSION")
    expression = words[-1]
    try:
        parse(expression)
    except ExpressionError as error:
        raise _explained(expression, str(error)) from error
    return expression


def _explained(expression: str, problem: str) -> InputError:
    missing = [option for name, option in _OPTIONS.items() if f" {name}" in problem]
    if missing:
        needs = " and ".join(sorted(missing))
        return InputError(expression, f"its entity is not named by {needs}", f"give {needs}")
    # A sentence of the protocol may have a second one that says what to do.
    what, _, remedy = problem.removesuffix(".").partition(". ")
    return InputError(expression, what, remedy or "correct the expression (docs/mqe.md)")


def _buckets(
    source: Source, wanted: Wanted, now: dt.datetime | None, step: StepName | None
) -> Buckets:
    if not wanted.is_given:
        wanted = Wanted.read(_DEFAULT_LAST, None, None)
    asked = wanted.within(lambda: stored_range(source, now), now)
    # What is before the end, and never less than one bucket.
    end = max(asked.since, asked.until - dt.timedelta(microseconds=1))
    every = [Buckets.between(one, asked.since, end) for one in Step]
    if step is not None:
        return every[list(StepName).index(step)]
    return next((one for one in every if one.count <= _MOST_BUCKETS), every[-1])


def _print_statements(statements: list[Statement]) -> None:
    if not statements:
        say("nothing is read for this")
    for statement in statements:
        typer.echo(f"{statement.written};")


@dataclass(frozen=True, slots=True)
class _Table:
    """What is printed of a result."""

    columns: list[str]
    rows: Rows


def _print(buckets: Buckets, found: ExpressionResult, output: Format | None) -> None:
    form = output or (Format.TABLE if stdout.is_terminal else Format.CSV)
    step = buckets.step.resolution
    say(f"{Range(buckets.first, buckets.end)} by {step}")
    about = {
        "from": shown(buckets.first),
        "to": shown(buckets.end),
        "step": step,
        "type": found.type.value,
    }
    table = _TABLES[found.type](found, buckets)
    print_rows(form, table.columns, table.rows, about)


def _of_series(found: ExpressionResult, buckets: Buckets) -> _Table:
    columns = [_numbers(one) for one in found.series]
    rows: Rows = list(zip(buckets.times, *columns, strict=True)) if columns else []
    names = [_labels(one) or "value" for one in found.series]
    return _Table(["time", *names], rows)


def _of_singles(found: ExpressionResult, _buckets: Buckets) -> _Table:
    is_named = any(one.labels for one in found.series)
    rows: Rows = [(*((_labels(one),) if is_named else ()), *_numbers(one)) for one in found.series]
    return _Table([*(("labels",) if is_named else ()), "value"], rows)


def _of_list(found: ExpressionResult, _buckets: Buckets) -> _Table:
    rows: Rows = [
        (name, *(["" if not one.labels else _labels(one)] if found.is_labelled else []), value)
        for one in found.series
        for name, value in zip(one.ids, _numbers(one), strict=True)
    ]
    return _Table(["name", *(["labels"] if found.is_labelled else []), "value"], rows)


_TABLES: Final = {
    ResultType.TIME_SERIES_VALUES: _of_series,
    ResultType.SINGLE_VALUE: _of_singles,
    ResultType.SORTED_LIST: _of_list,
}


def _labels(series: ResultSeries) -> str:
    return ",".join(f"{name}={value}" for name, value in series.labels)


def _numbers(series: ResultSeries) -> list[float | int | None]:
    """Return values with at most three decimals, as the protocol has them."""
    return [
        None if text is None else float(text) if "." in text else int(text) for text in series.texts
    ]
