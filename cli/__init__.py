"""The `framewalk` command."""

from framewalk.cli.main import main

__all__ = ["main"]
