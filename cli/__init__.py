"""The `framewalk` command."""


def main() -> None: ...
