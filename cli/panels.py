"""`framewalk panels`: the pages that user interfaces show, as files."""

from __future__ import annotations

import shutil
from collections import Counter
from pathlib import Path
from typing import Annotated

import typer
from rich.text import Text

from framewalk.cli.console import counted, stdout
from framewalk.cli.definitions import OalOption
from framewalk.cli.rows import Format, FormatOption, print_rows
from framewalk.engine import load_plan
from framewalk.engine.errors import InputError
from framewalk.queries.panels import Severity, check_pages, read_pages, shipped_pages

panels = typer.Typer(
    name="panels",
    help="Check, list and export the pages of panels that user interfaces show (*.json).",
    no_args_is_help=True,
    add_completion=False,
)

FolderArgument = Annotated[
    Path | None,
    typer.Argument(
        metavar="FOLDER",
        help="The folder with pages, such as config/ui-initialized-templates/k8s_service. "
        "Default: the shipped pages.",
        show_default=False,
    ),
]


@panels.command()
def check(
    folder: FolderArgument = None,
    oal: OalOption = None,
) -> None:
    """Find what is wrong with pages: their form, expressions, metrics and links.

    Exits with 1 if there is an error; warnings alone are fine: a panel that
    cannot be shown stays empty, and the others are shown.
    """
    pages, findings = read_pages(*_named(folder))
    metrics = {metric.name for metric in load_plan(oal or ()).metrics}
    findings += check_pages(pages, metrics)
    for finding in findings:
        stdout.print(Text(str(finding)))
    counts = Counter(finding.severity for finding in findings)
    stdout.print(
        Text(
            f"{counted(len(pages), 'page')}, {counted(counts[Severity.ERROR], 'error')}, "
            f"{counted(counts[Severity.WARNING], 'warning')}"
        )
    )
    if counts[Severity.ERROR]:
        raise typer.Exit(1)


@panels.command("list")
def list_pages(
    folder: FolderArgument = None,
    output: FormatOption = None,
) -> None:
    """List pages: their entity, widgets and expressions."""
    pages, findings = read_pages(*_named(folder))
    rows = []
    for one in pages:
        widgets = list(one.page.widgets())
        expressions = sum(len(list(widget.every_expression())) for widget in widgets)
        row = (one.page.name, one.page.entity, len(widgets), expressions, one.path.name)
        rows.append(row)
    columns = ("page", "entity", "widgets", "expressions", "file")
    print_rows(output or (Format.TABLE if stdout.is_terminal else Format.CSV), columns, rows)
    for finding in findings:
        stdout.print(Text(str(finding)))


@panels.command()
def export(
    folder: Annotated[
        Path, typer.Argument(metavar="FOLDER", help="Where to write them: a new folder, or one.")
    ],
) -> None:
    """Write the shipped pages to a folder, as a start for your own.

    Files that are there are left alone.
    """
    pages = shipped_pages()
    taken = [one.path.name for one in pages if (folder / one.path.name).exists()]
    if taken:
        problem = f"{', '.join(taken)} is there already"
        raise InputError(folder, problem, "name another folder, or move them away")
    folder.mkdir(parents=True, exist_ok=True)
    for one in pages:
        shutil.copyfile(one.path, folder / one.path.name)
        stdout.print(Text(str(folder / one.path.name)))


def _named(folder: Path | None) -> list[Path]:
    return [] if folder is None else [folder]
