"""Compares answers with those that an OAP gave in GraphQL (tests/golden/README.md).

Run as a script it asks all requests and prints how many are equal.
"""

from __future__ import annotations

import gzip
import json
import re
import sys
import tempfile
import tomllib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from golden_stores import GOLDEN, opened_golden_store
from graphql_serving import Asked, served

from framewalk.engine import Plan, Store
from framewalk.engine.oal.files.definitions import load_plan

_EMPTY = "empty"
_RELEASE = re.compile(r"\d+\.\d+\.\d+")
# What no answer is compared in: the time of the request, and sentences, which are ours.
_MASKED = {"currentTimestamp", "message", "description", "documentLink"}
LEAST_EQUAL = 0.92
# The port of the OAP, which it tells.
PORT = 21_800
# In `apart_from`: what an OAP alone has, as its endpoints have the query in their names.
_WITH_QUERY = "names with a query"
_ATTRIBUTES = "attributes"


@dataclass(frozen=True)
class Difference:
    """Requests whose answers are meant to differ, and why; apart from some parts they are equal.

    `part` says whose answer is a part of the other, apart from these parts: "ours" or "theirs".
    """

    ids: tuple[str, ...]
    kind: str
    reason: str
    apart_from: frozenset[str]
    part: str = ""

    def has(self, request_id: str) -> bool:
        return any(fnmatchcase(request_id, one) for one in self.ids)

    @property
    def is_bounded(self) -> bool:
        """Whether it says where answers differ, and the rest is compared."""
        return bool(self.apart_from or self.part)


@dataclass(frozen=True)
class Compared:
    """How the answers to a request differ, and what explains it."""

    request_id: str
    difference: str
    listed: Difference | None
    left: str

    @property
    def is_right(self) -> bool:
        """Whether they are equal, or differ as they are meant to and in nothing else."""
        if self.listed is None or not self.difference:
            return not self.difference
        return not self.listed.is_bounded or not self.left

    def __str__(self) -> str:
        if self.listed is None:
            return f"{self.request_id}: {self.difference}"
        return f"{self.request_id}: ({self.listed.kind}) {self.left or self.difference}"


def recorded() -> list[dict[str, Any]]:
    text = gzip.decompress((GOLDEN / "graphql.jsonl.gz").read_bytes()).decode()
    return [json.loads(line) for line in text.splitlines()]


def differences() -> list[Difference]:
    found = tomllib.loads((GOLDEN / "graphql_differences.toml").read_text())["difference"]
    return [
        Difference(
            tuple(one["ids"]),
            one["kind"],
            one["reason"].strip(),
            frozenset(one.get("apart_from", ())),
            one.get("part", ""),
        )
        for one in found
    ]


def compared(
    full: Asked, empty: Asked, one: Mapping[str, Any], known: Iterable[Difference]
) -> Compared:
    """Ask a recorded request, and compare with what was answered."""
    request_id, request = str(one["id"]), one["request"]
    body = request.get("body")
    content = body if isinstance(body, str | None) else json.dumps(body)
    asked = empty if request_id.startswith(f"{_EMPTY}/") else full
    response = asked.send(
        request["method"], request["path"], content, **(request.get("headers") or {})
    )
    ours = response.status_code, _content(response.text)
    theirs = one["status"], one["answer"]
    listed = next((entry for entry in known if entry.has(request_id)), None)
    left = "" if listed is None else _difference(ours, theirs, listed.apart_from, listed.part)
    return Compared(request_id, _difference(ours, theirs, frozenset()), listed, left)


def _content(text: str) -> Any:  # noqa: ANN401
    try:
        return json.loads(text)
    except ValueError:
        return text


def _difference(
    ours: tuple[int, Any], theirs: tuple[int, Any], apart_from: frozenset[str], part: str = ""
) -> str:
    if ours[0] != theirs[0] and "status" not in apart_from:
        return f"status: ours {ours[0]}, theirs {theirs[0]}"
    if not isinstance(theirs[1], dict):
        # A sentence, with a status.
        return ""
    told = _attributes(theirs[1])
    one, other = (_plain(answer, apart_from, told) for _, answer in (ours, theirs))
    if one == other or (part and _is_part(*((one, other) if part == "ours" else (other, one)))):
        return ""
    shown = [json.dumps(answer, ensure_ascii=False, sort_keys=True) for answer in (one, other)]
    at = next((i for i, (a, b) in enumerate(zip(*shown, strict=False)) if a != b), 0)
    near = slice(max(0, at - 60), at + 120)
    return f"ours ..{shown[0][near]}.. theirs ..{shown[1][near]}.."


def _is_part(less: Any, more: Any) -> bool:  # noqa: ANN401
    """Whether all that one answer has is in another, which may have more in its lists."""
    if isinstance(less, dict) and isinstance(more, dict):
        return all(key in more and _is_part(inner, more[key]) for key, inner in less.items())
    if isinstance(less, list) and isinstance(more, list):
        whole = [json.loads(one) for one in more]
        return all(any(_is_part(json.loads(one), other) for other in whole) for one in less)
    return bool(less == more)


def _attributes(value: Any) -> frozenset[str]:  # noqa: ANN401
    """Return the names of the attributes of instances in an answer: labels of theirs."""
    if isinstance(value, dict):
        own = (one["name"] for one in value.get(_ATTRIBUTES) or ())
        return frozenset(own).union(*map(_attributes, value.values()))
    return frozenset().union(*map(_attributes, value)) if isinstance(value, list) else frozenset()


def _plain(value: Any, apart_from: frozenset[str], told: frozenset[str]) -> Any:  # noqa: ANN401
    """Return an answer as it is compared: lists without an order, errors without their words.

    Of attributes, those that the OAP has are compared: labels that only we have are left out.
    """
    if isinstance(value, dict):
        found = {
            key: _plain_field(key, inner, apart_from, told)
            for key, inner in value.items()
            if key not in apart_from and key not in _MASKED
        }
        if value.get("type") == "SORTED_LIST":
            lists = [one["values"] for one in value["results"]]
            found["results"] = [_plain(_without_ties(one), apart_from, told) for one in lists]
            if "in order" not in apart_from:
                found["in order"] = [entry["value"] for one in lists for entry in one]
        return found
    if isinstance(value, list):
        if value and isinstance(value[0], dict) and "refId" in value[0]:
            value = _without_ties(value)
        kept = (one for one in value if not _is_left_out(one, apart_from))
        return sorted(json.dumps(_plain(one, apart_from, told), sort_keys=True) for one in kept)
    return value


def _plain_field(
    key: str,
    value: Any,  # noqa: ANN401
    apart_from: frozenset[str],
    told: frozenset[str],
) -> Any:  # noqa: ANN401
    if key in {"errors", "error"}:
        return bool(value)
    if key == "version":
        return bool(_RELEASE.match(value))
    if key == _ATTRIBUTES:
        return sorted(one["value"] for one in value if one["name"] in told)
    return _plain(value, apart_from, told)


def _is_left_out(one: Any, apart_from: frozenset[str]) -> bool:  # noqa: ANN401
    if isinstance(one, str):
        return one in apart_from
    return _WITH_QUERY in apart_from and "?" in (one.get("name") or one.get("label") or "")


def _without_ties(entries: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return a list of entities without the names of those that tie with the last.

    Which of these are in a list is the storage's choice.
    """
    listed = list(entries)
    return [
        {"value": one["value"]} if one["value"] == listed[-1]["value"] else one for one in listed
    ]


def all_compared(plan: Plan, wanted: Iterable[Mapping[str, Any]]) -> Iterator[Compared]:
    """Ask recorded requests of a store of what the OAP was fed, and of an empty one."""
    known = differences()
    with (
        tempfile.TemporaryDirectory() as folder,
        opened_golden_store(Path(folder) / "full.duckdb", plan) as full,
        Store(":memory:", plan) as nothing,
        served(full.connection, shown_port=PORT) as one,
        served(nothing.connection, shown_port=PORT) as other,
    ):
        for request in wanted:
            yield compared(one, other, request, known)


def main() -> int:
    counts: dict[str, Counter[str]] = {}
    wrong = []
    unused = {(pattern, entry) for entry in differences() for pattern in entry.ids}
    for one in all_compared(load_plan(), recorded()):
        family = one.request_id.split("/")[0]
        told = "equal" if not one.difference else "equal apart from what is listed"
        if one.difference and (one.listed is None or not one.listed.is_bounded or one.left):
            told = "different, as listed" if one.is_right else "wrong"
        counts.setdefault(family, Counter())[told] += 1
        if one.difference:
            unused = {
                (pattern, entry)
                for pattern, entry in unused
                if not (entry == one.listed and fnmatchcase(one.request_id, pattern))
            }
        if not one.is_right:
            wrong.append(str(one))
    wrong += [
        f"listed, but all are equal: {pattern}"
        for pattern in sorted({pattern for pattern, _ in unused})
    ]
    for family, found in sorted(counts.items()):
        print(f"{family}: {', '.join(f'{found[name]} {name}' for name in sorted(found))}")  # noqa: T201
    total = sum(counts.values(), Counter())
    equal = total["equal"] / total.total()
    shown = ", ".join(f"{total[name]:,} {name}" for name in sorted(total))
    print(f"GraphQL: {total.total():,} requests, {shown} ({equal:.1%} equal)")  # noqa: T201
    print(*wrong, sep="\n")  # noqa: T201
    return 1 if wrong or equal < LEAST_EQUAL else 0


if __name__ == "__main__":
    sys.exit(main())
