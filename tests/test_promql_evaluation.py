"""PromQL on arrays: hand-made answers, and a slow evaluator of operators (promql.md, section 4)."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from promql_arrays import BASE_MS, MINUTE_MS, Arrays, Json, answer, notes_of
from reference import promql as slow

from framewalk.queries.promql.evaluation import evaluate
from framewalk.queries.promql.parsing import parse
from framewalk.queries.promql.series import MOST_POINTS, ExecutionError, PromqlError, Timeline

N = None
STORE = Arrays(
    [
        ({"__name__": "calls", "s": "a", "ns": "x"}, [1, 2, 3, 4, 5, 6, 7, 8, 9, 10]),
        ({"__name__": "calls", "s": "b", "ns": "x"}, [10, N, 30, N, 50, N, N, N, N, 100]),
        ({"__name__": "calls", "s": "c", "ns": "y"}, [0, 0, 0, 0, 0, 0, 0, 0, 0, 0]),
        ({"__name__": "errors", "s": "a", "ns": "x"}, [0, 1, 0, 1, 1, 0, 0, 0, 0, 5]),
        ({"__name__": "time", "s": "a", "ns": "x"}, [100, 100, 100, 100, 200, 0, 0, 0, 0, 0]),
        ({"__name__": "time", "s": "b", "ns": "x"}, [10, 10, 10, 10, 20, 0, 0, 0, 0, 0]),
        ({"__name__": "p", "s": "a", "p": "50"}, [1, 1, 1, 1, 1]),
        ({"__name__": "p", "s": "a", "p": "99"}, [9, 9, 9, 9, 9]),
        ({"__name__": "owner", "s": "a", "team": "red"}, [1] * 10),
        ({"__name__": "owner", "s": "b", "team": "blue"}, [1] * 10),
    ],
    {"time": "longAvg", "p": "percentile2"},
)
AT_4 = Timeline.instant(BASE_MS + 4 * MINUTE_MS)
INF, NAN = math.inf, math.nan

# Expression, and the answer at minute 4: a number, or one per series by its labels, in short.
TABLE: list[tuple[str, Any]] = [
    ("1 + 2 * 3 ^ 2 ^ 0.5 - -1", 1 + 2 * 3**2**0.5 + 1),
    ("-2 ^ 2", -4),
    ("7 % 3 + -7 % 3", 0),
    ("1 / 0", INF),
    ("2 > bool 1", 1),
    ("atan2", PromqlError),
    ("1 atan2 1", math.pi / 4),
    ("time()", BASE_MS / 1_000 + 240),
    ("scalar(errors)", 1),
    ("scalar(calls)", NAN),
    ("vector(3)", {"": 3}),
    ("calls", {"calls s=a ns=x": 5, "calls s=b ns=x": 50, "calls s=c ns=y": 0}),
    ('{__name__="calls",s="a"}', {"calls s=a ns=x": 5}),
    ('{__name__=~"err.*|own.*",s="a"}', {"errors s=a ns=x": 1, "owner s=a team=red": 1}),
    ('calls{s!="a",ns=~"x|z"}', {"calls s=b ns=x": 50}),
    ('calls{s!~"a|c"}', {"calls s=b ns=x": 50}),
    ('calls{s=~""}', {}),
    ('calls{other=""}', {"calls s=a ns=x": 5, "calls s=b ns=x": 50, "calls s=c ns=y": 0}),
    ('calls{s=~"a."}', {}),
    ("calls offset 3m", {"calls s=a ns=x": 2, "calls s=b ns=x": 10, "calls s=c ns=y": 0}),
    ("calls offset -1m", {"calls s=a ns=x": 6, "calls s=b ns=x": 50, "calls s=c ns=y": 0}),
    (f"errors @ {BASE_MS / 1_000 + 540:.0f}", {"errors s=a ns=x": 5}),
    ("calls @ end() == 5", {"calls s=a ns=x": 5}),
    ("-calls", {"s=a ns=x": -5, "s=b ns=x": -50, "s=c ns=y": 0}),
    ("calls * 2 + 1", {"s=a ns=x": 11, "s=b ns=x": 101, "s=c ns=y": 1}),
    ("100 / calls", {"s=a ns=x": 20, "s=b ns=x": 2, "s=c ns=y": INF}),
    ("calls > 5", {"calls s=b ns=x": 50}),
    ("5 >= calls", {"calls s=a ns=x": 5, "calls s=c ns=y": 0}),
    ("calls > bool 5", {"s=a ns=x": 0, "s=b ns=x": 1, "s=c ns=y": 0}),
    ("errors / calls", {"s=a ns=x": 0.2}),
    ("errors / ignoring(ns) calls", {"s=a": 0.2}),
    ("errors / on(s) calls", {"s=a": 0.2}),
    ("errors < calls", {"errors s=a ns=x": 1}),
    (
        "calls * on(s) group_left(team) owner",
        {"s=a ns=x team=red": 5, "s=b ns=x team=blue": 50},
    ),
    (
        "owner * on(s) group_right(team) calls",
        {"s=a ns=x team=red": 5, "s=b ns=x team=blue": 50},
    ),
    ("calls * on(ns) errors", ExecutionError),
    ("errors * on(ns) calls", ExecutionError),
    ("calls / on(ns) group_left errors", {"s=a ns=x": 5, "s=b ns=x": 50}),
    ("calls and errors", {"calls s=a ns=x": 5}),
    ("calls unless errors", {"calls s=b ns=x": 50, "calls s=c ns=y": 0}),
    ("errors or calls", {"errors s=a ns=x": 1, "calls s=b ns=x": 50, "calls s=c ns=y": 0}),
    ("calls and on(ns) errors", {"calls s=a ns=x": 5, "calls s=b ns=x": 50}),
    ("calls > 10 or vector(1)", {"calls s=b ns=x": 50, "": 1}),
    ("sum(calls)", {"": 55}),
    ("sum by (ns) (calls)", {"ns=x": 55, "ns=y": 0}),
    ("sum(calls) by (nothing)", {"": 55}),
    ("sum without (s) (calls)", {"ns=x": 55, "ns=y": 0}),
    ("avg by (ns) (calls)", {"ns=x": 27.5, "ns=y": 0}),
    ("min(calls)", {"": 0}),
    ("max(calls)", {"": 50}),
    ("count by (ns) (calls)", {"ns=x": 2, "ns=y": 1}),
    ("group(calls)", {"": 1}),
    ("stddev(calls)", {"": pytest.approx(math.sqrt((2525 - 55**2 / 3) / 3))}),
    ("stdvar(calls)", {"": pytest.approx((2525 - 55**2 / 3) / 3)}),
    ("quantile(0.5, calls)", {"": 5}),
    ("quantile(0.25, calls)", {"": 2.5}),
    ("quantile(2, calls)", {"": INF}),
    ("quantile(-1, calls)", {"": -INF}),
    ("topk(1, calls)", {"calls s=b ns=x": 50}),
    ("topk by (ns) (1, calls)", {"calls s=b ns=x": 50, "calls s=c ns=y": 0}),
    ("bottomk(2, calls)", {"calls s=c ns=y": 0, "calls s=a ns=x": 5}),
    ("topk(0, calls)", {}),
    ('count_values("n", calls > bool 1)', {"n=1": 2, "n=0": 1}),
    ('count_values by (ns) ("n", owner)', {"n=1": 2}),
    ('count_values("1", owner)', PromqlError),
    ("sum(calls offset 9m)", {}),
    ("avg_over_time(calls{s='b'}[3m])", {"s=b ns=x": 40}),
    ("sum_over_time(calls{s='a'}[3m])", {"s=a ns=x": 12}),
    ("min_over_time(calls[10m])", {"s=a ns=x": 1, "s=b ns=x": 10, "s=c ns=y": 0}),
    ("max_over_time(calls{s='a'}[2m])", {"s=a ns=x": 5}),
    ("count_over_time(calls[5m])", {"s=a ns=x": 5, "s=b ns=x": 3, "s=c ns=y": 5}),
    ("last_over_time(calls{s='b'}[5m] offset 1m)", {"calls s=b ns=x": 30}),
    ("present_over_time(calls{s='b'}[1m])", {"s=b ns=x": 1}),
    ("quantile_over_time(0.5, calls{ns='x'}[4m])", {"s=a ns=x": 3.5, "s=b ns=x": 40}),
    ("stddev_over_time(calls{s='a'}[3m])", {"s=a ns=x": pytest.approx(math.sqrt(2 / 3))}),
    ("stdvar_over_time(calls{s='a'}[3m])", {"s=a ns=x": pytest.approx(2 / 3)}),
    ("rate(calls{s='a'}[5m])", {"s=a ns=x": 15 / 300}),
    ("increase(calls{s='a'}[5m])", {"s=a ns=x": 15}),
    ("delta(time{s='a'}[3m])", {"s=a ns=x": 100}),
    ("deriv(calls{s='a'}[5m])", {"s=a ns=x": pytest.approx(1 / 60)}),
    ("rate(time[5m])", ExecutionError),
    ("increase(p[5m])", ExecutionError),
    ("abs(-calls{s='a'})", {"s=a ns=x": 5}),
    ("ceil(calls{s='a'} / 2)", {"s=a ns=x": 3}),
    ("floor(calls{s='a'} / 2)", {"s=a ns=x": 2}),
    ("round(calls{s='a'} / 2)", {"s=a ns=x": 3}),
    ("round(calls{s='b'}, 20)", {"s=b ns=x": 60}),
    ("clamp(calls, 1, 10)", {"s=a ns=x": 5, "s=b ns=x": 10, "s=c ns=y": 1}),
    ("clamp(calls, 10, 1)", {}),
    ("clamp_min(calls{s='a'}, 6)", {"s=a ns=x": 6}),
    ("clamp_max(calls{s='a'}, 4)", {"s=a ns=x": 4}),
    ("sqrt(time{s='a'} / 2)", {"s=a ns=x": 10}),
    ("ln(owner{s='a'})", {"s=a team=red": 0}),
    ("log2(time{s='a'} / 25)", {"s=a ns=x": 3}),
    ("log10(time{s='a'} / 2)", {"s=a ns=x": 2}),
    ("exp(calls{s='c'})", {"s=c ns=y": 1}),
    ("sgn(-calls{s='a'})", {"s=a ns=x": -1}),
    ("timestamp(calls{s='a'})", {"s=a ns=x": BASE_MS / 1_000 + 240}),
    ("timestamp(calls{s='a'} offset 1m)", {"s=a ns=x": BASE_MS / 1_000 + 180}),
    ("absent(calls)", {}),
    ('absent(calls{s="z",ns=~"x"})', {"s=z": 1}),
    ('absent_over_time(calls{s="z"}[5m])', {"s=z": 1}),
    ('label_replace(errors, "t", "$1-$2$$", "s", "(.)(.*)")', {"errors s=a ns=x t=a-$": 1}),
    ('label_replace(errors, "s", "", "ns", ".*")', {"errors ns=x": 1}),
    ('label_replace(errors, "t", "no", "s", "b")', {"errors s=a ns=x": 1}),
    ('label_replace(calls, "s", "", "s", ".*")', ExecutionError),
    ('label_replace(errors, "t", "$name", "s", "(?P<name>.*)")', PromqlError),
    ('label_join(errors, "t", "/", "s", "ns")', {"errors s=a ns=x t=a/x": 1}),
    ('label_replace(errors, "t", "x", "s", "(")', PromqlError),
    ("histogram_quantile(0.9, calls)", PromqlError),
    ("max_over_time(rate(calls[1m])[5m:1m])", PromqlError),
    ("predict_linear(calls[5m], 60)", PromqlError),
    ("limitk(1, calls)", PromqlError),
    ("calls{s='a' or s='b'}", PromqlError),
    ("sum(calls) + fill(0) sum(errors)", PromqlError),
    ("calls + 'a'", PromqlError),
    ("0 / (calls{s='c'})", {"s=c ns=y": NAN}),
    ("(0 / calls) == (0 / calls)", {"s=a ns=x": 0, "s=b ns=x": 0}),
    ("max(0 / calls)", {"": 0}),
]


def labels(short: str) -> tuple[tuple[str, str], ...]:
    pairs = (one.split("=") if "=" in one else ["__name__", one] for one in short.split())
    return tuple(sorted((name, value) for name, value in pairs))


@pytest.mark.parametrize(("text", "wanted"), TABLE, ids=[text for text, _ in TABLE])
def test_answers_are_those_by_hand(text: str, wanted: Json) -> None:
    if isinstance(wanted, type):
        with pytest.raises(wanted):
            answer(STORE, text, AT_4)
        return
    found = answer(STORE, text, AT_4)
    if isinstance(wanted, Mapping):
        numbers = {key: values[0] for key, values in found.items()}
        assert numbers == {labels(short): _number(one) for short, one in wanted.items()}
    else:
        assert found == [_number(wanted)]


def _number(wanted: Json) -> Json:
    is_nan = isinstance(wanted, float) and math.isnan(wanted)
    return pytest.approx(wanted, nan_ok=True) if is_nan else wanted


def test_points_look_back_a_step_and_no_further() -> None:
    every_minute = Timeline.between(BASE_MS, BASE_MS + 9 * MINUTE_MS, MINUTE_MS)
    (values,) = answer(STORE, "calls{s='b'}", every_minute).values()
    assert values == [10, N, 30, N, 50, N, N, N, N, 100]
    quick = Timeline.between(BASE_MS + MINUTE_MS, BASE_MS + 3 * MINUTE_MS, 15_000)
    (values,) = answer(STORE, "calls{s='b'}", quick).values()
    # Each minute is seen for a minute, from where it begins.
    assert values == [N, N, N, N, 30, 30, 30, 30, N]
    slow_steps = Timeline.between(BASE_MS + MINUTE_MS, BASE_MS + 9 * MINUTE_MS, 4 * MINUTE_MS)
    (values,) = answer(STORE, "calls{s='b'}", slow_steps).values()
    assert values == [10, 50, 100]


def test_an_instant_looks_back_three_minutes() -> None:
    def at(minute: float) -> Json:
        time_ms = BASE_MS + round(minute * MINUTE_MS)
        return answer(STORE, "calls{s='b'}", Timeline.instant(time_ms))

    assert list(at(6.9).values()) == [[50]]
    assert at(7) == {}


def test_ranges_are_open_at_their_begin() -> None:
    timeline = Timeline.between(BASE_MS, BASE_MS + 9 * MINUTE_MS, MINUTE_MS)
    (values,) = answer(STORE, "sum_over_time(calls{s='a'}[2m])", timeline).values()
    assert values == [1, 3, 5, 7, 9, 11, 13, 15, 17, 19]
    (values,) = answer(STORE, "min_over_time(calls{s='b'}[3m])", timeline).values()
    assert values == [10, 10, 10, 30, 30, 50, 50, N, N, 100]
    (values,) = answer(STORE, "delta(calls{s='b'}[4m])", timeline).values()
    assert values == [N, N, 20, 20, 20, 20, N, N, N, N]
    (values,) = answer(STORE, "quantile_over_time(1, calls{s='b'}[3m])", timeline).values()
    assert values == [10, 10, 30, 30, 50, 50, 50, N, N, 100]


def test_hours_weigh_counts_by_their_minutes() -> None:
    hour_ms = 60 * MINUTE_MS
    start_ms = -(-BASE_MS // hour_ms) * hour_ms
    ahead = [N] * ((start_ms - BASE_MS) // MINUTE_MS)
    source = Arrays([({"__name__": "calls"}, [*ahead, 2.5])])
    timeline = Timeline.between(start_ms, start_ms, hour_ms)
    assert list(answer(source, "calls", timeline).values()) == [[2.5]]
    assert list(answer(source, "increase(calls[1h])", timeline).values()) == [[150]]
    assert list(answer(source, "rate(calls[1h])", timeline).values()) == [[150 / 3600]]
    assert list(answer(source, "avg_over_time(calls[1h])", timeline).values()) == [[2.5]]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("sum(time)", "means (time)"),
        ("sum(time * 2 + 1)", "means (time)"),
        ("sum by (s) (max_over_time(p[5m]))", "percentiles (p)"),
        ("avg(p)", "no percentile"),
        ("sum_over_time(time[5m])", "means (time)"),
        ("rate(calls[5m])", "calls counts per minute"),
        ("sum(calls)", ""),
        ("sum(time * calls) / sum(calls)", ""),
        ("max(p)", ""),
        ("count(time)", ""),
        ("sum(time > bool 5)", ""),
    ],
)
def test_what_has_no_meaning_is_told(text: str, told: str) -> None:
    infos = " ".join(notes_of(STORE, text, AT_4).infos)
    assert (told in infos) if told else not infos


@pytest.mark.parametrize(
    "text",
    [
        "+".join(["1"] * 5_000),
        "(" * 5_000 + "1" + ")" * 5_000,
        "abs(" * 5_000 + "m" + ")" * 5_000,
        "^".join(["1"] * 5_000),
        " and ".join(["m"] * 5_000),
        "-" * 5_000 + "1",
        'm # "\n' + "+1" * 5_000,
        'm{a="' + "x" * 300_000 + '"}',
        "m[5m",
        "m[99999999999999999999999d]",
        "m offset 99999999999y",
        "m @ 1e300",
        "\x00",
        "m{\ud800='a'}".encode("utf-8", "replace").decode(),
        'm{a=~"' + "(" * 2_000 + '"}',
    ],
    ids=range(15),
)
def test_what_the_parser_would_end_at_is_refused(text: str) -> None:
    with pytest.raises(PromqlError):
        answer(STORE, text, AT_4)


def test_a_list_of_many_names_is_no_deep_query() -> None:
    names = "|".join(f"service-{at}\\\\.shop" for at in range(2_000))
    assert answer(STORE, f'calls{{s=~"({names})"}}', AT_4) == {}


def test_ranges_have_bounds() -> None:
    with pytest.raises(PromqlError, match=r"11,000 points"):
        Timeline.between(0, MOST_POINTS * 1_000, 1_000)
    with pytest.raises(PromqlError, match="before"):
        Timeline.between(1_000, 0, 1_000)
    with pytest.raises(PromqlError, match="step"):
        Timeline.between(0, 1_000, 0)
    parse("m")


# A vector over three steps: series of two labels and two names.
_PAIRS = st.fixed_dictionaries(
    {"__name__": st.sampled_from(["m", "n"])},
    optional={"a": st.sampled_from("xy"), "b": st.sampled_from("xy")},
)
_VALUES = st.lists(st.one_of(st.none(), st.integers(-3, 3).map(float)), min_size=3, max_size=3)
_SERIES = st.dictionaries(
    _PAIRS.map(lambda pairs: tuple(sorted(pairs.items()))), _VALUES, max_size=6
)
_NAMES = st.lists(st.sampled_from("ab"), unique=True, max_size=2)
_STEPS = Timeline.between(BASE_MS, BASE_MS + 2 * MINUTE_MS, MINUTE_MS)
_Series = Mapping[tuple[tuple[str, str], ...], Sequence[float | None]]


def arrays(series: _Series) -> Arrays:
    return Arrays([(dict(pairs), values) for pairs, values in series.items()])


def vectors(series: _Series, name: str = "") -> list[dict[slow.Labels, float]]:
    return [
        {
            frozenset(pairs): value
            for pairs, values in series.items()
            if (value := values[step]) is not None and name in {"", dict(pairs)["__name__"]}
        }
        for step in range(3)
    ]


def check(
    series: _Series, text: str, by_step: Callable[[int], Mapping[slow.Labels, float]]
) -> None:
    try:
        wanted: dict[slow.Labels, list[float | None]] | None = {}
        for step in range(3):
            for one, value in by_step(step).items():
                wanted.setdefault(one, [None] * 3)[step] = value
    except slow.ManyError:
        wanted = None
    if wanted is None:
        with pytest.raises(ExecutionError):
            answer(arrays(series), text, _STEPS)
        return
    found = answer(arrays(series), text, _STEPS)
    assert {frozenset(one): values for one, values in found.items()} == {
        one: pytest.approx(values, nan_ok=True) for one, values in wanted.items()
    }, text


@settings(max_examples=60)
@given(
    series=_SERIES,
    name=st.sampled_from(
        ["sum", "avg", "min", "max", "count", "group", "stdvar", "stddev", "quantile"]
    ),
    names=_NAMES,
    is_by=st.booleans(),
)
def test_aggregations_are_those_of_a_slow_evaluator(
    series: _Series, name: str, names: list[str], *, is_by: bool
) -> None:
    by_step = vectors(series)
    key = _chosen(names, is_by=is_by)
    parameter = "0.5, " if name == "quantile" else ""
    grouping = f"{'by' if is_by else 'without'} ({', '.join(names)})"
    text = f'{name} {grouping} ({parameter}{{__name__=~"m|n"}})'
    check(series, text, lambda step: slow.aggregate(name, by_step[step], key))


@settings(max_examples=40)
@given(
    series=_SERIES,
    names=_NAMES,
    is_by=st.booleans(),
    count=st.integers(0, 3),
    largest=st.booleans(),
)
def test_extremes_are_those_of_a_slow_evaluator(
    series: _Series, names: list[str], count: int, *, is_by: bool, largest: bool
) -> None:
    by_step = vectors(series)
    key = _chosen(names, is_by=is_by)
    grouping = f"{'by' if is_by else 'without'} ({', '.join(names)})"
    text = f'{"topk" if largest else "bottomk"} {grouping} ({count}, {{__name__=~"m|n"}})'
    check(series, text, lambda step: slow.extremes(by_step[step], key, count, largest=largest))


@dataclass(frozen=True)
class Matched:
    """An operator of two vectors as it is written."""

    operator: str
    is_bool: bool
    names: list[str]
    is_on: bool
    many: str
    include: list[str]


_MATCHED = st.builds(
    Matched,
    st.sampled_from([*slow.ARITHMETIC, *slow.COMPARISONS]),
    st.booleans(),
    _NAMES,
    st.booleans(),
    st.sampled_from(["", "left", "right"]),
    _NAMES,
)


@settings(max_examples=120)
@given(series=_SERIES, one=_MATCHED)
def test_matching_is_that_of_a_slow_evaluator(series: _Series, one: Matched) -> None:
    operator, names, is_on, many = one.operator, one.names, one.is_on, one.many
    is_bool = one.is_bool and operator in slow.COMPARISONS
    # What is matched on cannot be included.
    include = [name for name in one.include if not is_on or name not in names] if many else []
    left, right = vectors(series, "m"), vectors(series, "n")
    matching = f"{'on' if is_on else 'ignoring'}({', '.join(names)})"
    group = f" group_{many} ({', '.join(include)})" if many else ""
    text = f"m {operator} {'bool ' if is_bool else ''}{matching}{group} n"
    signature = _chosen(names, is_by=is_on)

    def result(base: slow.Labels) -> slow.Labels:
        if is_on:
            return slow.only(base, names)
        return frozenset(pair for pair in base if pair[0] not in names)

    how = slow.Matching(signature, result, many, include)

    def one_step(step: int) -> Mapping[slow.Labels, float]:
        return slow.binary(operator, left[step], right[step], how, is_bool=is_bool)

    check(series, text, one_step)


@settings(max_examples=40)
@given(
    series=_SERIES,
    name=st.sampled_from(["and", "or", "unless"]),
    names=_NAMES,
    is_on=st.booleans(),
)
def test_sets_are_those_of_a_slow_evaluator(
    series: _Series, name: str, names: list[str], *, is_on: bool
) -> None:
    left, right = vectors(series, "m"), vectors(series, "n")
    text = f"m {name} {'on' if is_on else 'ignoring'}({', '.join(names)}) n"
    signature = _chosen(names, is_by=is_on)
    check(series, text, lambda step: slow.sets(name, left[step], right[step], signature))


def _chosen(names: Sequence[str], *, is_by: bool) -> Callable[[slow.Labels], slow.Labels]:
    if is_by:
        return lambda pairs: slow.only(pairs, names)
    return lambda pairs: slow.without(pairs, names)


PIECES = [
    "calls", "time", "p", "{", "}", "(", ")", "[5m]", "[1h:1m]", "[", "]", ",", '"', "'", "`",
    "\\", "=", "!=", "=~", "!~", "+", "-", "*", "/", "%", "^", "==", ">", " and ", " or ",
    " unless ", " bool ", " on (s)", " ignoring ()", " group_left ", "sum", " by (p)", " without ",
    "topk(2, ", "quantile(0.5,", 'count_values("a",', "rate(", "abs(", "label_replace(", "absent(",
    "scalar(", "vector(", "time()", " offset 5m", " offset -5m", " @ end()", " @ 1e9", "NaN",
    "Inf", "-1", "1e308", "0x1f", "1e999", "3", 's="a"', 's=~".*"', 's=~"["', "p='50,99'",
    "__name__", '__name__=~".+"', "\x00", "\n", "#", "\u2028", "\U0001f600", ";", "$1",
]  # fmt: skip


def test_any_text_is_answered_or_refused() -> None:
    draw = random.Random(16)  # noqa: S311 - the same texts each time
    answered = 0
    for _ in range(1_700):
        text = draw.choice(TABLE)[0]
        for _ in range(draw.randint(1, 3)):
            first, end = sorted(draw.choices(range(len(text) + 1), k=2))
            text = text[:first] + draw.choice([*PIECES, "", ""]) + text[min(end, first + 2) :]
        try:
            evaluate(parse(text), STORE, AT_4)
        except PromqlError:
            continue
        answered += 1
    assert 50 < answered < 1_600
