"""What the commands say, and where: answers on standard output, everything else on error."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import typer
from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    ProgressColumn,
    TextColumn,
    TimeRemainingColumn,
)
from rich.table import Table
from rich.text import Text

from framewalk.cli.streams import make_writable

make_writable()
# Nothing is wrapped in a pipe: a line stays a line.
_PIPE_WIDTH = None if sys.stdout.isatty() else 10_000


class _Console(Console):
    def on_broken_pipe(self) -> None:
        """Leave it to the caller, as `print` does."""
        raise BrokenPipeError


stdout = _Console(soft_wrap=True, width=_PIPE_WIDTH)
stderr = Console(stderr=True, soft_wrap=True)


def complain(message: str) -> None:
    """Print an error."""
    _say("error", "bold red", message)


def warn(message: str) -> None:
    """Print a warning."""
    _say("warning", "bold yellow", message)


def say(message: str) -> None:
    """Print to standard error without a label."""
    stderr.print(Text(message))


def counted(number: int, noun: str) -> str:
    """Return a number of things with their name, which has an s where it is not one."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def _say(label: str, style: str, message: str) -> None:
    stderr.print(Text.assemble((f"{label}: ", style), message))


def print_summary(rows: list[tuple[str, str]]) -> None:
    """Print names and values: aligned in a terminal, separated by a tab in a pipe."""
    if not stdout.is_terminal:
        for name, value in rows:
            typer.echo(f"{name}\t{value}")
        return
    table = Table(show_header=False, box=None)
    table.add_column(justify="left")
    table.add_column(justify="right")
    for row in rows:
        table.add_row(*row)
    stdout.print(table)


def byte_progress() -> Progress:
    """Return a progress bar over bytes; it shows in a terminal only, and leaves nothing."""
    return _progress(DownloadColumn())


@contextmanager
def minute_progress(name: str) -> Iterator[Callable[[int, int], None]]:
    """Show a progress bar over minutes; yields what to call with how many are done, of how many."""
    with _progress(TextColumn("{task.completed:,.0f}/{task.total:,.0f} minutes")) as progress:
        task = progress.add_task(name, total=0)
        yield lambda done, every: progress.update(task, completed=done, total=every)


def second_progress() -> Progress:
    """Return a progress bar over seconds of a capture; like byte_progress otherwise."""
    return _progress(TextColumn("{task.completed:,.0f}/{task.total:,.0f} s"))


def _progress(amount: ProgressColumn) -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        amount,
        TimeRemainingColumn(),
        console=stderr,
        transient=True,
        disable=not stderr.is_terminal,
    )
