"""`framewalk oal`: check, format and explain definitions."""

from __future__ import annotations

import os
import shutil
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.text import Text

from framewalk.cli.console import counted, stdout, warn
from framewalk.cli.definitions import OalOption
from framewalk.engine import load_plan
from framewalk.engine.errors import InputError
from framewalk.engine.explain import explain_metric, explain_plan, find_metric
from framewalk.engine.oal import (
    definition_files,
    format_script,
    parse_bytes,
    read_bytes,
    read_definitions,
)

if TYPE_CHECKING:
    from collections.abc import Iterable

    from framewalk.engine.explain import Section
    from framewalk.engine.oal import Diagnostic

oal = typer.Typer(
    name="oal",
    help="Check, format and explain the definitions of metrics (*.oal).",
    no_args_is_help=True,
    add_completion=False,
)

_PATHS = "OAL files, or folders whose *.oal files are taken."


@oal.command()
def check(
    paths: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="PATH", help=f"{_PATHS} Default: the shipped ones.", show_default=False
        ),
    ] = None,
    *,
    skip_unknown_scopes: Annotated[
        bool,
        typer.Option(
            "--skip-unknown-scopes",
            help="Definitions of scopes, and disables of metrics, that framewalk does not have "
            "are a warning, no error.",
        ),
    ] = False,
) -> None:
    """Find every error of definitions, in one run and without a store.

    Exits with 1 if there is one; warnings alone are fine.

    All files are checked together, as names are unique across them.
    """
    found = read_definitions(paths or (), skip_unknown_scopes=skip_unknown_scopes)
    _print_findings(found.diagnostics)
    counts = [
        counted(len(found.files), "file"),
        counted(found.definitions, "definition"),
        counted(found.errors, "error") if found.errors else "no errors",
    ]
    if found.warnings:
        counts.append(counted(found.warnings, "warning"))
    _print(", ".join(counts))
    if found.errors:
        raise typer.Exit(1)


@oal.command("format")
def format_files(
    paths: Annotated[list[Path], typer.Argument(metavar="PATH", help=_PATHS)],
    *,
    only_check: Annotated[
        bool,
        typer.Option("--check", help="Change nothing; exit with 1 if a file would change."),
    ] = False,
) -> None:
    """Write definitions in their canonical form, comments and order kept.

    A file with syntax errors is left as it is, and the exit code is 1.
    """
    changed = 0
    findings: list[Diagnostic] = []
    files = definition_files(paths)
    for path in files:
        data = read_bytes(path)
        parsed = parse_bytes(data, path)
        findings.extend(parsed.diagnostics)
        canonical = format_script(parsed.script).encode()
        if parsed.diagnostics or canonical == data:
            continue
        changed += 1
        if not only_check:
            _replace(path, canonical)
        _print(f"{'would change' if only_check else 'changed'} {path}")
    _print_findings(findings)
    wrong = len({finding.path for finding in findings})
    counts = [counted(changed, "file") + (" would change" if only_check else " changed")]
    counts.append(f"{len(files) - changed - wrong} unchanged")
    if wrong:
        counts.append(f"{wrong} with errors")
    _print(", ".join(counts))
    if wrong or (only_check and changed):
        raise typer.Exit(1)


@oal.command()
def explain(
    metric: Annotated[
        str | None,
        typer.Argument(
            metavar="METRIC", help="The metric. Default: all, in numbers.", show_default=False
        ),
    ] = None,
    definitions: OalOption = None,
) -> None:
    """Show what a definition means and how its values are computed.

    Prints its states, both phases, the Polars expressions and the column of the views.

    Then one DuckDB query over the logs that gives the same values.
    """
    plan = load_plan(definitions or (), on_warning=lambda warning: warn(str(warning)))
    if metric is None:
        _print_sections(explain_plan(plan))
        return
    try:
        found = find_metric(plan, metric)
    except LookupError as error:
        remedy = str(error.args[0]) or "`framewalk sql` with `FROM metrics` lists those of a store"
        raise InputError(metric, "there is no such metric", remedy) from error
    _print_sections(explain_metric(plan, found))


def _replace(path: Path, data: bytes) -> None:
    """Put a file's new content in its place at once; its mode stays, and links to it."""
    target = path.resolve()
    descriptor, name = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.")
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        shutil.copymode(target, name)
        Path(name).replace(target)
    except BaseException:
        with suppress(OSError):
            Path(name).unlink()
        raise


def _print_findings(findings: Iterable[Diagnostic]) -> None:
    for finding in findings:
        _print(f"{finding}\n")


def _print_sections(sections: Iterable[Section]) -> None:
    for number, section in enumerate(sections):
        if number:
            _print("")
        stdout.print(Text(section.title, style="bold"))
        for line in section.lines:
            _print(f"  {line}".rstrip())


def _print(text: str) -> None:
    """Print a text as it is."""
    stdout.print(text, markup=False, highlight=False, emoji=False)
