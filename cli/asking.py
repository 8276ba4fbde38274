"""What `framewalk sql` asks: what was typed and what the options say become SQL."""

from __future__ import annotations

from dataclasses import dataclass
from os.path import isfile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final, Protocol

import typer

from framewalk.cli.ranges import EPOCH, Range, Wanted
from framewalk.engine.errors import InputError
from framewalk.engine.questions import places_of
from framewalk.queries import asked, shipped_queries, with_values

if TYPE_CHECKING:
    import datetime as dt
    from collections.abc import Mapping, Sequence

    from framewalk.engine.questions import Question
    from framewalk.queries import Value
    from framewalk.queries.reading import SqlAnswer

ServiceOption = Annotated[
    str | None,
    typer.Option(
        "--service",
        metavar="NAME",
        help="Ask about this service, such as reviews.bookinfo.",
        show_default=False,
    ),
]
NamespaceOption = Annotated[
    str | None,
    typer.Option(
        "--namespace",
        metavar="NAME",
        help="Ask about the services of this namespace.",
        show_default=False,
    ),
]

_RANGE: Final = ("since", "until")
_OPTIONS: Final = {
    "since": "--from, --to or --last",
    "until": "--from, --to or --last",
    "service": "--service NAME",
    "namespace": "--namespace NAME",
}
# Rows of a list that is asked for without a limit.
PAGE: Final = 50


class Source(Protocol):
    """A store, or a server that has one open."""

    def ask(self, query: str) -> SqlAnswer:
        """Return the rows of a query."""
        ...


@dataclass(frozen=True, slots=True)
class Said:
    """What the options say: `limit` is None where they say nothing."""

    wanted: Wanted
    values: Mapping[str, Value]
    limit: int | None


@dataclass(frozen=True, slots=True)
class Query:
    """What is asked: the SQL, the range of time that it is about, the most rows to print."""

    text: str
    range: Range | None = None
    limit: int | None = None


class Asking:
    """Makes SQL of what was typed."""

    def __init__(self, source: Source, now: dt.datetime | None, said: Said) -> None:
        self._source = source
        self._now = now
        self._said = said

    def find(self, query: str) -> Query:
        """Return what is asked; raises BadParameter where the options do not go with it."""
        question = shipped_queries().get(query)
        if question is not None:
            return self._shipped(question)
        text = read_query(query)
        if self._is_view(text):
            return self._view(text)
        return self._own(text)

    def _shipped(self, question: Question) -> Query:
        self._check_use(question.name, question.places)
        self._check_given(question.needed)
        values, asked_range = self._filled(question.places)
        limit = self._said.limit
        is_whole = question.is_series and "service" in self._said.values
        if limit is None and "namespace" in question.places and not is_whole:
            limit = PAGE
        # One more tells that there are more.
        most = limit + 1 if limit else None
        return Query(asked(question, values, most), asked_range, limit or None)

    def _view(self, name: str) -> Query:
        self._check_use("a view", _RANGE)
        text = f"FROM {name}"
        places: tuple[str, ...] = ()
        if self._said.wanted.is_given:
            places = _RANGE
            text += " WHERE time_bucket >= $since AND time_bucket < $until"
        values, asked_range = self._filled(places)
        limit = self._said.limit or None
        text = with_values(text, values)
        return Query(text if limit is None else f"{text} LIMIT {limit + 1}", asked_range, limit)

    def _own(self, text: str) -> Query:
        if self._said.limit is not None:
            problem = "this is for views and shipped queries: write LIMIT into your own"
            raise typer.BadParameter(problem, param_hint="--limit")
        places = places_of(text)
        self._check_use("this query", places)
        self._check_given([place for place in places if place not in _RANGE])
        values, asked_range = self._filled(places)
        return Query(with_values(text, values) if places else text, asked_range)

    def _filled(self, places: tuple[str, ...]) -> tuple[dict[str, Value], Range | None]:
        values = dict(self._said.values)
        if not set(_RANGE) & set(places):
            return values, None
        found = self._said.wanted.within(lambda: stored_range(self._source, self._now), self._now)
        return values | found._asdict(), found

    def _check_use(self, what: str, places: Sequence[str]) -> None:
        """Raise BadParameter for options that would change nothing."""
        if self._said.wanted.is_given and not set(_RANGE) & set(places):
            problem = f"{what} has no range of time: no $since, no $until"
            raise typer.BadParameter(problem, param_hint="--last, --from, --to")
        for name in self._said.values:
            if name not in places:
                hint = f"--{name}" if name in _OPTIONS else f"--param {name}"
                problem = f"{what} has no ${name}"
                raise typer.BadParameter(problem, param_hint=hint)

    def _check_given(self, needed: Sequence[str]) -> None:
        """Raise BadParameter for places that nothing fills."""
        for name in needed:
            if name not in self._said.values:
                option = _OPTIONS.get(name, f"--param {name}=VALUE")
                problem = f"the query asks for ${name}, and nothing says what it is"
                raise typer.BadParameter(problem, param_hint=option)

    def _is_view(self, text: str) -> bool:
        if not text.isidentifier():
            return False
        views = "SELECT 1 FROM duckdb_views() WHERE NOT internal AND view_name = lower('{}')"
        return bool(self._source.ask(views.format(text)).rows)


def stored_range(source: Source, now: dt.datetime | None) -> Range:
    """Return the range of what there is; of nothing a moment."""
    ((since, until),) = source.ask(shipped_queries()["time_range"].query).rows
    moment = now or EPOCH
    return Range(since or moment, until or moment)


def values_of(
    service: str | None, namespace: str | None, parameters: Sequence[str]
) -> dict[str, Value]:
    """Return what the options fill in, by name; raises BadParameter."""
    named = {"service": service, "namespace": namespace}
    values: dict[str, Value] = {name: value for name, value in named.items() if value is not None}
    for text in parameters:
        name, equals, value = text.partition("=")
        name = name.strip().removeprefix("$")
        if not (equals and name.isidentifier()):
            problem = f"{text!r} is not a name and its value, such as metric=service_cpm"
            raise typer.BadParameter(problem, param_hint="--param")
        if name in _RANGE:
            problem = f"a time is given by {_OPTIONS[name]}"
            raise typer.BadParameter(problem, param_hint=f"--param {name}")
        if name in values:
            problem = "it is given twice"
            raise typer.BadParameter(problem, param_hint=f"--param {name}")
        values[name] = value
    return values


def lost_archive(place: Path | str, text: str) -> InputError | None:
    """Return the error of a store whose archive is gone, if that is what DuckDB says."""
    if ".parquet" not in text or "No files found" not in text:
        return None
    remedy = "put it back, or start a replay or a server with its new place"
    return InputError(place, "the archive of this store is not there", remedy)


def is_file(query: str) -> bool:
    """Tell a path from SQL that ends in a comment on one."""
    is_one_word = len(query.split()) == 1
    # pathlib's raises where a text is too long for a path.
    return query.endswith(".sql") and (is_one_word or isfile(query))  # noqa: PTH113


def read_query(query: str) -> str:
    """Return the SQL that is in a file, or the query itself."""
    if not is_file(query):
        return query
    try:
        return Path(query).read_text(encoding="utf-8")
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise InputError(query, reason, "check the path and its permissions") from error
    except UnicodeDecodeError as error:
        raise InputError(query, "this is not UTF-8 text", "save it as such") from error
