"""Whatever the text, the layers of OAL give metrics or diagnostics: none of them breaks.

`python tests/oal/test_fuzz.py 1000000` runs as many inputs as it is told.
"""

from __future__ import annotations

import random
import sys
from collections import Counter
from collections.abc import Iterator

from framewalk.engine.explain.metric import explain_metric
from framewalk.engine.oal.binding import bind
from framewalk.engine.oal.catalogue import SCOPES, ValueType
from framewalk.engine.oal.files.definitions import read_definitions
from framewalk.engine.oal.functions import FUNCTIONS
from framewalk.engine.oal.parser import parse
from framewalk.engine.oal.plan import make_plan
from framewalk.engine.oal.syntax import Cast, Operator, format_script

SCRAPS = [
    *'\n;.,()[]*"\\/-=<>_ ',
    *("'", "\0", "\r\n", "\t", "\ufeff", "\ud800", "数", "é", "//", "/*", "*/", "1_0L", "9" * 30),
    *("from(", ".filter(", ".decorator(", "disable(", " like ", " in ", " not contain ", "true"),
    *("null", "false", "(long)", "(str->int)", "->", "==", "!=", "&&", '"x"', '"%x"', '"\\u'),
    *("DetectPoint.SERVER", "a.b", "D.E", "a = from(K8SService.*)", ".cpm()", ".percentile2(10);"),
    *("0", "1", "49", "9223372036854775807", "9223372036854775808", "-1", "1.5", "[]", '["read"]'),
]
PATHS = sorted({path for scope in SCOPES.values() for path in scope.attributes})
WORDS = [*SCOPES, *PATHS, *FUNCTIONS, *Operator, *Cast, *SCRAPS]
VALUES = [
    *('"read"', '"write"', '"protocol"', '"http"', '"K8S_SERVICE"', '"%e"', '"r%"', '"%"', '""'),
    *("0", "1", "500", "49", "7", "9223372036854775807", "true", "false", "null"),
    *("DetectPoint.SERVER", "DetectPoint.CLIENT", "DetectPoint.NOBODY", '["read", "write"]'),
    *("[1, 2]", "[true]", "[null]", "[DetectPoint.PROXY]"),
]


def definitions() -> list[str]:
    found = read_definitions()
    return [f"{statement}\n" for file in found.files for statement in file.script.statements]


def texts(seed: int) -> Iterator[tuple[str, str]]:
    """Make inputs without end, each with the kind of its making."""
    source = random.Random(seed)  # noqa: S311 - it has to be the same again
    real = definitions()
    while True:
        yield "scraps", "".join(source.choices(SCRAPS, k=source.randrange(12)))
        yield "mutated", mutated(source, source.choice(real))
        yield "mutated twice", mutated(source, mutated(source, source.choice(real)))
        yield "made up", "".join(made_up(source, f"m{n}") for n in range(source.randrange(1, 4)))


def mutated(source: random.Random, text: str) -> str:
    start = source.randrange(len(text))
    end = min(len(text), start + source.randrange(20))
    match source.randrange(5):
        case 0:
            return text[:start] + text[end:]
        case 1:
            return text[:end] + text[start:]
        case 2:
            return text[:start] + chr(source.randrange(0x250)) + text[start + 1 :]
        case 3:
            return text[:start] + source.choice(WORDS) + text[end:]
        case _:
            words = text.replace("(", " ( ").replace(")", " ) ").split(" ")
            words[source.randrange(len(words))] = source.choice(WORDS)
            return " ".join(words)


FITTING = {
    ValueType.LONG: ("== 5", "> 0", "<= 9223372036854775807", "in [1, 2]", "!= null", "< 3"),
    ValueType.STRING: ('== "read"', '!= "x"', 'like "%e"', 'in ["http", "write"]', "== null"),
    ValueType.BOOLEAN: ("== true", "!= false", "in [true]", "== null"),
    ValueType.DETECT_POINT: ("== DetectPoint.SERVER", "in [DetectPoint.CLIENT]"),
    ValueType.COMPONENTS: ("contain 49", "not contain 110"),
}


def made_up(source: random.Random, name: str) -> str:
    """Make a definition that can be parsed and sometimes be bound."""
    scope = source.choice(list(SCOPES))
    attribute = "*" if source.random() < 0.2 else attribute_of(source, scope)
    cast = source.choice(list(Cast)) if source.random() < 0.1 else ""
    filters = [f".filter({condition(source, scope)})" for _ in range(source.randrange(4))]
    function = source.choice(list(FUNCTIONS))
    number = len(FUNCTIONS[function].parameters) if source.random() < 0.9 else source.randrange(4)
    arguments = ", ".join(argument(source, scope) for _ in range(number))
    return f"{name} = from({cast}{scope}.{attribute}){''.join(filters)}.{function}({arguments});\n"


def attribute_of(source: random.Random, scope: str) -> str:
    known = [*SCOPES[scope].attributes] if source.random() < 0.95 else PATHS
    return source.choice(known)


def condition(source: random.Random, scope: str) -> str:
    path = attribute_of(source, scope)
    known = SCOPES[scope].attributes.get(path)
    if known is not None and source.random() < 0.8:
        return f"{path} {source.choice(FITTING[known.type])}"
    cast = source.choice(list(Cast)) if source.random() < 0.5 else ""
    return f"{cast}{path} {source.choice(list(Operator))} {source.choice(VALUES)}"


def argument(source: random.Random, scope: str) -> str:
    match source.randrange(4):
        case 0:
            return source.choice(VALUES)
        case 1:
            return condition(source, scope)
        case 2 if source.random() < 0.3:
            return f"{source.choice(list(Cast))}{attribute_of(source, scope)}"
        case _:
            return attribute_of(source, scope)


def compile_text(text: str, *, skip_unknown_scopes: bool) -> int:
    """Take a text through all layers; return the number of metrics."""
    parsed = parse(text, "x.oal")
    format_script(parsed.script)
    bound = bind([parsed], skip_unknown_scopes=skip_unknown_scopes)
    for diagnostic in bound.diagnostics:
        assert str(diagnostic).startswith("x.oal:")
    plan = make_plan(bound.metrics)
    for metric in bound.metrics:
        assert explain_metric(plan, metric)
        assert metric.unit is not None
    return len(bound.metrics)


def run(seed: int, inputs: int) -> Counter[str]:
    counts: Counter[str] = Counter()
    for number, (kind, text) in zip(range(inputs), texts(seed), strict=False):
        try:
            metrics = compile_text(text, skip_unknown_scopes=number % 3 == 0)
        except Exception as error:
            message = f"seed {seed}, input {number}: {text!r}"
            raise AssertionError(message) from error
        counts[kind] += 1
        counts["metrics"] += metrics
    return counts


def test_arbitrary_text_gives_metrics_or_diagnostics() -> None:
    counts = run(seed=1, inputs=2_000)
    assert counts["mutated"] > 20
    assert counts["metrics"] > 20


if __name__ == "__main__":
    seed = int(sys.argv[2]) if len(sys.argv) > 2 else 2
    sys.stdout.write(f"{run(seed, int(sys.argv[1]))}\n")
