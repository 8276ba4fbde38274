"""`framewalk snapshot`: a copy of a store that somebody writes."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape

from framewalk.cli.console import byte_progress, print_summary
from framewalk.cli.sources import (
    DEFAULT_STORE,
    Asked,
    CaOption,
    CertificateOption,
    KeyOption,
    ServerOption,
    StoreOption,
    TokenOption,
    open_store,
)
from framewalk.engine.errors import InputError, StoreError, StoreLockedError
from framewalk.engine.paths import keep_files_private
from framewalk.engine.store import connect
from framewalk.queries.reading import copy_database, remove_copy

if TYPE_CHECKING:
    from framewalk.queries.sql_endpoint import SqlClient


def snapshot(
    context: typer.Context,
    file: Annotated[
        Path,
        typer.Argument(metavar="FILE", help="The DuckDB file to make.", show_default=False),
    ],
    store: StoreOption = DEFAULT_STORE,
    server: ServerOption = None,
    token: TokenOption = None,
    tls_ca: CaOption = None,
    tls_certificate: CertificateOption = None,
    tls_key: KeyOption = None,
    *,
    force: Annotated[bool, typer.Option("--force", help="Overwrite FILE.")] = False,
) -> None:
    """Copy a store, as of one moment, while a server goes on writing it.

    The copy is a DuckDB file with all tables and views, for notebooks and other programs.
    """
    _check_target(file, store, force=force)
    asked = Asked(context, store, server, token, tls_ca, tls_certificate, tls_key)
    running = asked.find_server()
    keep_files_private()
    partial = file.with_name(f"{file.name}.partial")
    remove_copy(partial)
    try:
        if running is not None:
            _fetch(running, partial)
        else:
            _copy(store, partial)
        # A log of changes belongs to the file that was there before.
        file.with_name(f"{file.name}.wal").unlink(missing_ok=True)
        partial.replace(file)
    finally:
        remove_copy(partial)
    source = str(store) if running is None else running.url
    print_summary([("snapshot", str(file)), ("of", source), ("bytes", f"{file.stat().st_size:,}")])


def _check_target(file: Path, store: Path, *, force: bool) -> None:
    if file.resolve() == store.resolve():
        raise InputError(file, "this is the store itself", "name another file")
    if file.is_dir():
        raise InputError(file, "this is a folder", "name a file in it")
    if not file.exists():
        return
    if not force:
        remedy = "name another file, or overwrite it with --force"
        raise InputError(file, "this file is there already", remedy)
    _check_unused(file)


def _check_unused(file: Path) -> None:
    """Refuse a file that a server or another process writes: it would lose what it has done."""
    try:
        connect(file, read_only=True).close()
    except StoreLockedError:
        raise
    except StoreError:
        # Whatever else it is, it may be overwritten.
        return


def _fetch(server: SqlClient, partial: Path) -> None:
    with byte_progress() as progress:
        task = progress.add_task(escape(server.url), total=None)
        with partial.open("wb") as target:
            server.snapshot(
                target, lambda done, size: progress.update(task, completed=done, total=size)
            )
            os.fsync(target.fileno())


def _copy(store: Path, partial: Path) -> None:
    with open_store(store) as source, byte_progress() as progress:
        # About as long as the store, as far as one can know.
        task = progress.add_task(escape(store.name), total=store.stat().st_size)

        def show() -> None:
            size_bytes = partial.stat().st_size if partial.exists() else 0
            progress.update(task, completed=size_bytes)

        source.interruptible(lambda connection: copy_database(connection, partial), show)
