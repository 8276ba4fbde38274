"""The file beside a store that says where its running server answers SQL."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path  # noqa: TC003 - pydantic reads the annotations
from typing import Final

from pydantic import TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ServerFile:
    """Where a server answers; `instance` is what it says at `/`, so that it is not mistaken.

    `certificate` is the PEM file that it shows, if it speaks TLS; its path is absolute. The token
    stands nowhere. `metrics_url` is where its metrics are, if it serves any.
    """

    url: str
    pid: int
    instance: str
    token: bool
    certificate: Path | None
    metrics_url: str | None = None


_ADAPTER: Final = TypeAdapter(ServerFile)


def server_file(store: Path) -> Path:
    """Return the path of a store's file."""
    return store.with_name(f"{store.name}.server.json")


def write_server_file(store: Path, content: ServerFile) -> None:
    """Write it, for this user only, whole or not at all."""
    path = server_file(store)
    temporary = path.with_name(f"{path.name}.{os.getpid()}.partial")
    temporary.unlink(missing_ok=True)
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL
    with open(os.open(temporary, flags, 0o600), "wb") as file:  # noqa: PTH123 - with its mode
        file.write(_ADAPTER.dump_json(content, indent=2) + b"\n")
    temporary.replace(path)


def read_server_file(store: Path) -> ServerFile | None:
    """Read it; None where there is none, or it is no such file."""
    try:
        return _ADAPTER.validate_json(server_file(store).read_bytes())
    except (OSError, ValidationError):
        return None


def remove_server_file(store: Path, instance: str) -> None:
    """Remove it if it is of this instance."""
    content = read_server_file(store)
    if content is not None and content.instance == instance:
        with contextlib.suppress(OSError):
            server_file(store).unlink()
