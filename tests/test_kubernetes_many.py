"""The manifests for many engines agree with framewalk, with those for one, and with their page."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

from framewalk.server.config.load import load_config

ROOT = Path(__file__).parent.parent
FOLDER = ROOT / "docs" / "kubernetes"
MANY = FOLDER / "many"
PAGE = ROOT / "docs" / "kubernetes.md"
FRAMEWALK = Path(sys.executable).with_name("framewalk")
DASK = Path(sys.executable).with_name("dask")

Part = dict[str, Any]


def documents(path: Path) -> dict[tuple[str, str], Part]:
    found = yaml.safe_load_all(path.read_text(encoding="utf-8"))
    return {(one["kind"], one["metadata"]["name"]): one for one in found}


ONE = documents(FOLDER / "framewalk.yaml")
FOLLOWER = documents(MANY / "follower.yaml")
WORKERS = documents(MANY / "dask.yaml")
PATCH = yaml.safe_load((MANY / "engines.yaml").read_text(encoding="utf-8"))


def container_of(document: Part) -> Part:
    (container,) = document["spec"]["template"]["spec"]["containers"]
    return dict(container)


def variables(container: Part) -> dict[str, str]:
    return {one["name"]: one.get("value", "secret") for one in container.get("env", [])}


def test_the_patch_makes_engines_that_publish() -> None:
    server = ONE["StatefulSet", "framewalk"]
    container, more = container_of(server), container_of(PATCH)
    # As a strategic merge does it: the container of that name, its variables by their names.
    assert container["name"] == more["name"]
    config = load_config(None, variables(container) | variables(more))
    assert config.publish is not None
    assert config.publish.uri
    # One engine's answers would be of its own share.
    assert config.graphql is None
    assert config.promql is None
    assert PATCH["spec"]["replicas"] > 1


def test_the_follower_reads_what_the_engines_publish() -> None:
    follower = container_of(FOLLOWER["StatefulSet", "framewalk-follower"])
    more = container_of(PATCH)
    command, option, table = follower["args"]
    assert (command, option) == ("query-server", "--follow")
    assert table == variables(more)["FRAMEWALK_PUBLISH_URI"]
    assert follower["envFrom"] == more["envFrom"]
    helped = subprocess.run(
        [FRAMEWALK, command, "--help"], capture_output=True, text=True, check=True
    ).stdout
    assert option in helped


def test_who_asks_asks_the_follower() -> None:
    follower = FOLLOWER["StatefulSet", "framewalk-follower"]["spec"]
    service = FOLLOWER["Service", "framewalk-queries"]["spec"]
    assert service["selector"] == follower["template"]["metadata"]["labels"]
    assert service["ports"] == ONE["Service", "framewalk-queries"]["spec"]["ports"]
    ports = {
        one["name"]: one["containerPort"]
        for one in container_of(FOLLOWER["StatefulSet", "framewalk-follower"])["ports"]
    }
    config = load_config(
        None, variables(container_of(FOLLOWER["StatefulSet", "framewalk-follower"]))
    )
    assert config.graphql is not None
    assert config.promql is not None
    assert config.telemetry is not None
    assert ports == {
        "graphql": config.graphql.port,
        "promql": config.promql.port,
        "metrics": config.telemetry.port,
    }
    assert config.authentication is not None


@pytest.mark.parametrize("name", ["scheduler", "worker"])
def test_dask_speaks_tls_only_and_knows_its_options(name: str) -> None:
    container = container_of(WORKERS["Deployment", f"framewalk-dask-{name}"])
    program, command, *address = container["command"]
    helped = subprocess.run(
        [DASK, command, "--help"], capture_output=True, text=True, check=True
    ).stdout
    assert program == "dask"
    options = [one.partition("=")[0] for one in container["args"]]
    assert [one for one in options if one not in helped] == []
    assert {"--tls-ca-file", "--tls-cert", "--tls-key"} <= set(options)
    assert "--protocol=tls" in container["args"] or address[0].startswith("tls://")


@pytest.mark.parametrize("objects", [FOLLOWER, WORKERS], ids=["follower", "dask"])
def test_nothing_of_it_is_privileged(objects: dict[tuple[str, str], Part]) -> None:
    restricted = ONE["StatefulSet", "framewalk"]["spec"]["template"]["spec"]
    (main,) = restricted["containers"]
    pods = [
        one["spec"]["template"]["spec"] for (kind, _), one in objects.items() if kind != "Service"
    ]
    assert pods
    for pod in pods:
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["securityContext"]["runAsUser"] == restricted["securityContext"]["runAsUser"]
        assert pod["automountServiceAccountToken"] is False
        assert [one["securityContext"] for one in pod["containers"]] == [main["securityContext"]]


def test_the_image_can_have_what_many_engines_need() -> None:
    text = (FOLDER / "Dockerfile").read_text(encoding="utf-8")
    assert "--build-arg LOCK=distributed" in text
    assert "ARG LOCK=kubernetes" in text
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    locked = (ROOT / "requirements" / "distributed.txt").read_text(encoding="utf-8")
    for extra in ("kubernetes", "distributed"):
        for wanted in project["optional-dependencies"][extra]:
            name = re.split(r"[<>=\[]", wanted)[0]
            assert re.search(rf"^{name}==", locked, re.MULTILINE), name


def test_the_page_goes_through_all_of_it() -> None:
    text = PAGE.read_text(encoding="utf-8")
    for path in sorted(MANY.iterdir()):
        assert f"many/{path.name}" in text
    for secret in ("framewalk-storage", "framewalk-dask"):
        assert f"create secret generic {secret}" in text
