"""The `framewalk` command."""

import sys

try:
    from framewalk.cli.main import main, program
except KeyboardInterrupt:
    # Nothing has begun yet.
    sys.exit(130)

__all__ = ["main", "program"]
