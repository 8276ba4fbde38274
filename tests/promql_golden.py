"""Compares answers of the Prometheus API with those that an OAP gave (tests/golden/README.md).

Run as a script it asks all requests and prints how many are equal.
"""

from __future__ import annotations

import json
import sys
import tempfile
import tomllib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from golden_stores import GOLDEN, opened_golden_store
from promql_serving import Asked, Json, asked

from framewalk.engine import Plan, Store
from framewalk.engine.oal.files.definitions import load_plan

_EMPTY = "empty/"


@dataclass(frozen=True)
class Difference:
    """Requests whose answers are meant to differ, and why."""

    ids: tuple[str, ...]
    kind: str
    reason: str
    apart_from: frozenset[str]

    def has(self, request_id: str) -> bool:
        return any(fnmatchcase(request_id, one) for one in self.ids)


def recorded() -> list[dict[str, Any]]:
    lines = (GOLDEN / "promql.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


def differences() -> list[Difference]:
    found = tomllib.loads((GOLDEN / "promql_differences.toml").read_text())["difference"]
    return [
        Difference(
            tuple(one["ids"]), one["kind"], one["reason"].strip(), frozenset(one["apart_from"])
        )
        for one in found
    ]


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
        if self.listed is None:
            return not self.difference
        return bool(self.difference) and (not self.listed.apart_from or not self.left)

    def __str__(self) -> str:
        if self.listed is None or not self.difference:
            return f"{self.request_id}: {self.difference or 'listed, but equal'}"
        return f"{self.request_id}: ({self.listed.kind}) {self.left or self.difference}"


def compared(store: Asked, one: Mapping[str, Any], known: Iterable[Difference]) -> Compared:
    """Ask a recorded request, and compare with what was answered."""
    request_id = str(one["id"])
    answers = ask(store, one)
    listed = next((entry for entry in known if entry.has(request_id)), None)
    left = "" if listed is None else _compared(*answers, listed.apart_from)
    return Compared(request_id, _compared(*answers, frozenset()), listed, left)


def ask(store: Asked, one: Mapping[str, Any]) -> tuple[Any, Any]:
    """Return what we answer to a recorded request, and what was answered; None is an error."""
    request = one["request"]
    if request["method"] == "POST":
        response = store.post(request["path"], request.get("form"))
    else:
        response = store.get(request["path"], request["query"])
    assert response.status_code != 500, response.text
    ours = _outcome(response.status_code, _content(response.text))
    return ours, _outcome(one["status"], one["answer"])


def _compared(ours: Json, theirs: Json, apart_from: frozenset[str]) -> str:
    if theirs is None or ours is None:
        return "" if theirs is ours else f"ours {_shown(ours)}, theirs {_shown(theirs)}"
    return _difference(ours, theirs, apart_from)


def _content(text: str) -> Json:
    try:
        return json.loads(text)
    except ValueError:
        return text


def _outcome(status: int, answer: Json) -> Json:
    """Return the data of an answer, None of an error."""
    if status >= 400:
        return None
    if not isinstance(answer, dict):
        return {"text": answer}
    return None if answer.get("error") else answer["data"]


def _shown(data: Json) -> str:
    return "an error" if data is None else json.dumps(data)[:300]


def _difference(ours: Json, theirs: Json, apart_from: frozenset[str]) -> str:
    if isinstance(theirs, dict) and "resultType" in theirs:
        return _of_results(ours, theirs, apart_from)
    if isinstance(theirs, dict) and "count" in theirs:
        same = len(ours) == theirs["count"]
        return "" if same else f"{len(ours)} are not {theirs['count']}"
    if isinstance(theirs, list) and theirs and isinstance(theirs[0], dict):
        labels = {name for one in theirs for name in one}
        sets = [_label_sets(one, labels) for one in (ours, theirs)]
        return "" if sets[0] == sets[1] else f"{_shown(ours)} are not {_shown(theirs)}"
    if isinstance(theirs, list):
        return "" if sorted(ours) == sorted(theirs) else f"{_shown(ours)} is not {_shown(theirs)}"
    return "" if ours == theirs else f"{_shown(ours)} is not {_shown(theirs)}"


def _label_sets(series: Iterable[Mapping[str, Any]], labels: set[str]) -> Counter[Any]:
    return Counter(_labels(one, labels) for one in series)


def _labels(one: Mapping[str, Any], labels: set[str]) -> frozenset[tuple[str, str]]:
    return frozenset((name, one[name]) for name in labels if one.get(name) is not None)


def _of_results(ours: Json, theirs: Json, apart_from: frozenset[str]) -> str:
    if ours["resultType"] != theirs["resultType"]:
        return f"{ours['resultType']} is no {theirs['resultType']}"
    if theirs["resultType"] == "scalar":
        return _of_points([ours["result"][1:]], [theirs["result"][1:]])
    names = {name for one in theirs["result"] for name in one.get("metric", ())}
    if "name" in apart_from:
        names.discard("__name__")
    found = dict(_series(ours["result"], names))
    wanted = dict(_series(theirs["result"], names))
    if "empty" in apart_from:
        wanted = {key: points for key, points in wanted.items() if points}
    if len(found) != len(ours["result"]) or found.keys() != wanted.keys():
        return f"series {sorted(map(sorted, found))} are not {sorted(map(sorted, wanted))}"
    start = 1 if "time" in apart_from else 0
    told = (
        _of_points([one[start:] for one in found[key]], [one[start:] for one in points])
        for key, points in wanted.items()
    )
    return next(filter(None, told), "")


def _series(result: Json, names: set[str]) -> Iterator[tuple[Any, Any]]:
    for one in result:
        points = one["values"] if "values" in one else [one["value"]]
        yield _labels(one.get("metric", {}), names), points


def _of_points(ours: Json, theirs: Json) -> str:
    same = len(ours) == len(theirs) and all(map(_same_point, ours, theirs))
    return "" if same else f"{_shown(ours)} are not {_shown(theirs)}"


def _same_point(ours: Json, theirs: Json) -> bool:
    """Compare times, and numbers at the decimals that are recorded, cut or rounded."""
    *our_time, our_text = ours
    *their_time, their_text = theirs
    if our_time != their_time:
        return False
    if our_text == their_text:
        return True
    try:
        number, wanted = float(our_text), float(their_text)
    except ValueError:
        return False
    decimals = len(their_text.partition(".")[2])
    cut = int(number * 10**decimals) / 10**decimals
    return wanted in {round(number, decimals), cut}


@contextmanager
def answering(path: Path, plan: Plan) -> Iterator[Callable[[Mapping[str, Any]], Asked]]:
    """Give what answers a recorded request: the store of the captures, or an empty one.

    That of the captures is made if there is none at `path`.
    """
    with (
        opened_golden_store(path, plan) as full,
        Store(":memory:", plan) as empty,
        asked(full.connection) as of_full,
        asked(empty.connection) as of_empty,
    ):
        yield lambda one: of_empty if str(one["id"]).startswith(_EMPTY) else of_full


def tell(line: str) -> None:
    sys.stdout.write(f"{line}\n")


def main() -> int:
    known = differences()
    with (
        tempfile.TemporaryDirectory() as folder,
        answering(Path(folder) / "golden.duckdb", load_plan()) as store_of,
    ):
        found = [compared(store_of(one), one, known) for one in recorded()]
    wrong = [one for one in found if not one.is_right]
    listed = Counter(one.listed.kind for one in found if one.listed and one.difference)
    equal = sum(not one.difference for one in found)
    tell(f"promql: {equal} of {len(found)} equal, {sum(listed.values())} differ as listed")
    for kind, count in listed.most_common():
        tell(f"  {count:4} {kind}")
    for one in wrong:
        tell(f"  not as listed: {one}")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
