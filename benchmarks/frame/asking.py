"""Queries of every protocol about a replayed shop, drawn at random; a seed makes the same ones."""

from __future__ import annotations

import datetime as dt
import http.client
import json
import urllib.parse
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    import random
    from collections.abc import Callable, Mapping, Sequence

SQL, GRAPHQL, PROMQL, MQE = "sql", "graphql", "promql", "mqe"
MIXED: Final = (SQL, GRAPHQL, PROMQL, MQE)
_CLOSED: Final = (http.client.RemoteDisconnected, BrokenPipeError, ConnectionResetError)
_ANSWER_S: Final = 600
_FORM: Final = {"Content-Type": "application/x-www-form-urlencoded"}
_JSON: Final = {"Content-Type": "application/json"}
_TEXT: Final = {"Content-Type": "text/plain"}
_RESULT: Final = (
    "{ type error results { metric { labels { key value } } values { id value owner { scope } } } }"
)
_METRICS: Final = (
    "kubernetes_service_http_call_cpm", "kubernetes_service_http_call_time",
    "kubernetes_service_http_call_successful_rate", "kubernetes_service_apdex",
    "kubernetes_service_connect_cpm", "kubernetes_service_write_cpm",
)  # fmt: skip
_PERCENTILE: Final = "kubernetes_service_percentile"
_EDGES: Final = "kubernetes_service_relation_client_http_call_cpm"
# What a store has to have for all that is asked here.
DEFINED: Final = (*_METRICS, _PERCENTILE, _EDGES)
# Steps of Duration, and how its times are written.
_STEPS: Final = (
    ("MINUTE", "%Y-%m-%d %H%M"),
    ("MINUTE", "%Y-%m-%d %H%M"),
    ("HOUR", "%Y-%m-%d %H"),
    ("DAY", "%Y-%m-%d"),
)


@dataclass(frozen=True, slots=True)
class Shop:
    """What there is to ask about: names of services and calls, and the minutes that are there."""

    services: Sequence[str]
    first: dt.datetime
    latest: dt.datetime

    @staticmethod
    def of(client: Client) -> Shop:
        """Ask a server for it."""
        names = [name for (name,) in client.rows("FROM service_minute SELECT DISTINCT service")]
        times = "FROM service_minute SELECT epoch(min(time_bucket)), epoch(max(time_bucket))"
        ((first_s, latest_s),) = client.rows(times)
        at = dt.datetime.fromtimestamp
        return Shop(sorted(names), at(float(first_s), dt.UTC), at(float(latest_s), dt.UTC))


@dataclass(frozen=True, slots=True)
class Query:
    """A request: which protocol has it, and what is sent."""

    protocol: str
    method: str
    path: str
    body: bytes
    headers: Mapping[str, str]


class Client:
    """Keeps a connection to each protocol's port, and asks over it."""

    def __init__(self, ports: Mapping[str, int]) -> None:
        """Ports by protocol; MQE is asked over GraphQL's."""
        self._ports = {**ports, MQE: ports[GRAPHQL]}
        self._connections: dict[int, http.client.HTTPConnection] = {}

    def ask(self, query: Query) -> tuple[int, bytes]:
        """Return the status and the whole answer."""
        try:
            answer = self._send(query).getresponse()
        except _CLOSED:
            # A server may close what nobody asked over for a while.
            self.close()
            answer = self._send(query).getresponse()
        return answer.status, answer.read()

    def rows(self, sql: str) -> list[list[Any]]:
        """Return the rows of an answer to SQL."""
        status, answer = self.ask(_sql(sql))
        assert status == 200, answer
        return [list(row.values()) for row in json.loads(answer)["rows"]]

    def leave(self, query: Query) -> None:
        """Ask and hang up before there is an answer."""
        self.close()
        self._send(query).close()

    def close(self) -> None:
        """Close all connections."""
        for connection in self._connections.values():
            connection.close()

    def _send(self, query: Query) -> http.client.HTTPConnection:
        port = self._ports[query.protocol]
        connection = self._connections.get(port)
        if connection is None:
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=_ANSWER_S)
            self._connections[port] = connection
        connection.request(query.method, query.path, query.body, dict(query.headers))
        return connection


def draw_query(draw: random.Random, shop: Shop, number: int) -> Query:
    """Draw one that is asked often: small, of any protocol, one in twenty with a fault in it.

    `number` is in the text of some, so that no two of these are the same.
    """
    protocol = draw.choice(MIXED)
    return _MAKERS[protocol](draw, shop, number)


def heavy_query(protocol: str, shop: Shop) -> Query:
    """Return one that is much work: everything there is, of all entities."""
    if protocol == SQL:
        return _sql(
            "SELECT sum(hash(a.kubernetes_service_http_call_cpm, b.service, i)) "
            "FROM service_minute a, service_minute b, range(20000) numbers(i)"
        )
    if protocol == PROMQL:
        span = _epoch(shop.first - dt.timedelta(hours=2)), _epoch(shop.latest)
        text = '{__name__=~"kubernetes_service_.*"}'
        return _promql("query_range", query=text, start=span[0], end=span[1], step=60)
    if protocol == MQE:
        fields = " ".join(
            f'a{number}: execExpression(expression: "{metric}", entity: $e{at}, duration: $d)'
            f" {_RESULT}"
            for number, (at, metric) in enumerate(
                (at, metric) for at in range(len(shop.services)) for metric in _METRICS
            )
        )
        entities = {f"e{at}": _entity(name) for at, name in enumerate(shop.services)}
        declared = ", ".join(f"${name}: Entity!" for name in entities)
        text = f"query ($d: Duration!, {declared}) {{ {fields} }}"
        return _graphql(MQE, text, d=_minutes(shop, 400), **entities)
    fields = " ".join(
        f"a{number}: getGlobalTopology(duration: $d) {{ nodes {{ id name type layers }} "
        "calls { id source target sourceComponents targetComponents detectPoints } }"
        for number in range(40)
    )
    return _graphql(GRAPHQL, f"query ($d: Duration!) {{ {fields} }}", d=_minutes(shop, 400))


def _draw_sql(draw: random.Random, shop: Shop, number: int) -> Query:
    name, metric = draw.choice(shop.services), draw.choice(_METRICS)
    at = shop.first + dt.timedelta(minutes=draw.randint(0, 30))
    texts = (
        f"FROM service_minute SELECT time_bucket, {metric} WHERE service = '{name}'",
        f"FROM service_minute SELECT service, avg({metric}) GROUP BY ALL ORDER BY 2 DESC LIMIT 5",
        f"FROM service_relation_minute WHERE time_bucket < '{at:%F %H:%M}' LIMIT {number % 50}",
        f"FROM service_hour WHERE service <> '{number}'",
        "FROM service_map()",
        f"FROM no_such_{number}" if draw.random() < 0.3 else f"SELECT {number} AS one",
    )
    return _sql(draw.choice(texts))


def _draw_graphql(draw: random.Random, shop: Shop, number: int) -> Query:
    name = draw.choice(shop.services)
    duration = _drawn_duration(draw, shop)
    fields = (
        'listServices(layer: "K8S_SERVICE") { id value: name group shortName layers normal }',
        f'findService(serviceName: "{name}") {{ id name }}',
        "getGlobalTopology(duration: $d) { nodes { name type } calls { id source detectPoints } }",
        "getAllServices(duration: $d) { id name }",
        'listMetrics(regex: ".*http.*") { name type catalog }',
        "getMenuItems { title layer subItems { title layer } }",
        "getAllTemplates { id }",
        f'typeOfMetrics(name: "{draw.choice(_METRICS)}")',
        f"sortMetrics(condition: {_ranked(draw)}, duration: $d) {{ id name value }}",
        "no_such { id }",
    )  # fmt: skip
    chosen = " ".join(
        f"a{at}: {one}" for at, one in enumerate(draw.sample(fields, draw.randint(1, 2)))
    )
    mark = f"# {number}\n" if draw.random() < 0.3 else ""
    unused = "" if "$d" in chosen else " timed: getAllServices(duration: $d) { id }"
    return _graphql(GRAPHQL, f"{mark}query ($d: Duration!) {{ {chosen}{unused} }}", d=duration)


def _ranked(draw: random.Random) -> str:
    return f'{{name: "{draw.choice(_METRICS)}", topN: {draw.randint(1, 9)}, order: DES}}'


def _draw_mqe(draw: random.Random, shop: Shop, number: int) -> Query:
    metric = draw.choice(_METRICS)
    texts = (
        metric,
        f"avg({metric})",
        f"{_PERCENTILE}{{p='50,99'}}",
        f"top_n({metric},{draw.randint(1, 20)},des)",
        f"{metric} / {number} + 1",
        f"sum({metric} > {draw.randint(1, 50)})",
        f"relabels({_PERCENTILE}{{p='50,75'}},p='50,75',percentile='P50,P75')",
        f"avg(no_such_{number})" if draw.random() < 0.5 else f"avg({metric}",
    )
    fields = " ".join(
        f'a{at}: execExpression(expression: "{draw.choice(texts)}", entity: $e, duration: $d)'
        f" {_RESULT}"
        for at in range(draw.randint(1, 2))
    )
    text = f"query ($e: Entity!, $d: Duration!) {{ {fields} }}"
    entity = _entity(draw.choice([*shop.services, f"nobody-{number}"]))
    return _graphql(MQE, text, e=entity, d=_drawn_duration(draw, shop))


def _draw_promql(draw: random.Random, shop: Shop, number: int) -> Query:
    name, metric = draw.choice(shop.services), draw.choice(_METRICS)
    start = shop.first - dt.timedelta(minutes=draw.randint(0, 20))
    span: dict[str, Any] = {"start": _epoch(start), "end": _epoch(shop.latest)}
    texts = (
        metric,
        f'{metric}{{service="{name}"}} * {number}',
        f"sum by (namespace) ({metric})",
        f"topk({draw.randint(1, 9)}, {_EDGES})",
        f'{_PERCENTILE}{{p=~"50|99",service!~"x{number}.*"}}',
        f"avg_over_time({metric}[{draw.choice((2, 5, 10))}m])",
        f'label_replace({metric}, "a", "$1-{number}", "service", "(.*)\\\\..*")',
        f"sum({metric}" if draw.random() < 0.5 else f"no_such_{number}",
    )
    text = draw.choice(texts)
    kind = draw.random()
    if kind < 0.5:
        step = draw.choice((15, 60, 60, 300, 3_600))
        return _promql("query_range", query=text, step=step, **span)
    if kind < 0.8:
        return _promql("query", query=text, time=span["end"])
    if kind < 0.9:
        return _promql("series", **{"match[]": f'{metric}{{service!="{number}"}}'}, **span)
    return Query(PROMQL, "GET", "/api/v1/label/service/values", b"", {})


_MAKERS: Final[Mapping[str, Callable[[random.Random, Shop, int], Query]]] = {
    SQL: _draw_sql,
    GRAPHQL: _draw_graphql,
    PROMQL: _draw_promql,
    MQE: _draw_mqe,
}


def _sql(text: str) -> Query:
    return Query(SQL, "POST", "/sql", text.encode(), _TEXT)


def _graphql(protocol: str, text: str, **variables: object) -> Query:
    body = json.dumps({"query": text, "variables": variables}).encode()
    return Query(protocol, "POST", "/graphql", body, _JSON)


def _promql(path: str, **given: object) -> Query:
    return Query(PROMQL, "POST", f"/api/v1/{path}", urllib.parse.urlencode(given).encode(), _FORM)


def _entity(service: str) -> dict[str, object]:
    return {"scope": "Service", "serviceName": service, "normal": True}


def _drawn_duration(draw: random.Random, shop: Shop) -> dict[str, str]:
    step, form = draw.choice(_STEPS)
    start = shop.first - dt.timedelta(minutes=draw.randint(0, 30))
    return {"start": start.strftime(form), "end": shop.latest.strftime(form), "step": step}


def _minutes(shop: Shop, count: int) -> dict[str, str]:
    form = "%Y-%m-%d %H%M"
    start = shop.latest - dt.timedelta(minutes=count - 1)
    return {"start": start.strftime(form), "end": shop.latest.strftime(form), "step": "MINUTE"}


def _epoch(time: dt.datetime) -> int:
    return int(time.timestamp())
