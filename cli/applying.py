"""`framewalk definitions`: what a running server computes, changed while it runs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from framewalk.cli.changes import RefusedError, running_server
from framewalk.cli.console import print_summary, say, warn
from framewalk.cli.ranges import length_of
from framewalk.cli.sources import DEFAULT_STORE, StoreOption
from framewalk.engine.errors import InputError
from framewalk.server.changing import Request, State

if TYPE_CHECKING:
    from framewalk.server.changing import Answer

definitions = typer.Typer(
    name="definitions",
    help="Change what a running server computes.",
    no_args_is_help=True,
    add_completion=False,
)
_NO_SERVER: Final = "start one with `framewalk serve`; it has to answer SQL (FRAMEWALK_SQL)"


@definitions.callback()
def _group() -> None:
    """Change what a running server computes."""


@definitions.command()
def apply(
    paths: Annotated[
        list[Path],
        typer.Argument(
            metavar="PATH",
            exists=True,
            help="OAL files, or folders whose *.oal files are taken; the server reads them.",
        ),
    ],
    store: StoreOption = DEFAULT_STORE,
    recompute: Annotated[
        str | None,
        typer.Option(
            "--recompute",
            metavar="LENGTH",
            help="Make what is new or has changed again, out of the archive, for so long back: "
            "24h, 7d.",
            show_default=False,
        ),
    ] = None,
    *,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would change, and change nothing.")
    ] = False,
) -> None:
    """Have a running server take other definitions, from the next minute on.

    Says first what changes. Definitions with an error are refused as a whole.

    They stay in force over restarts, until its configuration names others.
    """
    back_s = 0.0 if recompute is None else length_of(recompute, "--recompute").total_seconds()
    server = running_server(store)
    if server is None:
        raise InputError(store, "no running server has this store open", _NO_SERVER)
    request = Request("", 0, tuple(path.resolve() for path in paths), recompute_s=back_s)
    try:
        told = server.exchange(Request("", 0, request.oal_paths, only_tell=True), {State.TOLD})
        _print_changes(told)
        if dry_run:
            return
        done = server.exchange(request, {State.DONE if _is_remade(told, back_s) else State.APPLIED})
    except RefusedError as error:
        say(str(error))
        raise typer.Exit(1) from error
    print_made(done)


_KINDS: Final = ("new", "another meaning", "gone")


def _is_remade(told: Answer, back_s: float) -> bool:
    changes = told.changes
    return bool(back_s and (changes.get("new") or changes.get("another meaning")))


def _print_changes(told: Answer) -> None:
    rows = [(kind, name) for kind in _KINDS for name in told.changes.get(kind, ())]
    rows += [("changed", name) for name in told.changes.get("others", ())]
    print_summary([*rows, ("unchanged", f"{told.unchanged:,}")])


def print_made(done: Answer) -> None:
    """Print what a server made again, and what it did not."""
    for name, reason in sorted(done.refused.items()):
        warn(f"{name} is not made: {reason}")
    if done.skipped:
        warn(f"{done.skipped:,} minutes keep what they have: they cannot be made again")
    if done.state is State.APPLIED:
        print_summary([("definitions", "in force")])
        return
    rows = [("metrics", f"{done.metrics:,}"), ("minutes", f"{done.done:,}")]
    rows += [("logs named", f"{done.named:,}")] if done.named is not None else []
    print_summary([*rows, ("logs", f"{done.logs:,}")])
