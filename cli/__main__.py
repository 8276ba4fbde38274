"""`python -m framewalk.cli`."""

from framewalk.cli import main

main()
