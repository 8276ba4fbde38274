"""The types that the modules of the page give in their comments, as TypeScript reads them.

`make page-types` fetches it from npm into `build/`; without it the test is skipped.
"""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest

from framewalk.queries.page.vendoring import FOLDER

WEB = FOLDER.parent
TOOLS = Path(__file__).parent.parent.parent / "build" / "tsc"
COMPILER = TOOLS / "node_modules" / "typescript" / "bin" / "tsc"
# What others made has its types in its packages, and is checked there.
TYPES = {
    "preact/preact.d.mts": 'export * from "preact";',
    "preact/hooks.d.mts": 'export * from "preact/hooks";',
    "signals/signals.d.mts": 'export * from "@preact/signals";',
    "htm/htm.d.mts": "declare const htm: { bind: (h: Function) => "
    "(texts: TemplateStringsArray, ...values: any[]) => any };\nexport default htm;",
}
OPTIONS = {
    "allowJs": True,
    "checkJs": True,
    "noEmit": True,
    "strict": True,
    "target": "esnext",
    "module": "esnext",
    "moduleResolution": "bundler",
    "lib": ["esnext", "dom", "dom.iterable"],
    "types": [],
    "skipLibCheck": True,
}


def test_types_of_the_page_fit() -> None:
    node = shutil.which("node")
    if node is None:
        pytest.skip("there is no node on this machine, which TypeScript runs in")
    if not COMPILER.exists():
        pytest.skip("TypeScript is not there: `make page-types` fetches it from npm")
    checked = TOOLS / "checked"
    shutil.rmtree(checked, ignore_errors=True)
    shutil.copytree(WEB, checked, ignore=shutil.ignore_patterns("vendor"))
    for name, text in TYPES.items():
        path = checked / "vendor" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    settings = {"compilerOptions": OPTIONS, "include": ["**/*.js", "**/*.d.mts"]}
    (checked / "tsconfig.json").write_text(json.dumps(settings))
    done = subprocess.run(
        [node, COMPILER, "--pretty", "false", "-p", checked],
        capture_output=True,
        text=True,
        check=False,
        cwd=checked,
    )
    assert (done.stdout, done.returncode) == ("", 0)
