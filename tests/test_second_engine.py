"""A second engine, the plain SQL of each metric over the logs, gives what the views give."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import duckdb
import polars as pl
import pyarrow as pa
import pytest
from batches import as_batch
from comparison import VIEWS, Values, differences, read_views
from conftest import CAPTURES
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from strategies import BASE, HOSTILE_DUMP, NS, HostileCapture, hostile_captures

from framewalk.engine.captures.format import CaptureReader
from framewalk.engine.explain.plain_sql import logs_table, metric_sql
from framewalk.engine.kubernetes.addresses import Entities, read_entities
from framewalk.engine.oal.binding import bind
from framewalk.engine.oal.bound import Kind, Metric, Parameter, Source
from framewalk.engine.oal.catalogue import DETECT_POINTS, SCOPES, Attribute, Column, Scope
from framewalk.engine.oal.catalogue import ValueType as Type
from framewalk.engine.oal.functions import FUNCTIONS
from framewalk.engine.oal.parser import parse
from framewalk.engine.oal.plan import Plan, make_plan
from framewalk.engine.oal.syntax import (
    Argument,
    AttributePath,
    Boolean,
    Cast,
    Condition,
    Definition,
    EnumValue,
    Function,
    Integer,
    Null,
    Operand,
    Operator,
    Star,
    String,
    Value,
)
from framewalk.engine.oal.syntax import Source as From
from framewalk.engine.schemas import COMPONENT_IDS
from framewalk.engine.stages.columns import with_derived, with_sides
from framewalk.engine.stages.decoding import decode
from framewalk.engine.stages.flattening import concat_logs, flatten
from framewalk.engine.stages.pipeline import step
from framewalk.engine.stages.resolving import resolve
from framewalk.engine.stages.streams import Carried, follow_streams
from framewalk.engine.store.store import Store
from framewalk.engine.wire import access_log_pb2 as pb

BUCKETS = {"minute": 1, "hour": 60, "day": 1440}
DERIVED = ("success", "method_name", "syscall_name", "endpoint")
Item = TypeVar("Item")
NO_THRESHOLDS: Mapping[str, int] = {}


@dataclass(frozen=True, repr=False)
class World:
    """Messages, what their addresses mean, and their logs as tables of the second engine."""

    batches: list[pa.RecordBatch]
    entities: Entities
    logs: duckdb.DuckDBPyConnection

    def __repr__(self) -> str:
        return f"<World of {sum(batch.num_rows for batch in self.batches)} messages>"

    def first(self, plan: Plan, resolutions: Iterable[str]) -> list[Values]:
        """Return what the two phases and the views find; each batch is a commit of its own."""
        carried = Carried()
        with Store(":memory:", plan) as store:
            for batch in self.batches:
                messages = pa.Table.from_batches([batch])
                states, carried = step(messages, carried, self.entities, plan)
                store.commit(None, Path("capture"), [], states)
            return [read_views(store, resolution) for resolution in resolutions]

    def second(self, plan: Plan, resolution: str) -> Values:
        """Return what the SQL of each metric finds."""
        found: Values = {view: {} for view in VIEWS}
        for metric in plan.metrics:
            sql = metric_sql(
                metric, BUCKETS[resolution], plan.apdex_thresholds_ms, plan.apdex_default_ms
            )
            for start, *names, value in self.logs.execute(sql).fetchall():
                if value is None:
                    continue
                key = tuple(names), int(start.replace(tzinfo=dt.UTC).timestamp())
                values = found[metric.scope.view].setdefault(key, {})
                assert metric.name not in values, "one row per entity and bucket"
                values[metric.name] = value
        return found

    def differences(self, plan: Plan, resolutions: Iterable[str] = BUCKETS) -> list[str]:
        """Return a line for each value that differs, and then all definitions."""
        first = self.first(plan, resolutions)
        second = [self.second(plan, resolution) for resolution in resolutions]
        lines = [line for pair in zip(first, second, strict=True) for line in differences(*pair)]
        return lines and [*lines, *(str(metric.definition) for metric in plan.metrics)]


def make_world(batches: list[pa.RecordBatch], entities: Entities) -> World:
    parts, carried = [], Carried()
    for decoded in decode(pa.Table.from_batches(batches)):
        for context in follow_streams(decoded.captured, decoded.nested, carried):
            parts.append(flatten(context, device_names=True, serving=True))
            carried = context.carried
    logs = duckdb.connect()
    if parts:
        resolved = resolve(concat_logs(parts), entities)
        for operation, frame in resolved.operations.items():
            create(logs, logs_table(operation), with_derived(frame, operation, DERIVED))
        create(logs, "peers", with_sides(resolved.peers).with_row_index("peer"))
    return World(batches, entities, logs)


def create(connection: duckdb.DuckDBPyConnection, table: str, rows: pl.DataFrame) -> None:
    connection.register("frame", rows)
    connection.execute(f"CREATE TABLE {table} AS FROM frame")
    connection.unregister("frame")


def recorded(name: str, *, first: int | None = None) -> World:
    """Read a committed capture, or the first messages of it as two batches."""
    folder = CAPTURES / name
    with CaptureReader(folder / f"{name}.capture.arrows") as reader:
        batches = [batch.messages for batch in reader]
    if first is not None:
        batches = [batches[0].slice(0, first // 2), batches[0].slice(first // 2, first // 2)]
    return make_world(batches, read_entities(folder / "kubectl.yaml"))


def as_batches(rows: Sequence[tuple[int, int, int, bytes]], length: int) -> list[pa.RecordBatch]:
    pieces = [rows[start : start + length] for start in range(0, len(rows), length)]
    return [as_batch(piece) for piece in pieces]


def planned(text: str, thresholds_ms: Mapping[str, int] = NO_THRESHOLDS) -> Plan:
    bound = bind([parse(text)])
    assert not bound.diagnostics
    return make_plan(bound.metrics, thresholds_ms)


# The committed captures, with all shipped metrics.


@pytest.mark.parametrize("name", ["bookinfo", pytest.param("boutique", marks=pytest.mark.long)])
def test_shipped_metrics_of_committed_captures(name: str, plan: Plan) -> None:
    world = recorded(name)
    second = {resolution: world.second(plan, resolution) for resolution in BUCKETS}
    first = zip(BUCKETS, world.first(plan, BUCKETS), strict=True)
    assert [line for one, values in first for line in differences(values, second[one])] == []
    found = second["day"]
    assert all(found.values())
    assert len({name for rows in found.values() for row in rows.values() for name in row}) > 300


# Texts that are numbers, or nearly: no capture has them.

NUMBERS = (
    *("0", "12", "-3", "+4", "007", "-0", "2147483648", "4294967295", "-2147483649"),
    *("9223372036854775807", "-9223372036854775808", "9223372036854775808", "9007199254740993"),
    *("", " 5", "5 ", "5\n", "1e3", "1.5", "1_000", "0x1F", "--1", "+", "-", "٣", "1\0", "text"),
)


def numeric_rows() -> Iterator[tuple[int, int, int, bytes]]:
    for number, text in enumerate(NUMBERS):
        message = pb.EBPFAccessLogMessage()
        message.node.name = "node"
        message.node.bootTime.seconds = BASE
        message.connection.local.kubernetes.serviceName = text or "empty"
        message.connection.local.kubernetes.podName = "pod"
        message.connection.remote.kubernetes.serviceName = "12" if number % 2 else "remote"
        message.connection.remote.kubernetes.podName = text
        message.connection.role = number % 3
        for status in (200, 404, 500, -1, -(2**31)):
            log = pb.EBPFAccessLogMessage()
            log.CopyFrom(message)
            http = log.protocolLog.http
            http.request.path = text
            http.request.method = number % 10
            http.request.sizeOfHeadersBytes = number << 28
            http.response.statusCode = status
            http.startTime.offset.offset = number * 9 * NS
            http.endTime.offset.offset = number * 9 * NS + number * 10**8
            yield 1, 0, BASE * NS, log.SerializeToString()


@pytest.fixture(scope="module")
def worlds() -> dict[str, World]:
    """Worlds that are made once for many definitions."""
    return {
        "boutique": recorded("boutique", first=3_000),
        "numbers": make_world(as_batches(list(numeric_rows()), 70), Entities.empty()),
    }


# Every function and operator, by hand.

BY_HAND = """
a1 = from(K8SService.connect.duration).longAvg();
a2 = from(K8SService.connect.duration).doubleAvg();
a3 = from(K8SService.write.l4.totalPackageSize).sum();
a4 = from(K8SService.read.duration).max();
a5 = from(K8SService.read.duration).min();
a6 = from(K8SServiceInstance.write.duration).maxDouble();
a7 = from(K8SServiceInstance.write.duration).minDouble();
a8 = from(K8SService.*).count();
a9 = from(K8SServiceRelation.*).cpm();
b1 = from(K8SService.*).percent(protocol.success == true);
b2 = from(K8SService.*).percent(detectPoint == DetectPoint.CLIENT);
b3 = from(K8SService.*).rate(type == "read", type == "write");
b4 = from(K8SEndpoint.*).rate(http.statusCode >= 500, success == true);
b5 = from(K8SService.protocol.http.latency).apdex(name, protocol.success);
b6 = from(K8SEndpoint.duration).percentile2(10);
b7 = from(K8SServiceRelation.write.duration).percentile(1_000);
b8 = from(K8SService.protocol.http.latency).histogram(5, 4);
b9 = from(K8SService.*).labelCount(type);
c0 = from(K8SServiceRelation.protocol.http.latencyNs).relativePercentile();
c1 = from(K8SService.*).labelCount(write.syscall, 1);
c2 = from(K8SEndpoint.*).labelCount(endpointName, 2);
c3 = from(K8SServiceRelation.*).labelAvg(destServiceName, write.duration);
c4 = from(K8SService.*).labelAvg(protocol.http.method, protocol.http.latency, 1);
d1 = from(K8SService.*).filter(protocol.http.url like "/c%").count();
d2 = from(K8SService.*).filter(protocol.http.url like "%t").count();
d3 = from(K8SService.*).filter(protocol.http.url like "%ar%").count();
d4 = from(K8SService.*).filter(type in ["read", "accept"]).count();
d5 = from(K8SService.*).filter(detectPoint in [DetectPoint.CLIENT, DetectPoint.PROXY]).count();
d6 = from(K8SService.*).filter(protocol.http.statusCode in [200, 500]).count();
d7 = from(K8SServiceRelation.*).filter(componentIds contain 49).count();
d8 = from(K8SServiceRelation.*).filter(componentIds not contain 49).count();
e1 = from(K8SService.*).filter(protocol.http.url == null).count();
e2 = from(K8SService.*).filter(protocol.http.url != null).count();
e3 = from(K8SService.*).filter(protocol.http.url != "/").count();
e4 = from(K8SService.*).filter(connect.success == true).count();
e5 = from(K8SService.*).filter(connect.success != true).count();
e6 = from(K8SService.*).filter(protocol.http.latency > 3).count();
e7 = from(K8SService.*).filter(protocol.http.latency <= 3).count();
e8 = from(K8SServiceRelation.*).filter(tlsMode == "TLS").cpm();
e9 = from(K8SService.*).filter((str->long)protocol.http.url != 5).count();
f1 = from(K8SService.*).filter((str->long)protocol.http.url == null).count();
f2 = from((int)K8SService.write.duration).sum();
f3 = from((long)K8SService.write.duration).filter((int)write.duration > 3).max();
"""
OF_NUMBERS = """
a1 = from((str->long)K8SService.protocol.http.url).max();
a2 = from((str->long)K8SService.protocol.http.url).min();
a3 = from((str->int)K8SService.protocol.http.url).sum();
a4 = from((str->int)K8SService.protocol.http.url).longAvg();
a5 = from((str->long)K8SService.protocol.http.url).count();
a6 = from((str->long)K8SService.protocol.http.url).doubleAvg();
a7 = from((str->int)K8SService.protocol.http.url).histogram(3, 5);
b1 = from(K8SService.*).filter((str->long)protocol.http.url == 007).count();
b2 = from(K8SService.*).filter((str->long)protocol.http.url != 12).count();
b3 = from(K8SService.*).filter((str->long)protocol.http.url == null).count();
b4 = from(K8SService.*).filter((str->int)protocol.http.url < 1).count();
b5 = from(K8SService.*).filter((str->long)serviceName >= 12).count();
b6 = from(K8SService.*).filter((str->int)name in [12, 4]).count();
b7 = from(K8SServiceRelation.*).filter((str->long)destServiceName > 0).count();
b8 = from(K8SService.protocol.http.statusCode).sum();
b9 = from(K8SService.protocol.http.statusCode).longAvg();
c1 = from((int)K8SService.protocol.http.sizeOfRequestHeader).min();
"""


@pytest.mark.parametrize(
    ("world", "text"), [("boutique", BY_HAND), ("numbers", OF_NUMBERS)], ids=["by hand", "numbers"]
)
def test_every_function_and_operator(worlds: dict[str, World], world: str, text: str) -> None:
    plan = planned(text, {"shop-eu::frontend.boutique": 1, "quo'te": 7})
    assert worlds[world].differences(plan) == []
    found = worlds[world].second(plan, "day").values()
    with_value = {name for rows in found for row in rows.values() for name in row}
    assert with_value == {metric.name for metric in plan.metrics}
    used = {str(metric.definition.function.name) for metric in plan.metrics}
    assert used == FUNCTIONS.keys() or world != "boutique"


def test_column_types(worlds: dict[str, World]) -> None:
    for metric in planned(BY_HAND).metrics:
        relation = worlds["boutique"].logs.sql(metric_sql(metric))
        types = dict(zip(relation.columns, map(str, relation.types), strict=True))
        assert types.pop("minute") == "TIMESTAMP"
        assert types.pop(metric.name) == metric.function.sql_type
        assert types == dict.fromkeys(metric.scope.keys, "VARCHAR")


# What the two engines once had apart.

ONCE_APART = {
    "a number that the name of a service spells": """
        m = from((str->long)K8SService.name).max();
    """,
    "a bucket of a negative number": """
        m = from(K8SService.protocol.http.statusCode)
            .filter(protocol.http.statusCode < 0)
            .percentile2(10);
    """,
}


@pytest.mark.parametrize("text", ONCE_APART.values(), ids=ONCE_APART)
def test_what_was_once_different(worlds: dict[str, World], text: str) -> None:
    assert worlds["numbers"].differences(planned(text)) == []


# Generated definitions.

LONGS = (0, 1, 2, 3, 10, 49, 110, 200, 404, 500, 1_000, 10**6, 2**31, 2**53 + 1, 2**63 - 1)
TEXTS = (
    *("connect", "read", "http", "protocol", "K8S_SERVICE", "GET", "POST", "Read", "Write", "12"),
    *(
        "Unknown",
        "Plain",
        "TLS",
        "eth0",
        "",
        "/",
        "/cart",
        "shop-eu::frontend.boutique",
        "cart.shop",
    ),
    *("GET:/", "details", "frontend-1", "quo\"te'd, and | more", "nul\0inside", "%", "_", "'"),
)
THRESHOLDS = {"shop-eu::frontend.boutique": 1, "cart.shop": 2, "quo\"te'd, and | more": 3, "12": 4}
OF_STRING = (Cast.STRING_TO_LONG, Cast.STRING_TO_INT)
OF_LONG = (None, None, Cast.LONG, Cast.INT)
EQUALITY = (Operator.EQUAL, Operator.NOT_EQUAL)
ORDER = (Operator.GREATER, Operator.LESS, Operator.GREATER_EQUAL, Operator.LESS_EQUAL)
LITERALS: dict[Type, st.SearchStrategy[Value]] = {
    Type.LONG: st.builds(Integer, st.sampled_from(LONGS) | st.integers(0, 50)),
    Type.STRING: st.builds(String, st.sampled_from(TEXTS) | st.text(max_size=2)),
    Type.BOOLEAN: st.builds(Boolean, st.booleans()),
    Type.DETECT_POINT: st.builds(EnumValue, st.just("DetectPoint"), st.sampled_from(DETECT_POINTS)),
    Type.COMPONENTS: st.builds(Integer, st.sampled_from((*COMPONENT_IDS, 0, 1))),
}
OPERATORS = {
    Type.LONG: (*EQUALITY, *ORDER, Operator.IN),
    Type.STRING: (*EQUALITY, Operator.IN, Operator.LIKE),
    Type.BOOLEAN: (*EQUALITY, Operator.IN),
    Type.DETECT_POINT: (*EQUALITY, Operator.IN),
    Type.COMPONENTS: (Operator.CONTAIN, Operator.NOT_CONTAIN),
}
TYPES = {Kind.STRING: Type.STRING, Kind.BOOLEAN: Type.BOOLEAN}


class Drawer:
    """Draws the parts of a definition that is mostly about one operation's logs."""

    def __init__(self, draw: st.DrawFn) -> None:
        self.draw = draw
        self.scope: Scope = draw(st.sampled_from(list(SCOPES.values())))
        self.operation: str = draw(st.sampled_from(self.scope.operations))

    def one(self, choices: Sequence[Item]) -> Item:
        return self.draw(st.sampled_from(choices))

    def attribute(self, wanted: Callable[[Attribute], bool]) -> Attribute:
        all_wanted = [one for one in self.scope.attributes.values() if wanted(one)]
        near = [one for one in all_wanted if self.operation in one.columns]
        return self.one(near if near and self.one((True, True, True, False)) else all_wanted)

    def operand(self, wanted: Type) -> Operand:
        return self.converted(wanted, self.attribute(lambda one: one.type is wanted))

    def converted(self, wanted: Type, attribute: Attribute) -> Operand:
        cast = None
        if wanted is Type.LONG:
            cast = self.one(OF_LONG if attribute.type is Type.LONG else OF_STRING)
        return Operand(cast, AttributePath(tuple(attribute.path.split("."))))

    def number(self) -> Operand:
        """Draw a number of a log, one time in four one that a text spells."""
        if self.one((True, True, True, False)):
            return self.operand(Type.LONG)
        return self.converted(Type.LONG, self.attribute(lambda one: one.type is Type.STRING))

    def any_operand(self) -> Operand:
        present = {one.type for one in self.scope.attributes.values()}
        kind = self.one([kind for kind in Type if kind in present])
        if kind is Type.STRING and self.one((True, False, False)):
            return self.converted(Type.LONG, self.attribute(lambda one: one.type is Type.STRING))
        return self.operand(kind)

    def condition(self) -> Condition:
        operand = self.any_operand()
        kind = self.scope.attributes[str(operand.attribute)].type
        kind = Type.LONG if operand.cast else kind
        operator = self.one(OPERATORS[kind])
        value: Value | tuple[Value, ...] = self.draw(LITERALS[kind])
        if operator is Operator.IN:
            value = tuple(self.draw(st.lists(LITERALS[kind], min_size=1, max_size=3)))
        elif operator is Operator.LIKE:
            value = String(self.pattern())
        elif operator in EQUALITY and self.one((True, False, False, False)):
            value = Null()
        return Condition(operand.cast, operand.attribute, operator, value)

    def pattern(self) -> str:
        text = self.one([text for text in TEXTS if text.strip("%")])
        text = text[: self.one((1, 2, len(text)))]
        return str(self.one(("{}%", "%{}", "%{}%"))).format(text)

    def source(self, source: Source) -> From:
        if source is Source.ANY and self.one((True, True, False)):
            return From(None, self.scope.name, Star())
        operand = self.number() if source is Source.NUMBER else self.any_operand()
        return From(operand.cast, self.scope.name, operand.attribute)

    def argument(self, parameter: Parameter) -> Argument:
        if parameter.kind is Kind.CONDITION:
            return self.condition()
        if parameter.kind is Kind.INTEGER:
            return Integer(self.one((1, 2, 10, 100)))
        if parameter.kind is Kind.SERVICE_NAME:
            return self.converted(Type.STRING, self.attribute(is_service))
        return (
            self.number() if parameter.kind is Kind.NUMBER else self.operand(TYPES[parameter.kind])
        )

    def function(self, name: str) -> Function:
        parameters = FUNCTIONS[name].parameters
        given = [one for one in parameters if not one.optional or self.one((True, False))]
        return Function(name, tuple(self.argument(parameter) for parameter in given))


def is_service(attribute: Attribute) -> bool:
    columns = attribute.columns.values()
    return all(isinstance(one, Column) and one.name.endswith("_service") for one in columns)


@st.composite
def definitions(draw: st.DrawFn, function: str | None = None) -> Definition:
    """Definitions that bind, but for those whose parts contradict each other."""
    drawer = Drawer(draw)
    name = function or draw(st.sampled_from(list(FUNCTIONS)))
    filters = [drawer.condition() for _ in range(draw(st.integers(0, 2)))]
    source = drawer.source(FUNCTIONS[name].source)
    return Definition("metric", source, tuple(filters), drawer.function(name))


def bound(made: Sequence[Definition]) -> tuple[Metric, ...]:
    """Print the definitions under different names, read them back and bind what can be."""
    text = "".join(f"m{number}{str(each)[6:]}\n" for number, each in enumerate(made))
    return bind([parse(text)]).metrics


# Shrinking takes minutes, as every try opens stores; what fails names the metric anyway.
PHASES = (Phase.explicit, Phase.reuse, Phase.generate)


@pytest.mark.parametrize("function", FUNCTIONS)
@settings(max_examples=2, phases=PHASES, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_generated_definitions_of_each_function(
    data: st.DataObject, worlds: dict[str, World], function: str
) -> None:
    made = data.draw(st.lists(definitions(function), min_size=6, max_size=12))
    plan = make_plan(bound(made), THRESHOLDS, 250)
    for world in worlds.values():
        assert world.differences(plan, ["minute"]) == []


@pytest.fixture(scope="module")
def hostile_entities(tmp_path_factory: pytest.TempPathFactory) -> Entities:
    path = tmp_path_factory.mktemp("dump") / "kubectl.yaml"
    path.write_text(HOSTILE_DUMP, encoding="utf-8")
    return read_entities(path)


@settings(max_examples=20, phases=PHASES, suppress_health_check=list(HealthCheck))
@given(
    capture=hostile_captures(rarity=4),
    made=st.lists(definitions(), min_size=6, max_size=15),
    resolution=st.sampled_from(list(BUCKETS)),
)
def test_generated_definitions_over_hostile_captures(
    capture: HostileCapture, made: list[Definition], resolution: str, hostile_entities: Entities
) -> None:
    world = make_world(as_batches(capture.rows, 20), hostile_entities)
    plan = make_plan(bound(made), THRESHOLDS)
    with world.logs:
        if world.logs.execute("SHOW TABLES").fetchall():
            assert world.differences(plan, [resolution]) == []
