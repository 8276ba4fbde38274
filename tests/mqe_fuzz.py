"""Malformed and odd expressions of MQE; a seed makes the same ones.

    python tests/mqe_fuzz.py 100000 [SEED]

evaluates so many malformed ones, and as many as come between them that are none, of arrays that
are made, 2,000 of each seed. What is malformed is told with its place, and is so where a slow
reader says it is; all else has an answer.
"""

from __future__ import annotations

import random
import re
import sys
from collections import Counter

from fuzzing import run
from mqe_store import MadeStore
from reference.mqe import Data, Reference
from reference.mqe_values import FaultError

from framewalk.queries.mqe import Entity, Request, evaluate_all

DATA = Data(
    {"cpm": {"a": [1.0, 2.0, None]}, "time": {"a": [4.0, None, 6.0]}},
    {"pct": {"a": {(("p", "50"),): [1.0, None, 3.0]}}},
    before=1,
    count=2,
    start_ms=1_793_610_060_000,
)
VALID = [
    "cpm{p='50,99', q=\"x\"} / 60 - avg(time)",
    "(avg(cpm) < 9500.5) * (latest(time) > bool 1) == 1 && 5xx >= 2 || 1 != 2",
    "top_n_of(top_n(cpm, 2, des, attr0='K8S_SERVICE', attr5!='x'), top_n(time,2,ASC), 2, des)",
    "relabels(aggregate_labels(pct, sum(p, q)), p='50,99', percentile='P50,P99')",
    "sort_label_values(sort_values(pct, 1, asc, max), des, p, q) % 2",
    "view_as_seq(round(abs(cpm), 2), ceil(rate(cpm, 1)), floor(increase(time, 1)))",
    "is_present(baseline(cpm, upper), count(pct), min(1), sum(2))",
    "aggregate_labels(pct{p='50'}, avg)",
]
PIECES = [
    *"()[]{},='\"+-*/%<>!&|;:.?#@$\\ \t\n\r0123456789aezAZ_",
    *("==", "!=", "<=", ">=", "&&", "||", "avg(", "top_n", "'", "des", "bool", "value", "attr1"),
    *("1.5", "99999999999999999999", "ä", "é́", "\x00", "\ud800", "😀", "٣", "{}", "NaN", "(" * 20),
]
PLACE = re.compile(r"line \d+:\d+ ")


def mutated(chance: random.Random) -> str:
    text = chance.choice(VALID)
    for _ in range(chance.randint(1, 3)):
        at, end = sorted(chance.choices(range(len(text) + 1), k=2))
        piece = chance.choice(PIECES) if chance.random() < 0.7 else ""
        text = text[:at] + piece + text[min(end, at + chance.randint(0, 12)) :]
    return text


def is_expression(text: str) -> bool:
    try:
        Reference(text, DATA, "a").read_all()
    except FaultError:
        return False
    return True


def ask_all(seed: int, wanted: int) -> Counter[str]:
    """Evaluate expressions until so many were malformed, and return how often what came."""
    store, chance = MadeStore(DATA), random.Random(seed)  # noqa: S311 - repeatable
    malformed, texts = 0, []
    while malformed < wanted:
        texts.append(mutated(chance))
        malformed += not is_expression(texts[-1])
    requests = [Request(text, Entity("a", normal=True), store.buckets) for text in texts]
    found = evaluate_all(store.cursor, store.catalogue, requests)
    outcomes: Counter[str] = Counter()
    for text, result in zip(texts, found, strict=True):
        is_told = PLACE.match(result.error or "") is not None
        assert is_told is not is_expression(text), (text, result.error)
        assert not (is_told and result.series)
        for series in result.series:
            assert len(series.texts) == len(series.values)
        outcomes["malformed" if is_told else "refused" if result.error else "answered"] += 1
    return outcomes


if __name__ == "__main__":
    sys.exit(run(ask_all))
