"""The files of the page as they are served, and what others made of it."""

from __future__ import annotations

import gzip
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import httpx
import pytest
from sql_serving import DEADLINE_S, NO_TLS, OPTIONS, serving, url

from framewalk.engine import Plan, Store
from framewalk.queries.page.vendoring import FOLDER, LIST, read_list, sha256, with_names
from framewalk.queries.reading import secure

WEB = FOLDER.parent
OWN = sorted(path for path in WEB.rglob("*.js") if FOLDER not in path.parents)
IMPORT = re.compile(r"""^(?:import|export)\b[^"'=(]*["']([^"']+)["'];$""", re.MULTILINE)


@pytest.fixture(scope="module")
def address(few_plan: Plan, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    path = tmp_path_factory.mktemp("page") / "store.duckdb"
    with Store(path, few_plan) as store:
        secure(store.connection)
        options = replace(OPTIONS, token="secret")  # noqa: S106
        with serving(store.connection, path, options) as server:
            yield url(server)


def get(address: str, path: str, **headers: str) -> httpx.Response:
    sent = {name.replace("_", "-"): value for name, value in headers.items()}
    return httpx.get(f"{address}{path}", headers=sent, timeout=DEADLINE_S, verify=NO_TLS)


def test_everybody_gets_the_page_and_may_keep_it(address: str) -> None:
    page = get(address, "/ui/")
    assert page.status_code == 200
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    for path in WEB.rglob("*.*"):
        name = path.relative_to(WEB).as_posix()
        if path.is_file() and name != "vendor/VENDOR.toml":
            answer = get(address, f"/ui/{name}")
            assert (answer.status_code, answer.content) == (200, path.read_bytes()), name
            again = get(address, f"/ui/{name}", if_none_match=answer.headers["etag"])
            assert (again.status_code, again.content) == (304, b""), name
    for missing in ("nothing.js", "../files.py", "%2e%2e/files.py", "vendor/VENDOR.toml"):
        assert get(address, f"/ui/{missing}").status_code in {401, 404}, missing


def test_nothing_but_files_of_the_server_runs_in_the_page(address: str) -> None:
    for path in ("/ui/", "/ui/main.js", "/ui/nothing"):
        headers = get(address, path).headers
        policy = dict(
            part.strip().split(" ", 1) for part in headers["content-security-policy"].split(";")
        )
        assert policy["default-src"] == policy["frame-ancestors"] == "'none'"
        assert policy["script-src"] == policy["style-src"] == policy["connect-src"] == "'self'"
        assert headers["x-content-type-options"] == "nosniff"
    html = (WEB / "index.html").read_text(encoding="utf-8")
    assert not re.search(r"<script(?![^>]*\bsrc=)|<style|\son\w+=|\bstyle=|https?://", html)


def test_a_browser_is_sent_to_the_page(address: str) -> None:
    sent = get(address, "/", accept="text/html,*/*")
    assert (sent.status_code, sent.headers["location"]) == (307, "ui/")
    sent = get(address, "/ui")
    assert (sent.status_code, sent.headers["location"]) == (307, "ui/")


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"sec_fetch_site": "cross-site", "sec_fetch_mode": "navigate"}, 403),
        (
            {
                "sec_fetch_site": "cross-site",
                "sec_fetch_mode": "navigate",
                "sec_fetch_dest": "document",
            },
            200,
        ),
        (
            {
                "sec_fetch_site": "cross-site",
                "sec_fetch_mode": "navigate",
                "sec_fetch_dest": "iframe",
            },
            403,
        ),
        ({"sec_fetch_site": "cross-site", "sec_fetch_mode": "no-cors"}, 403),
    ],
)
def test_links_from_elsewhere_open_the_page(
    address: str, headers: dict[str, str], status: int
) -> None:
    assert get(address, "/ui/", **headers).status_code == status
    asked = get(address, "/sql?query=FROM metrics", authorization="Bearer secret", **headers)
    assert asked.status_code == 403


def test_what_others_made_is_what_they_published() -> None:
    listed = {file.kept: file for package in read_list() for file in package.files}
    there = {path.relative_to(FOLDER).as_posix(): path for path in FOLDER.rglob("*.*")}
    there |= {path.relative_to(FOLDER).as_posix(): path for path in FOLDER.rglob("LICENSE")}
    there = {name: path for name, path in there.items() if path.is_file() and path != LIST}
    assert there.keys() == listed.keys()
    for name, path in there.items():
        content = path.read_bytes()
        assert sha256(content) == listed[name].kept_sha256, name
        assert sha256(with_names(content)) == listed[name].published_sha256, name
    for package in read_list():
        assert package.licence in {"MIT", "Apache-2.0"}
        assert any(file.published == "LICENSE" for file in package.files)


def test_what_others_made_is_small() -> None:
    contents = [path.read_bytes() for path in FOLDER.rglob("*.*") if path.is_file()]
    assert sum(map(len, contents)) < 200_000
    assert sum(len(gzip.compress(one)) for one in contents) < 80_000


@pytest.mark.parametrize("path", OWN, ids=lambda path: path.relative_to(WEB).as_posix())
def test_modules_import_files_that_are_there(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert text.startswith("// @ts-check\n/**"), "says what it is for, and has its types checked"
    assert len(text.splitlines()) < 350
    for name in IMPORT.findall(text):
        assert name.startswith("."), f"{name} is no path"
        assert (path.parent / name).resolve().is_file(), name
