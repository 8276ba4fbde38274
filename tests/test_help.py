"""`framewalk --help`: what it says of each command, and what it loads for that."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib import import_module

from typer.main import get_command

# The package has the function `main` under the module's name.
APP = import_module("framewalk.cli.main").app
LIST = """
import sys
from framewalk.cli import main
sys.argv = ["framewalk", "--help"]
try:
    main()
except SystemExit as ended:
    assert not ended.code, ended.code
print(sorted({"polars", "pyarrow", "duckdb", "grpc"} & set(sys.modules)))
"""


def test_commands_are_listed_with_what_they_say_of_themselves_and_not_loaded() -> None:
    command, wide = [sys.executable, "-c", LIST], os.environ | {"COLUMNS": "200"}
    listed = subprocess.run(command, env=wide, capture_output=True, text=True, check=True)
    *lines, loaded = listed.stdout.splitlines()
    assert loaded == "[]"
    commands = get_command(APP).commands
    assert len(commands) > 20
    for name, one in commands.items():
        first = " ".join(one.help.partition("\n\n")[0].split())
        (line,) = [line for line in lines if line.startswith(f"│ {name} ")]
        assert line.strip("│ ").split(maxsplit=1) == [name, first]
