"""Diagnostics: how they read, and the messages of the parser as people see them."""

from __future__ import annotations

import os
import pickle
from difflib import get_close_matches
from pathlib import Path

import pytest

from framewalk.engine import Plan
from framewalk.engine.errors import FramewalkError
from framewalk.engine.oal.diagnostics import (
    DefinitionError,
    Diagnostic,
    Severity,
    SourceText,
    did_you_mean,
    render,
    suggest,
)
from framewalk.engine.oal.parser import parse

HERE = Path(__file__).parent


def test_a_message_names_place_got_wanted_and_hint() -> None:
    source = SourceText("\nfoo = from(K8SService.connect.duration).longAv();\n", "x.oal")
    diagnostic = source.diagnostic(
        source.span(41, 47),
        "unknown function 'longAv'",
        got="longAv",
        wanted="one of longAvg, sum",
        hint="did you mean longAvg?",
    )
    assert str(diagnostic) == (
        "x.oal:2:41: error: unknown function 'longAv'; got longAv, want one of longAvg, sum\n"
        "    foo = from(K8SService.connect.duration).longAv();\n"
        "                                            ^^^^^^\n"
        "hint: did you mean longAvg?"
    )


def test_what_is_empty_is_left_out() -> None:
    assert str(Diagnostic("x.oal", 1, 1, 0, "no file")) == "x.oal:1:1: error: no file"


@pytest.mark.parametrize(
    ("line", "shown", "marks"),
    [
        ("\tx", "        x", "        ^"),
        ("a\tx", "    a   x", "        ^"),
        ("数数x", "    数数x", "        ^"),
        ("\uff21x", "    \uff21x", "      ^"),
        ("e\u0301x", "    e\u0301x", "     ^"),
        ("\0\ud800x", "    \ufffd\ufffdx", "      ^"),
        ("\u200bx", "    \ufffdx", "     ^"),
    ],
)
def test_the_mark_stands_under_the_character(line: str, shown: str, marks: str) -> None:
    source = SourceText(line)
    at = line.index("x")
    _, second, third = str(source.diagnostic(source.span(at, at + 1), "m")).splitlines()
    assert (second, third) == (shown, marks)


def test_a_wide_character_has_a_wide_mark() -> None:
    source = SourceText("数数\t.")
    assert str(source.diagnostic(source.span(0, 1), "m")).endswith("\n    ^^")
    source = SourceText("ab\t.")
    assert str(source.diagnostic(source.span(1, 3), "m")).endswith("\n     ^^^")


def test_only_the_neighbourhood_of_a_long_line_is_shown() -> None:
    source = SourceText("a" * 5_000 + "x" + "b" * 5_000)
    shown, marks = str(source.diagnostic(source.span(5_000, 9_000), "m")).splitlines()[1:]
    assert shown.strip() == "…" + "a" * 70 + "x" + "b" * 89 + "…"
    assert marks == " " * 75 + "^" * 90


def test_a_span_over_several_lines_is_marked_on_its_first() -> None:
    source = SourceText("one\r\ntwo\r\nthree")
    diagnostic = source.diagnostic(source.span(5, 12), "m")
    assert (diagnostic.line, diagnostic.column, diagnostic.length) == (2, 2, 2)
    at_end = source.diagnostic(source.span(13, 13), "m")
    assert (at_end.line, at_end.column, at_end.length) == (3, 6, 1)


def test_an_error_shows_all_findings_and_their_number() -> None:
    findings = [
        Diagnostic("a.oal", 1, 1, 1, "one"),
        Diagnostic("b.oal", 1, 1, 1, "two"),
        Diagnostic("b.oal", 2, 1, 1, "three", severity=Severity.WARNING),
    ]
    error = DefinitionError(findings)
    assert isinstance(error, FramewalkError)
    assert error.diagnostics == tuple(findings)
    assert error.place == "a.oal, b.oal"
    assert str(error) == (
        "a.oal:1:1: error: one\n\nb.oal:1:1: error: two\n\nb.oal:2:1: warning: three\n\n"
        "2 errors and 1 warning in 2 files"
    )
    again = pickle.loads(pickle.dumps(error))  # noqa: S301 - of this test's own making
    assert (str(again), again.diagnostics) == (str(error), error.diagnostics)


@pytest.mark.parametrize(
    ("findings", "tally"),
    [
        ([], "0 errors in 0 files"),
        ([Diagnostic("a", 1, 1, 1, "m")], "1 error in 1 file"),
        ([Diagnostic("a", 1, 1, 1, "m", severity=Severity.WARNING)] * 2, "2 warnings in 1 file"),
    ],
)
def test_the_tally(findings: list[Diagnostic], tally: str) -> None:
    assert render(findings).splitlines()[-1] == tally


def test_a_suggestion_is_near_or_none() -> None:
    functions = ["longAvg", "doubleAvg", "sum"]
    assert suggest("longAv", functions) == "longAvg"
    assert suggest("LONGAVG", functions) == "longAvg"
    assert suggest("rate", functions) is None
    assert suggest("x" * 10_000, functions) is None
    assert did_you_mean("smu", functions) == "did you mean sum?"
    assert did_you_mean("rate", functions) == ""


@pytest.mark.parametrize("left", [0, 11, 27])
def test_of_many_names_that_are_alike_the_nearest_is_found(left: int, plan: Plan) -> None:
    names = [metric.name for metric in plan.metrics]
    for name in names[:: len(names) // 5]:
        word = name[:left] + name[left + 1 :]
        assert [suggest(word, names)] == get_close_matches(word, names, n=1)


@pytest.mark.parametrize("name", ["bad", "poor"])
def test_the_messages_of_wrong_files(name: str) -> None:
    """Set UPDATE_SNAPSHOTS=1 to write down what is said now, and read the difference."""
    text = (HERE / f"{name}.oal").read_text(encoding="utf-8")
    messages = render(parse(text, f"{name}.oal").diagnostics) + "\n"
    snapshot = HERE / f"{name}.txt"
    if os.environ.get("UPDATE_SNAPSHOTS"):
        snapshot.write_text(messages, encoding="utf-8")
    assert messages == snapshot.read_text(encoding="utf-8")
