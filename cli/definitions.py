"""The options that name definitions, and what goes with them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

OalOption = Annotated[
    list[Path] | None,
    typer.Option(
        "--oal",
        metavar="PATH",
        help="Definitions to use instead of the shipped ones: an OAL file or a folder; "
        "may be given several times.",
        show_default=False,
    ),
]
ApdexOption = Annotated[
    Path | None,
    typer.Option(
        "--apdex-thresholds",
        metavar="FILE",
        help="YAML with `service: milliseconds` lines, `default` being all other services. "
        "Without it every service has 500.",
        show_default=False,
    ),
]
PatternsOption = Annotated[
    Path | None,
    typer.Option(
        "--endpoint-patterns",
        metavar="FILE",
        help="YAML with `service: [number, uuid, hex]` lines: what folds the paths of its "
        "endpoints, `default` being all other services. Without it nothing does.",
        show_default=False,
    ),
]
