"""The mutation run: what it changes, and that it refuses to run against anything else."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from loaded import MODULE, MUTANT, NOT_LOADED
from mutants import mutants_of
from run import ROOMS, ROOT, all_mutants, room_of, sample


def changed(source: str) -> set[str]:
    """Return what becomes of a module of one statement."""
    code = source.encode()
    mutants = mutants_of("module.py", code)
    assert {one.line for one in mutants} <= {1}
    return {ast.unparse(ast.parse(one.applied(code))) for one in mutants}


@pytest.mark.parametrize(
    ("source", "others"),
    [
        ("a < b", {"a <= b", "a >= b"}),
        ("a == b", {"a != b"}),
        ("a and b", {"a or b", "a", "b"}),
        ("(a & b).c", {"(a | b).c", "a.c", "b.c"}),
        ("a * (b + c)", {"a // (b + c)", "a * (b - c)"}),
        ("not a", {"a"}),
        ("a = True", {"a = False"}),
        ("a = 7", {"a = 8"}),
        ("a += b", {"a -= b"}),
        ("a = min(b)", {"a = max(b)"}),
        ("a = b.filter(c)", {"a = b"}),
        ("a = [b for b in c if d]", {"a = [b for b in c]"}),
        ("a = b if c else d", {"a = b if not c else d"}),
        ("a.b(c)", {"pass"}),
        ("a = 'SELECT b WHERE c < 1 AND d'", {
            "a = 'SELECT b WHERE c <= 1 AND d'",
            "a = 'SELECT b WHERE c < 1 OR d'",
        }),
        ("a: Literal[1] = b", set()),
        ("'''A text for readers.'''", set()),
        ("from a import b", set()),
    ],
)  # fmt: skip
def test_what_a_statement_becomes(source: str, others: set[str]) -> None:
    assert changed(source) == others


def test_only_functions_with_several_returns_give_nothing() -> None:
    assert changed("def f(): return a") == set()
    code = b"def f():\n  if a == b:\n    return c\n  return d\n"
    assert {one.line for one in mutants_of("module.py", code) if "None" in one.change} == {3, 4}


def test_letters_of_several_bytes_move_nothing() -> None:
    assert changed("a = 'é', b < c") == {"a = ('é', b <= c)", "a = ('é', b >= c)"}


def test_the_sample_is_fixed_spread_and_of_code_that_can_be_compiled() -> None:
    mutants = {room: all_mutants(room) for room in ROOMS}
    chosen = sample(mutants, 100, seed=11)
    assert chosen == sample(mutants, 100, seed=11) != sample(mutants, 100, seed=12)
    assert len(set(chosen)) == 100
    total = sum(map(len, mutants.values()))
    for room, count in Counter(map(room_of, chosen)).items():
        assert abs(count - 100 * len(mutants[room]) / total) < 1
    for one in chosen:
        source = (ROOT / one.path).read_bytes()
        assert ast.dump(ast.parse(one.applied(source))) != ast.dump(ast.parse(source))


def test_without_the_mutant_no_test_runs(tmp_path: Path) -> None:
    (tmp_path / "test_nothing.py").write_text("def test_nothing(): pass\n", encoding="utf-8")
    named = {MODULE: "framewalk.engine.errors", MUTANT: "errors.py:1 of another place"}
    run = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "loaded", tmp_path],
        env=os.environ | named | {"PYTHONPATH": str(Path(__file__).parent)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == NOT_LOADED
    assert "is not the mutant" in run.stderr
