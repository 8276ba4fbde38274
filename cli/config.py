"""`framewalk config`: check a configuration, and show what is in effect."""

from __future__ import annotations

import json
import os
import re
import sys
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from framewalk.cli.console import complain, stdout, warn
from framewalk.server.config import ConfigError, effective_settings, unknown_variables

if TYPE_CHECKING:
    from collections.abc import Iterator

    from framewalk.server.config import Setting

File = Annotated[
    Path | None,
    typer.Argument(
        metavar="FILE",
        help="A YAML file, laid over the default file. Default: the default file alone.",
        show_default=False,
    ),
]

# Texts that YAML takes as they are.
_PLAIN: Final = re.compile(r"[A-Za-z0-9/.][A-Za-z0-9/._:-]*")
_COMMENT_COLUMN: Final = 60

config = typer.Typer(
    name="config",
    help="Check the configuration of the live receiver.",
    no_args_is_help=True,
    add_completion=False,
)


@config.command()
def check(file: File = None) -> None:
    """Tell everything that is wrong with a configuration in this environment."""
    settings = _settings(file)
    for variable, hint in unknown_variables(file, os.environ):
        complain(f"{variable}: this variable means nothing; {hint}")
    off = sum(setting.text == "-" for setting in settings if not setting.provider)
    modules = len({setting.module for setting in settings})
    name = file or "the default configuration"
    stdout.print(f"{name}: fine; {modules} modules, {off} of them off", highlight=False)


@config.command()
def show(file: File = None) -> None:
    """Print the values in effect as YAML, with where each comes from."""
    for line in _lines(_settings(file)):
        sys.stdout.write(f"{line}\n")


def _settings(file: Path | None) -> list[Setting]:
    try:
        return effective_settings(file, os.environ, lambda warning: warn(str(warning)))
    except ConfigError as error:
        for problem in error.problems:
            complain(str(problem))
        raise typer.Exit(1) from error


def _lines(settings: list[Setting]) -> Iterator[str]:
    for module, own in groupby(settings, key=lambda setting: setting.module):
        yield f"{module}:"
        for provider, entries in groupby(own, key=lambda setting: setting.provider):
            if provider:
                yield f"  {provider}:"
            indent = "    " if provider else "  "
            for setting in entries:
                entry = f"{indent}{setting.key}: {_as_yaml(setting.text)}"
                yield f"{entry:<{_COMMENT_COLUMN}} # {setting.origin}"


def _as_yaml(text: str) -> str:
    return text if _PLAIN.fullmatch(text) else json.dumps(text, ensure_ascii=False)
