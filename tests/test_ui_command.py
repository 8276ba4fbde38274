"""`framewalk ui`: the page over a file at rest, and where a server has it."""

from __future__ import annotations

import json
import signal
import subprocess
from pathlib import Path
from typing import Any

import httpx
import pytest
from prepared import COMMAND, framewalk
from processes import ending, signal_a_thread
from sql_serving import DEADLINE_S, NO_TLS, serving, url

from framewalk.engine import Plan, Store
from framewalk.queries.reading import secure


@pytest.fixture
def store(few_plan: Plan, tmp_path: Path) -> Path:
    path = tmp_path / "metrics.duckdb"
    Store(path, few_plan).close()
    return path


def test_a_file_at_rest_is_served_until_it_is_enough(store: Path) -> None:
    store.chmod(0o400)
    before = sorted(store.parent.iterdir())
    command = [COMMAND, "ui", "--store", store]
    with ending(subprocess.Popen(command, stdout=subprocess.PIPE, text=True)) as process:
        assert process.stdout is not None
        address = process.stdout.readline().strip()
        page = httpx.get(address, timeout=DEADLINE_S, verify=NO_TLS)
        assert "<title>framewalk</title>" in page.text
        asked = {"query": "SELECT count(*) > 1 AS has FROM metrics"}
        answer = httpx.post(
            address.replace("/ui/", "/sql"), json=asked, timeout=DEADLINE_S, verify=NO_TLS
        )
        assert answer.json()["rows"] == [{"has": True}]
        # Others may read it meanwhile.
        assert framewalk("sql", "FROM metrics LIMIT 1", "--store", store).returncode == 0
        signal_a_thread(process.pid, signal.SIGINT)
        assert process.wait(DEADLINE_S) == 0
    assert sorted(store.parent.iterdir()) == before


@pytest.mark.parametrize("is_edited", [False, True])
def test_dashboards_are_edited_where_that_is_wanted(store: Path, *, is_edited: bool) -> None:
    page = {"layer": "K8S_SERVICE", "entity": "All", "name": "Mine", "children": []}
    file = store.with_name("mine.json")
    file.write_text(json.dumps([{"id": "mine", "configuration": page}]))
    given = file.read_text()
    command = [COMMAND, "ui", "--store", store, "--panels", file, *["--edit"][: int(is_edited)]]
    with ending(subprocess.Popen(command, stdout=subprocess.PIPE, text=True)) as process:
        assert process.stdout is not None
        address = process.stdout.readline().strip().removesuffix("/ui/")

        def ask(query: str, **variables: object) -> dict[str, Any]:
            content = {"query": query, "variables": variables}
            answer = httpx.post(
                f"{address}/graphql", json=content, timeout=DEADLINE_S, verify=NO_TLS
            )
            return dict(answer.json()["data"])

        settings = httpx.get(f"{address}/debugging/config/dump", verify=NO_TLS).json()
        assert settings["query.graphql.enableUpdateUITemplate"] == str(is_edited).lower()
        assert ask("{ getAllTemplates { id } }") == {"getAllTemplates": [{"id": "mine"}]}
        changing = (
            "mutation ($s: DashboardSetting!) { changeTemplate(setting: $s) { status message } }"
        )
        changed = json.dumps({**page, "name": "Other"})
        told = ask(changing, s={"id": "mine", "configuration": changed})["changeTemplate"]
        assert told["status"] is is_edited
        assert is_edited or "SW_ENABLE_UPDATE_UI_TEMPLATE" in told["message"]
        process.send_signal(signal.SIGTERM)
    edits = store.with_name(f"{store.name}.dashboards.json")
    assert file.read_text() == given
    if is_edited:
        assert json.loads(edits.read_text()) == {"mine": changed}
    else:
        assert not edits.exists()


def test_where_a_server_has_it_its_address_is_told(few_plan: Plan, store: Path) -> None:
    with Store(store, few_plan) as opened:
        secure(opened.connection)
        with serving(opened.connection, store) as server:
            told = framewalk("ui", "--store", store)
            assert told.stdout == f"{url(server)}/ui/\n"


def test_what_is_no_store_is_told(tmp_path: Path) -> None:
    told = framewalk("ui", "--store", tmp_path / "nothing.duckdb")
    assert (told.returncode, told.stdout) == (1, "")
    assert "there is no such file" in told.stderr
