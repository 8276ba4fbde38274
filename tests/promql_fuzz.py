"""Malformed and odd requests of the Prometheus API, of every kind; a seed makes the same ones.

    python tests/promql_fuzz.py 100000 [SEED]

asks so many of a store of what the OAP was fed, 2,000 of each seed, and counts the statuses.
"""

from __future__ import annotations

import json
import random
import sys
from collections import Counter
from collections.abc import Iterator
from http.client import HTTPConnection
from itertools import islice
from typing import Any
from urllib.parse import urlencode

from fuzzing import ask_together, fuzz
from promql_serving import Asked, asked

_CPM = "kubernetes_service_http_call_cpm"
_MEAN = "kubernetes_service_http_call_time"
_PERCENTILE = "kubernetes_service_percentile"
_OF_PRODUCTPAGE = f'{_CPM}{{service="productpage.bookinfo"}}'
# 13:55 to 14:05 of the recorded captures, and 14:02.
_START, _END, _NOW = "1795874100", "1795874700", "1795874520"
_PIECES = [
    _CPM, _MEAN, _PERCENTILE, "service_traffic", "{", "}", "(", ")", "[5m]", "[1h:1m]", "[", "]",
    ",", '"', "'", "`", "\\", "\\\\", "=", "!=", "=~", "!~", "+", "-", "*", "/", "%", "^", "==",
    ">", " and ", " or ", " unless ", " bool ", " on (service)", " ignoring ()", " group_left ",
    "sum", " by (p)", " without ", "topk(2, ", "quantile(0.5,", 'count_values("a",', "rate(",
    "abs(", "label_replace(", "avg_over_time(", "absent(", "scalar(", "vector(", "time()",
    " offset 5m", " offset -5m", " @ end()", " @ 1e9", "NaN", "Inf", "-1", "1e308", "0x1f",
    "1e999", "3", "service", 'service="a"', 'service=~".*"', 'service=~"["', "p='50,99'",
    "top_n='3'", "top_n='-1'", "order='ASC'", "parent_service='a'", "__name__",
    '__name__=~".+"', "layer", "\x00", "\n", "#", "é", "\u2028", "\U0001f600", ";", "--",
    "DROP TABLE metrics", "$1", "%s",
]  # fmt: skip
_QUERIES = [
    _CPM, _OF_PRODUCTPAGE, f"sum by (namespace) (rate({_CPM}[5m]))",
    f"{_CPM} / on(service) {_MEAN}", f'{_PERCENTILE}{{p=~"50|99"}} > 10',
    f"topk(3, max_over_time({_CPM}[10m] offset 2m))",
    f'label_replace({_CPM}, "a", "$1", "service", "(.*)")',
    f"{_CPM} and {_MEAN} or vector(1)", f'{_CPM}{{top_n="3",order="ASC"}}',
    "1 + 2 * time() ^ 0.5", f"{_CPM}[5m]", '"text"', f'count_values("v", {_CPM} > bool 100)',
    f"quantile(0.9, {_MEAN}) by (layer)",
    '{__name__=~"kubernetes_service_http.*",namespace!~"b.*"}',
    "service_traffic{layer='K8S_SERVICE'}",
]  # fmt: skip
_PATHS = [
    "query", "query_range", "query", "query_range", "query", "query_range", "series", "labels",
    "label/service/values", "label/p/values", "label/__name__/values", "label/%00/values",
    "metadata", "format_query", "parse_query",
]  # fmt: skip
_FORM = {"Content-Type": "application/x-www-form-urlencoded"}
_LENGTHS = ("step", "timeout", "limit")
_TIMES = [
    "0", "-1", _START, _END, _NOW, "1e300", "nan", "", "x", "2026-11-28T14:00:00Z", "1e-9", "é",
]  # fmt: skip
_SELECTORS = [
    _CPM, _MEAN, _OF_PRODUCTPAGE, f'{_PERCENTILE}{{p="99"}}', f'{_PERCENTILE}{{service!~"r.*"}}',
    "kubernetes_service_relation_client_http_call_cpm", "kubernetes_service_apdex", "no_such",
    "kubernetes_service_endpoint_call_cpm", "kubernetes_service_instance_http_call_time",
    f'{_CPM}{{top_n="2",parent_service="details.bookinfo"}}', "service_traffic{limit='2'}",
    '{__name__="kubernetes_service_http_call_cpm",namespace=""}',
]  # fmt: skip
_OVER_RANGES = [
    f"{one}_over_time" for one in
    ("avg", "sum", "min", "max", "count", "last", "present", "absent", "stddev", "stdvar", "mad")
] + ["delta", "deriv", "rate", "increase", "irate", "changes"]  # fmt: skip
_FUNCTIONS = [
    "abs", "ceil", "floor", "round", "sqrt", "exp", "ln", "log2", "log10", "sgn", "sort",
    "sort_desc", "scalar", "vector", "timestamp", "absent", "hour", "histogram_sum",
]  # fmt: skip
_AGGREGATIONS = ["sum", "avg", "min", "max", "count", "group", "stddev", "stdvar"]
_OPERATORS = ["+", "-", "*", "/", "%", "^", "atan2", "==", "!=", "> bool", "<=", "and", "or",
              "unless"]  # fmt: skip
_GROUPS = ["", "", " by (service)", " without (service)", " by (p, nobody)", " by ()"]
_MATCHINGS = [
    "",
    "",
    " on (service)",
    " ignoring (p)",
    " on () group_left",
    " on (service) group_right (layer)",
]
_NUMBERS = ["0", "1", "-1", "2.5", "NaN", "Inf", "-Inf", "1e308", "1e-320", "1e999", "time()"]
_RANGES = ["1s", "1m", "5m", "90s", "1h", "1d", "100y", "1ms"]


def requests(seed: int) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Yield methods, addresses and parameters, without an end."""
    draw = random.Random(seed)  # noqa: S311 - the same ones again are the point
    while True:
        text = _expression(draw) if draw.random() < 0.3 else _mixed(draw)
        yield draw.choice(["GET", "POST"]), draw.choice(_PATHS), _parameters(draw, text)


def _mixed(draw: random.Random) -> str:
    """Make a text of pieces that may fit together."""
    text = "".join(draw.choices(_PIECES, k=draw.randint(1, 9)))
    if draw.random() < 0.7:
        text = draw.choice(_QUERIES)
    for _ in range(draw.randint(0, 2)):
        first, end = sorted(draw.choices(range(len(text) + 1), k=2))
        if draw.random() < 0.5:
            end = min(end, first + 2)
            text = text[:first] + draw.choice([*_PIECES, "", "", ""]) + text[end:]
    return text


def _expression(draw: random.Random, depth: int = 0) -> str:
    """Make an expression that mostly parses, with odd values in it."""
    if depth > 2:
        return draw.choice([draw.choice(_SELECTORS), draw.choice(_NUMBERS)])
    return draw.choice(_MAKERS)(draw, depth + 1)


def _selected(draw: random.Random, _depth: int) -> str:
    shifts = "", "", "", " offset 5m", " offset -1d", f" @ {_NOW}", " @ start()"
    return draw.choice(_SELECTORS) + draw.choice(shifts)


def _number(draw: random.Random, _depth: int) -> str:
    return draw.choice(_NUMBERS)


def _over_range(draw: random.Random, _depth: int) -> str:
    ranged = f"{draw.choice(_SELECTORS)}[{draw.choice(_RANGES)}]"
    if draw.random() < 0.1:
        return f"quantile_over_time({draw.choice(_NUMBERS)}, {ranged})"
    return f"{draw.choice(_OVER_RANGES)}({ranged})"


def _called(draw: random.Random, depth: int) -> str:
    inner = _expression(draw, depth)
    if draw.random() < 0.2:
        return f"clamp({inner}, {', '.join(draw.choices(_NUMBERS, k=draw.randint(1, 3)))})"
    return f"{draw.choice(_FUNCTIONS)}({inner})"


def _aggregated(draw: random.Random, depth: int) -> str:
    return f"{draw.choice(_AGGREGATIONS)}{draw.choice(_GROUPS)} ({_expression(draw, depth)})"


def _ranked(draw: random.Random, depth: int) -> str:
    name = draw.choice(["topk", "bottomk", "quantile", "limitk", "count_values"])
    given = draw.choice([*_NUMBERS, "3", "3", f"scalar({_expression(draw, depth)})"])
    if name == "count_values":
        given = draw.choice(['"v"', '"service"', '"ä b"', '""'])
    return f"{name}{draw.choice(_GROUPS)} ({given}, {_expression(draw, depth)})"


def _combined(draw: random.Random, depth: int) -> str:
    how = draw.choice(_OPERATORS) + draw.choice(_MATCHINGS)
    return f"({_expression(draw, depth)}) {how} ({_expression(draw, depth)})"


def _labelled(draw: random.Random, depth: int) -> str:
    inner, label = _expression(draw, depth), draw.choice(["a", "p", ""])
    if draw.random() < 0.5:
        return f'label_join({inner}, "{label}", "-", "service", "layer")'
    pattern = draw.choice(["(.*)", "(", "(?P<x>.)(.*)", "", "r(.*)$"])
    return f'label_replace({inner}, "{label}", "$1x", "service", "{pattern}")'


_MAKERS = (
    _selected, _selected, _number, _over_range, _called, _aggregated, _ranked, _combined, _labelled,
)  # fmt: skip


def _parameters(draw: random.Random, text: str) -> dict[str, Any]:
    given: dict[str, Any] = {"query": text, "match[]": [text, draw.choice(_PIECES)], "metric": text}
    for name in ("time", "start", "end", "step", "timeout", "limit"):
        if draw.random() < 0.8:
            given[name] = "60" if name in _LENGTHS else draw.choice([_START, _END, _NOW])
        if draw.random() < 0.05:
            given[name] = draw.choice([*_TIMES, "3600", "86400", "1m", "5m1h"])
    return given


def ask_all(store: Asked, seed: int, count: int) -> Counter[int]:
    """Send requests, and return how often which status came; each answer is in its form."""

    def ask(client: HTTPConnection, request: tuple[int, tuple[str, str, dict[str, Any]]]) -> int:
        number, (method, path, given) = request
        address, form = f"/api/v1/{path}", urlencode(given, doseq=True)
        if method == "GET":
            client.request(method, f"{address}?{form}")
        else:
            client.request(method, address, form, _FORM)
        answer = client.getresponse()
        text = answer.read()
        told = seed, number, path, given, text
        assert answer.status in {200, 400, 404, 422, 503}, told
        content = json.loads(text)
        assert (content["status"] == "success") == (answer.status == 200), told
        assert answer.status == 200 or content["error"], told
        return answer.status

    return ask_together(store.port, enumerate(islice(requests(seed), count)), ask)


if __name__ == "__main__":
    sys.exit(fuzz(asked, ask_all))
