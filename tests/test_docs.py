"""Every command, query and program in the documentation runs."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import duckdb
import pytest

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
BLOCK = re.compile(r"^```(sh|sql|python)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def blocks(language: str) -> list[object]:
    found = {page.stem: BLOCK.findall(page.read_text(encoding="utf-8")) for page in PAGES}
    texts = {
        stem: [text for kind, text in pairs if kind == language] for stem, pairs in found.items()
    }
    return [pytest.param(own, id=stem) for stem, own in texts.items() if own]


@pytest.fixture(scope="module")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that looks like the repository's root, with a replayed store."""
    folder = tmp_path_factory.mktemp("docs")
    for name in ("fixtures", "queries"):
        (folder / name).symlink_to(ROOT / name)
    captures = "fixtures/captures/bookinfo"
    command = f"framewalk replay {captures} --entities {captures}/kubectl.yaml -s metrics.duckdb"
    run(command, folder)
    return folder


def run(command: str, folder: Path) -> str:
    programs = str(Path(sys.executable).parent)
    environment = os.environ | {"PATH": f"{programs}{os.pathsep}{os.environ['PATH']}"}
    done = subprocess.run(
        ["bash", "-ec", command],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
    return done.stdout


@pytest.mark.parametrize("texts", blocks("sh"))
def test_commands(texts: list[str], workplace: Path) -> None:
    for line in "\n".join(texts).splitlines():
        if line.startswith("make "):
            target = line.split()[1]
            assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(), re.MULTILINE)
        elif line:
            run(line, workplace)


@pytest.mark.parametrize("texts", blocks("sql"))
def test_queries(texts: list[str], workplace: Path) -> None:
    with duckdb.connect(str(workplace / "metrics.duckdb"), read_only=True) as connection:
        for query in texts:
            assert connection.sql(query).fetchall(), query


@pytest.mark.parametrize("texts", blocks("python"))
def test_programs(texts: list[str], workplace: Path) -> None:
    for index, program in enumerate(texts):
        path = workplace / f"program_{index}.py"
        path.write_text(program, encoding="utf-8")
        assert run(f"rm -f library.duckdb embedded.duckdb; python -W error {path.name}", workplace)


def test_the_readme_shows_what_the_demo_prints(workplace: Path) -> None:
    shown = (ROOT / "README.md").read_text(encoding="utf-8").partition("Who calls whom:")[2]
    shown_rows = [line.split() for line in shown.partition("```")[0].splitlines() if line.strip()]
    printed = run("framewalk sql service_map -s metrics.duckdb -f table", workplace)
    printed_rows = [line.split() for line in printed.splitlines() if line.strip()]
    assert shown_rows[2:] == printed_rows[2 : len(shown_rows)]
    assert len(shown_rows) > 5
