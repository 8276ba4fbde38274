"""Malformed and odd requests of GraphQL, of every kind; a seed makes the same ones.

    python tests/graphql_fuzz.py 100000 [SEED]

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

import graphql_golden
from fuzzing import ask_together, fuzz
from graphql import GraphQLInputObjectType, GraphQLList, GraphQLNonNull, get_named_type
from graphql_serving import Asked, served

from framewalk.queries.graphql.documents import schema

_TOKENS = (
    *"{}()[]:!$=@|&,#\"'\\",
    "...", "query", "mutation", "subscription", "fragment", "on", "true", "null", "__typename",
    "__schema", "execExpression", "duration", "1e999", "-0", "99999999999999999999", '"""',
    "\ufeff",
    "\u0000", "\ud83d", "Ü", "😀", "@skip(if: true)", "@include(if: 1)", "$d", "avg(", "top_n(",
)  # fmt: skip
_EXPRESSIONS = (
    "avg(kubernetes_service_http_call_cpm)", "kubernetes_service_percentile{p='50,99'}",
    "top_n(kubernetes_service_http_call_cpm,10,des)", "avg(", "1/0", "no_such", "((((1", "sum(1)",
    "increase(kubernetes_service_http_call_cpm,999999999)", "round(1, 99999999999)", "'", "=",
    "view_as_seq(no_such, kubernetes_service_apdex)", "a" * 300, "kubernetes_service_apdex{a='b'}",
)  # fmt: skip
_TEXTS = (
    "", " ", "productpage.bookinfo", "Unknown", "x' OR 1=1 --", "%", "_", "\u0000", "😀" * 50,
    "null",
    "cHJvZHVjdHBhZ2UuYm9va2luZm8=.1", "cHJvZHVjdHBhZ2UuYm9va2luZm8=.1_R0VUOi8=", "-", "_-_",
    "===.1",
    "2026-11-28 1355", "2026-11-28 1405", "2026-11-28", "0000-00-00", "9999-12-31 2359", "(", ".*",
    "kubernetes_service_http_call_cpm", "kubernetes_service_percentile", "K8S_SERVICE",
    "0001-01-01 0000",
)  # fmt: skip
_DURATIONS = (
    {"start": "2026-11-28 1355", "end": "2026-11-28 1405", "step": "MINUTE"},
    {"start": "2026-11-28 13", "end": "2026-11-28 15", "step": "HOUR"},
    {"start": "2026-11-28", "end": "2026-11-29", "step": "DAY"},
    {"start": "2026-11-28 135830", "end": "2026-11-28 135929", "step": "SECOND"},
    {"start": "0001-01-01", "end": "0001-01-02", "step": "DAY"},
    {"start": "9999-12-31 2359", "end": "9999-12-31 2359", "step": "MINUTE"},
)


def requests(seed: int) -> Iterator[tuple[bytes, str]]:
    """Yield bodies with their content types, without an end."""
    chosen = random.Random(seed)  # noqa: S311 - the same ones again are the point
    known = [one["request"] for one in graphql_golden.recorded()]
    bodies = [one["body"] for one in known if isinstance(one.get("body"), dict)]
    makers = (_cut_text, _mixed_tokens, _generated, _generated, _other_variables, _envelope)
    while True:
        yield chosen.choice(makers)(chosen, chosen.choice(bodies))


def _sent(content: Any) -> tuple[bytes, str]:  # noqa: ANN401
    return json.dumps(content).encode(), "application/json"


def _cut_text(chosen: random.Random, body: dict[str, Any]) -> tuple[bytes, str]:
    text = list(body["query"])
    for _ in range(chosen.randint(1, 4)):
        at = chosen.randrange(len(text) + 1)
        text[at : at + chosen.randint(0, 6)] = chosen.choice(("", chosen.choice(_TOKENS)))
    return _sent(body | {"query": "".join(text)})


def _mixed_tokens(chosen: random.Random, body: dict[str, Any]) -> tuple[bytes, str]:
    words = [*body["query"].split(), *chosen.choices(_TOKENS, k=chosen.randint(1, 30))]
    chosen.shuffle(words)
    return _sent({"query": " ".join(words[: chosen.randint(1, 60)])})


def _generated(chosen: random.Random, _body: dict[str, Any]) -> tuple[bytes, str]:
    """Make a document that mostly fits the schema, with odd values."""
    kind = schema().query_type if chosen.random() < 0.95 else schema().mutation_type
    assert kind is not None
    fields, declared, variables = [], [], {}
    for number in range(chosen.randint(1, 4)):
        name = chosen.choice(sorted(kind.fields))
        given = []
        for argument, one in kind.fields[name].args.items():
            if not isinstance(one.type, GraphQLNonNull) and chosen.random() < 0.5:
                continue
            variable = f"v{number}_{argument}"
            declared.append(f"${variable}: {one.type}")
            variables[variable] = _value(chosen, one.type, argument)
            given.append(f"{argument}: ${variable}")
        listed = f"({', '.join(given)})" if given else ""
        fields.append(f"a{number}: {name}{listed} {_selection(chosen, kind.fields[name].type, 0)}")
    head = "query" if kind is schema().query_type else "mutation"
    listed = f"({', '.join(declared)})" if declared else ""
    return _sent({"query": f"{head} q{listed} {{ {' '.join(fields)} }}", "variables": variables})


def _selection(chosen: random.Random, kind: Any, depth: int) -> str:  # noqa: ANN401
    named = get_named_type(kind)
    if not hasattr(named, "fields") or isinstance(named, GraphQLInputObjectType):
        return ""
    names = chosen.sample(sorted(named.fields), chosen.randint(1, len(named.fields)))
    if depth > 5:
        names = ["__typename"]
    inner = (
        "__typename" if name == "__typename" else
        f"{name} {_selection(chosen, named.fields[name].type, depth + 1)}"
        for name in names
    )  # fmt: skip
    return "{ " + " ".join(inner) + " }"


def _value(chosen: random.Random, kind: Any, name: str) -> Any:  # noqa: ANN401, PLR0911
    if chosen.random() < 0.03:
        return chosen.choice((None, 1, [], {}, "x", True, 1.5, [[]], {"a": None}))
    if isinstance(kind, GraphQLNonNull):
        return _value(chosen, kind.of_type, name)
    if isinstance(kind, GraphQLList):
        return [_value(chosen, kind.of_type, name) for _ in range(chosen.randint(0, 3))]
    if kind.name == "Duration":
        return chosen.choice(_DURATIONS)
    if isinstance(kind, GraphQLInputObjectType):
        return {key: _value(chosen, one.type, key) for key, one in kind.fields.items()}
    if hasattr(kind, "values"):
        return chosen.choice(sorted(kind.values))
    if kind.name == "Boolean":
        return chosen.random() < 0.8
    if kind.name in {"Int", "Long"}:
        return chosen.choice((0, 1, 5, 20, -1, 2**31 - 1, 2**31, -(2**63)))
    return chosen.choice(_EXPRESSIONS if name == "expression" else _TEXTS)


def _other_variables(chosen: random.Random, body: dict[str, Any]) -> tuple[bytes, str]:
    variables = dict(body.get("variables") or {})
    for name in list(variables):
        if chosen.random() < 0.5:
            variables[name] = chosen.choice((None, 1, [], "x", {}, _DURATIONS[0], True, "\ud83d"))
    return _sent(body | {"variables": variables})


def _envelope(chosen: random.Random, body: dict[str, Any]) -> tuple[bytes, str]:
    content: Any = chosen.choice(
        (
            [], None, 1, "x", {}, {"query": 1}, {"query": None}, {"query": ""}, [body],
            body | {"variables": []}, body | {"variables": "{}"}, body | {"operationName": 1},
            body | {"operationName": "nobody"}, {"query": "{" * chosen.randint(1, 3_000)},
            {"query": "{a:" + "[" * 5_000}, {"query": "query a{version} query a{version}"},
            {"query": "query($a:[[[Int]]]){version}"},
            {"query": "{...f} fragment f on Query{...f}"},
            {"query": "subscription {version}"}, {"query": "type Query {a: Int}"},
        )
    )  # fmt: skip
    text = json.dumps(content).encode()
    if chosen.random() < 0.3:
        at = chosen.randrange(len(text) + 1)
        text = text[:at] + chosen.choice((b"", b"\xff", b"\x00", b"NaN", b"\\ud800")) + text[at:]
    kind = "application/json"
    kinds = (kind, kind, kind, f"{kind}; charset=utf-8", "application/graphql", "text/plain")
    return text, chosen.choice(kinds)


def ask_all(asked: Asked, seed: int, count: int) -> Counter[int]:
    """Send requests, and return how often which status came; each answer is JSON in its form."""

    def ask(client: HTTPConnection, request: tuple[int, tuple[bytes, str]]) -> int:
        number, (body, kind) = request
        client.request("POST", "/graphql", body, {"Content-Type": kind})
        answer = client.getresponse()
        text = answer.read()
        assert answer.status < 500, (seed, number, body, text)
        found = json.loads(text)
        assert set(found) <= {"data", "errors", "error", "kind", "problem", "remedy"}, found
        assert all(one["message"] for one in found.get("errors", ())), found
        return answer.status

    return ask_together(asked.port, enumerate(islice(requests(seed), count)), ask)


if __name__ == "__main__":
    sys.exit(fuzz(served, ask_all))
