"""Compares results of expressions with those that an OAP gave (golden/README.md).

Run as a script it evaluates all recorded expressions and prints how many are equal.
"""

from __future__ import annotations

import datetime as dt
import gzip
import json
import sys
import tempfile
import tomllib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from golden_stores import GOLDEN, make_golden_store

from framewalk.engine import Store, load_plan, open_for_reading
from framewalk.queries.metrics import Buckets, Catalogue, EntityName, Step
from framewalk.queries.mqe import Entity, ExpressionResult, Request, evaluate_all

DIFFERENCES = GOLDEN / "mqe_differences.toml"
# Recorded after a start on an empty database.
EMPTY = "empty/"
NOT_COMPARABLE = "other names"
_FORMATS = {"MINUTE": "%Y-%m-%d %H%M", "HOUR": "%Y-%m-%d %H", "DAY": "%Y-%m-%d"}
_SCOPES = {"service": "Service", "service_instance": "ServiceInstance", "endpoint": "Endpoint"}


@dataclass(frozen=True)
class Recorded:
    """An expression that was asked, and what was answered."""

    name: str
    request: Request
    answer: Mapping[str, Any]


@dataclass(frozen=True)
class Difference:
    """Expressions whose results are meant to differ, in what, and why."""

    names: Sequence[str]
    kind: str
    differs_in: str
    reason: str

    def has(self, recorded: Recorded) -> bool:
        return any(fnmatchcase(recorded.name, one) for one in self.names)


@dataclass(frozen=True)
class Compared:
    """How an expression fares: `words` tell what differs that is not listed."""

    name: str
    difference: Difference | None = None
    words: str = ""


def recorded_expressions() -> Iterator[Recorded]:
    """Yield all expressions that got a result: what is no `Duration` is GraphQL's affair."""
    text = gzip.decompress((GOLDEN / "graphql.jsonl.gz").read_bytes()).decode()
    for one in map(json.loads, text.splitlines()):
        body = one["request"].get("body")
        is_one = isinstance(body, dict) and "result: execExpression" in body.get("query", "")
        result = one["answer"].get("data") if is_one else None
        if result and body.get("variables"):
            yield Recorded(one["id"], _request(body["variables"]), result["result"])


def _request(variables: Mapping[str, Any]) -> Request:
    duration, entity = variables["duration"], variables["entity"]
    form = _FORMATS[duration["step"]]
    first, last = (
        dt.datetime.strptime(duration[end], form).replace(tzinfo=dt.UTC).replace(tzinfo=None)
        for end in ("start", "end")
    )
    return Request(
        variables["expression"],
        Entity(
            entity.get("serviceName"),
            entity.get("normal"),
            entity.get("serviceInstanceName"),
            entity.get("endpointName"),
            entity.get("destServiceName"),
            entity.get("destNormal"),
            entity.get("destServiceInstanceName"),
            entity.get("destEndpointName"),
        ),
        Buckets.between(Step[duration["step"]], first, last),
    )


def listed_differences() -> list[Difference]:
    found = tomllib.loads(DIFFERENCES.read_text(encoding="utf-8"))["difference"]
    return [
        Difference(one["names"], one["kind"], one["differs_in"], one["reason"]) for one in found
    ]


def compare_all(full: Path, empty: Path) -> list[Compared]:
    """Evaluate all recorded expressions, on what the OAP was fed and on nothing."""
    known = listed_differences()
    compared = []
    for path, is_empty in ((full, False), (empty, True)):
        every = [one for one in recorded_expressions() if one.name.startswith(EMPTY) is is_empty]
        with open_for_reading(path) as cursor:
            found = evaluate_all(cursor, Catalogue.of(cursor), [one.request for one in every])
        compared += [
            _compared(one, as_answer(result), known)
            for one, result in zip(every, found, strict=True)
        ]
    return compared


def _compared(recorded: Recorded, ours: Mapping[str, Any], known: Sequence[Difference]) -> Compared:
    difference = next((one for one in known if one.has(recorded)), None)
    differs_in = "" if difference is None else difference.differs_in
    one, other = (plain(answer, differs_in) for answer in (ours, recorded.answer))
    if one != other:
        return Compared(recorded.name, difference, f"ours {one}, theirs {other}")
    # A pattern may have more names than differ.
    is_equal = plain(ours, "") == plain(recorded.answer, "")
    return Compared(recorded.name, None if is_equal else difference)


def as_answer(result: ExpressionResult) -> dict[str, Any]:
    """Return a result in the form of GraphQL."""
    results = []
    for series in result.series:
        count = len(series.values)
        columns = zip(
            series.ids or [None] * count, series.owners or [None] * count, series.texts, strict=True
        )
        values = [
            {"id": one, "owner": _owner(owner), "value": text} for one, owner, text in columns
        ]
        labels = [{"key": name, "value": value} for name, value in series.labels]
        results.append({"metric": {"labels": labels}, "values": values})
    return {"type": result.type.value, "results": results, "error": result.error}


def _owner(entity: EntityName | None) -> dict[str, Any] | None:
    if entity is None:
        return None
    service = EntityName.service(entity.service_name)
    is_instance, is_endpoint = (entity.scope == one for one in ("service_instance", "endpoint"))
    return {
        "scope": _SCOPES.get(entity.scope),
        "serviceID": service.id,
        "serviceName": service.own_name,
        "normal": True,
        "serviceInstanceID": entity.id if is_instance else None,
        "serviceInstanceName": entity.own_name if is_instance else None,
        "endpointID": entity.id if is_endpoint else None,
        "endpointName": entity.own_name if is_endpoint else None,
    }


def plain(answer: Mapping[str, Any], differs_in: str) -> object:
    """Return what is compared of an answer: errors without words, entities that tie as a set."""
    if differs_in == "everything":
        return None
    series = [
        (
            [(label["key"], label["value"]) for label in one["metric"]["labels"]],
            _plain_values(answer["type"], one["values"], differs_in),
        )
        for one in answer["results"]
    ]
    kind = None if differs_in == "type" else answer["type"]
    return kind, series, None if differs_in == "error" else bool(answer["error"])


def _plain_values(kind: str, values: Sequence[Mapping[str, Any]], differs_in: str) -> object:
    found = []
    for one in values:
        text = one["value"]
        if differs_in == "infinities" and text in {"∞", "-∞", "NaN"}:
            text = None
        entry = [text]
        if differs_in != "identifiers":
            entry += [one["id"], json.dumps(one["owner"], sort_keys=True)]
        found.append(entry)
    if kind != "SORTED_LIST" or differs_in == "identifiers":
        return found
    texts = [entry[0] for entry in found]
    # Which of the last that tie are in the list is chance, and so is the order of others.
    named = sorted((entry for entry in found if entry[0] != texts[-1]), key=str)
    return texts, named


def main() -> int:
    plan = load_plan()
    with tempfile.TemporaryDirectory() as folder:
        full, empty = Path(folder) / "full.duckdb", Path(folder) / "empty.duckdb"
        make_golden_store(full, plan)
        Store(empty, plan).close()
        compared = compare_all(full, empty)
    by_kind = Counter(one.difference.kind for one in compared if one.difference)
    wrong = [one for one in compared if one.words]
    comparable = len(compared) - by_kind[NOT_COMPARABLE]
    equal = sum(one.difference is None and not one.words for one in compared)
    print(f"MQE: {len(compared):,} recorded expressions, {equal:,} equal ", end="")  # noqa: T201
    print(f"({equal / comparable:.1%} of the {comparable:,} that can be compared)")  # noqa: T201
    for kind, count in by_kind.most_common():
        print(f"  {count:>4} {kind}")  # noqa: T201
    for one in wrong:
        print(f"  wrong: {one.name}: {one.words[:2_000]}")  # noqa: T201
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
