"""What documents of GraphQL cost that UIs send, over 1,000 services and a day of minutes.

    python benchmarks/graphql_documents.py
    python benchmarks/graphql_documents.py --store build/day.duckdb

Tells the CPU time (user and system) of the process, DuckDB's threads and the client included, of an
answer over HTTP: the first, which reads and validates the document, and the median of later ones;
the exit code is 1 where that is over its bound. A store that is not there is made.
"""

from __future__ import annotations

import argparse
import datetime as dt
import http.client
import json
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from large.day import write_day

from framewalk.engine import open_for_reading
from framewalk.queries import graphql
from framewalk.queries.metrics import SERVICE, Catalogue
from framewalk.queries.serving import Endpoint, ProtocolServer, Serving

if TYPE_CHECKING:
    import duckdb

ROUNDS: Final = 9
ALIASES: Final = "200 aliases of avg(...)"
WIDGETS: Final = "6 widgets of 8 series"
BOUNDS_MS: Final = {ALIASES: 100, WIDGETS: 80}
POINTS: Final = 31
_OPTIONS: Final = graphql.GraphqlOptions(
    host="127.0.0.1", port=0, token=None, ssl_context=None, timeout_s=600
)
_RESULT: Final = (
    "{ type results { metric { labels { key value } } values { id value traceID "
    "owner { scope serviceID serviceName } } } error }"
)


def main() -> int:
    """Measure both documents and print what they cost."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--store", type=Path)
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        path = arguments.store or Path(folder) / "day.duckdb"
        if not path.exists():
            write_day(path)
        with open_for_reading(path) as connection:
            return measure(connection, arguments.rounds)


def measure(connection: duckdb.DuckDBPyConnection, rounds: int) -> int:
    """Measure both; return 1 where one is over its bound."""
    services = [
        name for (name,) in _rows(connection, "FROM internal.service_entities SELECT service")
    ]
    services = [name for name in services if name.startswith("service-")]
    (latest,) = _rows(connection, "SELECT max(time_bucket) FROM service_minute")[0]
    first = latest - dt.timedelta(minutes=POINTS - 1)
    duration = {
        "start": f"{first:%Y-%m-%d %H%M}",
        "end": f"{latest:%Y-%m-%d %H%M}",
        "step": "MINUTE",
    }
    plain = [
        one
        for one in Catalogue.of(connection).stored
        if one.scope == SERVICE and not (one.is_labelled or one.is_histogram)
    ]
    # Spread over what a page shows.
    metrics = [plain[at * len(plain) // 48].name for at in range(48)]
    print(f"{len(services)} services, {POINTS} minutes")
    serving = Serving(connection, _OPTIONS)
    server = ProtocolServer([Endpoint("GraphQL", serving, graphql.routes(serving, _OPTIONS))])
    server.start()
    url = f"{_OPTIONS.host}:{server.endpoints[0].port}"
    is_over = False
    for name, (text, variables) in {
        ALIASES: _aliases(services[:20], metrics[:10], duration),
        WIDGETS: _series(services[0], metrics[:48], duration),
    }.items():
        first_ms, *others_ms = _measure(url, text, variables, rounds)
        later_ms = statistics.median(others_ms)
        print(f"{name}: {len(text):,} bytes, first {first_ms:.0f} ms, later {later_ms:.0f} ms")
        is_over |= later_ms > BOUNDS_MS[name]
    server.stop()
    return int(is_over)


def _rows(connection: duckdb.DuckDBPyConnection, sql: str) -> list[Any]:
    return connection.execute(sql).fetchall()


def _entity(service: str) -> dict[str, Any]:
    return {"scope": "Service", "serviceName": service, "normal": True}


def _aliases(
    services: list[str], metrics: list[str], duration: dict[str, str]
) -> tuple[str, dict[str, Any]]:
    """Return a map's nodes: 20 services with 10 numbers each."""
    declared = "".join(f", $entity{number}: Entity!" for number in range(len(services)))
    fields = " ".join(
        f'e{number}_{at}: execExpression(expression: "avg({metric})", '
        f"entity: $entity{number}, duration: $duration) {_RESULT}"
        for number in range(len(services))
        for at, metric in enumerate(metrics)
    )
    entities = {f"entity{number}": _entity(name) for number, name in enumerate(services)}
    text = f"query ($duration: Duration!{declared}) {{ {fields} }}"
    return text, entities | {"duration": duration}


def _series(
    service: str, metrics: list[str], duration: dict[str, str]
) -> tuple[str, dict[str, Any]]:
    """Return six widgets of eight lines."""
    fields = " ".join(
        f'w{at // 8}_{at % 8}: execExpression(expression: "{metric}", '
        f"entity: $entity, duration: $duration) {_RESULT}"
        for at, metric in enumerate(metrics)
    )
    text = f"query ($duration: Duration!, $entity: Entity!) {{ {fields} }}"
    return text, {"duration": duration, "entity": _entity(service)}


def _measure(url: str, text: str, variables: dict[str, Any], rounds: int) -> list[float]:
    """Return the CPU times of answers in ms, the first of which reads the document."""
    client = http.client.HTTPConnection(url)
    body = json.dumps({"query": text, "variables": variables})
    found = []
    for _ in range(rounds + 1):
        began_s = time.process_time()
        client.request("POST", "/graphql", body, {"Content-Type": "application/json"})
        content = client.getresponse().read()
        found.append((time.process_time() - began_s) * 1_000)
        data = json.loads(content)["data"]
        assert all(one["error"] is None for one in data.values()), content[:500]
        assert b'"value":"' in content
    client.close()
    return found


if __name__ == "__main__":
    sys.exit(main())
