"""`python -m framewalk.cli`."""

from framewalk.cli import program

program()
