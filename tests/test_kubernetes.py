"""The Kubernetes manifests agree with framewalk, with each other and with their pages."""

from __future__ import annotations

import http.client
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from processes import ending, free_port
from prometheus_client.parser import text_string_to_metric_families
from waiting import DEADLINE_S, wait_until

from framewalk.server.config.load import Config, load_config

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
FOLDER = DOCS / "kubernetes"
PAGES = [DOCS / "kubernetes.md", DOCS / "serving.md"]
FRAMEWALK = Path(sys.executable).with_name("framewalk")
KIBIBYTE = 1024
KUBECONFIG = """
current-context: here
clusters: [{name: c, cluster: {server: "http://127.0.0.1:1"}}]
contexts: [{name: here, context: {cluster: c}}]
users: []
"""
VARIABLE = re.compile(r"\b(?:SW|FRAMEWALK)_[A-Z_]*[A-Z]\b")
# Of commands, beside the configuration's; and one that Kubernetes would set.
OTHER_VARIABLES = {"FRAMEWALK_METRICS_URL", "FRAMEWALK_SQL_SERVER", "FRAMEWALK_PORT"}
METRIC = re.compile(r"`((?:framewalk|k8s_als)_\w+)`")

Objects = dict[tuple[str, str], dict[str, Any]]


def read(path: Path) -> str:
    return path.read_text(encoding="utf-8")


def objects(name: str) -> Objects:
    documents = yaml.safe_load_all(read(FOLDER / name))
    return {(one["kind"], one["metadata"]["name"]): one for one in documents}


SERVER = objects("framewalk.yaml")
ROVER = objects("rover.yaml")
STATEFUL_SET = SERVER["StatefulSet", "framewalk"]["spec"]
POD = STATEFUL_SET["template"]["spec"]
ROVER_POD = ROVER["DaemonSet", "skywalking-rover"]["spec"]["template"]["spec"]
(MAIN,) = POD["containers"]
(ROVER_CONTAINER,) = ROVER_POD["containers"]
SERVICES = [one for (kind, _), one in SERVER.items() if kind == "Service"]
CONFIGURED_VARIABLES = set(VARIABLE.findall(read(ROOT / "server" / "config" / "default.yml")))


def variables(container: dict[str, Any]) -> dict[str, str]:
    """The variables of a container that have a value in the manifest, or in a Secret."""
    values = {one["name"]: one.get("value") for one in container["env"]}
    secrets = {
        one["name"] for one in container["env"] if "secretKeyRef" in one.get("valueFrom", {})
    }
    return {
        name: "secret" if name in secrets else value
        for name, value in values.items()
        if value is not None or name in secrets
    }


def environment(folder: Path) -> dict[str, str]:
    """The variables of framewalk's container, with its folders below another one."""
    (folder / "lib").mkdir()
    moved = {"/var/lib/framewalk/": f"{folder}/lib/"}
    values = variables(MAIN)
    for old, new in moved.items():
        values = {name: value.replace(old, new) for name, value in values.items()}
    # A cluster whose API server is away.
    (folder / "lib" / "kubeconfig").write_text(KUBECONFIG)
    return values | {"FRAMEWALK_KUBERNETES_CONFIG": f"{folder}/lib/kubeconfig"}


@pytest.fixture
def config(tmp_path: Path) -> Config:
    return load_config(None, environment(tmp_path))


def mounts(container: dict[str, Any]) -> dict[str, str]:
    """Where a container has each volume."""
    return {one["name"]: one["mountPath"] for one in container["volumeMounts"]}


def read_only(container: dict[str, Any]) -> set[str]:
    return {one["name"] for one in container["volumeMounts"] if one.get("readOnly")}


def test_every_variable_is_one_of_the_configuration() -> None:
    own = {name for name in variables(MAIN) if VARIABLE.fullmatch(name)}
    assert own
    assert own <= CONFIGURED_VARIABLES


def test_the_environment_is_a_valid_configuration(tmp_path: Path) -> None:
    values = environment(tmp_path)
    command = [FRAMEWALK, "config", "check"]
    done = subprocess.run(command, env=values, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_the_cluster_is_watched(config: Config) -> None:
    assert config.engine is not None
    assert config.engine.kubernetes
    assert variables(MAIN).keys().isdisjoint({"FRAMEWALK_ENTITIES_PATHS"})
    project = tomllib.loads(read(ROOT / "pyproject.toml"))
    assert "kubernetes" in project["project"]["optional-dependencies"]
    assert "ARG LOCK=kubernetes" in read(FOLDER / "Dockerfile")


def test_no_variable_is_injected_for_a_service_called_framewalk() -> None:
    assert POD["enableServiceLinks"] is False


def test_ports_services_and_probes_agree(config: Config) -> None:
    ports = {one["name"]: one["containerPort"] for one in MAIN["ports"]}
    assert config.telemetry is not None
    assert config.graphql is not None
    assert config.promql is not None
    assert ports == {
        "grpc": config.grpc.port,
        "metrics": config.telemetry.port,
        "graphql": config.graphql.port,
        "promql": config.promql.port,
    }
    for service in SERVICES:
        for port in service["spec"]["ports"]:
            assert port["port"] == ports[port["targetPort"]]
        template = STATEFUL_SET["template"]["metadata"]["labels"]
        assert service["spec"]["selector"].items() <= template.items()
    for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
        assert MAIN[probe]["grpc"] == {"port": config.grpc.port}
    annotations = SERVER["Service", "framewalk-metrics"]["metadata"]["annotations"]
    assert annotations["prometheus.io/port"] == str(config.telemetry.port)
    assert STATEFUL_SET["serviceName"] in {one["metadata"]["name"] for one in SERVICES}


def test_what_is_asked_from_outside_listens_there_and_sql_does_not(config: Config) -> None:
    assert config.telemetry is not None
    assert config.sql is not None
    assert config.telemetry.host == config.grpc.host == "0.0.0.0"  # noqa: S104 - in a pod
    assert config.sql.host == "127.0.0.1"
    assert config.graphql is not None
    assert config.promql is not None
    names = {f"framewalk-queries{rest}" for rest in ("", ".framewalk", ".framewalk.svc")}
    assert ("Service", "framewalk-queries") in SERVER
    for endpoint in (config.graphql, config.promql):
        assert endpoint.host == config.grpc.host
        assert set(endpoint.host_names) == names


def test_a_stop_has_the_time_it_may_take(config: Config) -> None:
    assert POD["terminationGracePeriodSeconds"] > 2 * config.core.drain_timeout_s + 5


def test_a_token_is_asked_for(config: Config) -> None:
    assert config.authentication is not None


def test_volumes_are_where_the_configuration_writes_and_reads() -> None:
    values = variables(MAIN)
    claims = {one["metadata"]["name"] for one in STATEFUL_SET["volumeClaimTemplates"]}
    volumes = {one["name"] for one in POD["volumes"]} | claims
    assert set(mounts(MAIN)) <= volumes
    data = mounts(MAIN)["data"]
    for name in ("FRAMEWALK_STORE_PATH", "FRAMEWALK_SPOOL_DIRECTORY"):
        assert Path(values[name]).is_relative_to(data)
    assert "data" in claims - read_only(MAIN)


def test_the_spool_fits_its_volume_with_room_for_the_store(config: Config) -> None:
    (claim,) = STATEFUL_SET["volumeClaimTemplates"]
    text = claim["spec"]["resources"]["requests"]["storage"]
    size_bytes = int(text.removesuffix("Gi")) * KIBIBYTE**3
    assert config.spool.budget_bytes <= size_bytes / 2
    # The rest is for snapshots.
    assert config.spool.budget_bytes + config.storage.budget_bytes <= size_bytes * 0.85


def test_one_process_writes() -> None:
    assert STATEFUL_SET["replicas"] == 1


def test_nothing_is_privileged() -> None:
    labels = SERVER["Namespace", "framewalk"]["metadata"]["labels"]
    assert labels["pod-security.kubernetes.io/enforce"] == "restricted"
    assert POD["securityContext"]["runAsNonRoot"] is True
    assert POD["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert MAIN["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }


def test_it_may_watch_what_it_needs_and_nothing_else() -> None:
    assert {kind for kind, _ in SERVER if "Role" in kind} == {"ClusterRole", "ClusterRoleBinding"}
    rules = {
        (group, resource, *rule["verbs"])
        for rule in SERVER["ClusterRole", "framewalk"]["rules"]
        for group in rule["apiGroups"]
        for resource in rule["resources"]
    }
    verbs = ("get", "list", "watch")
    slices = ("discovery.k8s.io", "endpointslices", *verbs)
    assert rules == {slices, *(("", one, *verbs) for one in ("pods", "services", "nodes"))}
    binding = SERVER["ClusterRoleBinding", "framewalk"]
    (subject,) = binding["subjects"]
    assert binding["roleRef"]["name"] == "framewalk"
    assert subject["name"] == POD["serviceAccountName"]
    assert subject["namespace"] == SERVER["Namespace", "framewalk"]["metadata"]["name"]


def test_rover_sends_to_the_service_with_the_token() -> None:
    values = variables(ROVER_CONTAINER)
    service = SERVER["Service", "framewalk"]["metadata"]
    (port,) = SERVER["Service", "framewalk"]["spec"]["ports"]
    address = f"{service['name']}.{service['namespace']}:{port['port']}"
    assert values["ROVER_BACKEND_ADDR"] == address
    assert values["ROVER_ACCESS_LOG_ACTIVE"] == "true"
    excluded = values["ROVER_ACCESS_LOG_EXCLUDE_NAMESPACES"].split(",")
    assert {service["namespace"], "skywalking-rover"} <= set(excluded)
    assert secret_of(ROVER_CONTAINER, "ROVER_BACKEND_AUTHENTICATION") == secret_of(
        MAIN, "SW_AUTHENTICATION"
    )


def secret_of(container: dict[str, Any], variable: str) -> Any:  # noqa: ANN401 - YAML
    (found,) = (one for one in container["env"] if one["name"] == variable)
    return found["valueFrom"]["secretKeyRef"]


def test_rover_sees_the_node() -> None:
    values = variables(ROVER_CONTAINER)
    paths = {one["name"]: one["hostPath"]["path"] for one in ROVER_POD["volumes"]}
    assert ROVER_POD["hostPID"] is True
    assert ROVER_CONTAINER["securityContext"]["privileged"] is True
    assert paths == {"proc": "/proc", "sys": "/sys"}
    assert mounts(ROVER_CONTAINER)["proc"] == values["ROVER_HOST_PROC_MAPPING"]
    assert mounts(ROVER_CONTAINER)["sys"] == "/sys"


def test_the_image_holds_what_the_manifest_starts() -> None:
    lines = read(FOLDER / "Dockerfile").splitlines()
    copied = {source for line in lines if line.startswith("COPY") for source in line.split()[1:-1]}
    project = tomllib.loads(read(ROOT / "pyproject.toml"))
    folders = set(project["tool"]["setuptools"]["package-dir"].values())
    assert folders <= copied
    sources = {one for one in copied if not one.startswith(("--", "/"))}
    assert [one for one in sources if not (ROOT / one).exists()] == []
    user = POD["securityContext"]
    assert f"USER {user['runAsUser']}:{user['runAsGroup']}" in lines
    assert 'ENTRYPOINT ["framewalk"]' in lines
    assert MAIN["args"] == ["serve"]


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Iterator[set[str]]:
    """The names of all metrics of a server that runs with the manifest's environment."""
    folder = tmp_path_factory.mktemp("served")
    port = free_port()
    own_ports = {
        "SW_CORE_GRPC_PORT": str(free_port()),
        "SW_TELEMETRY_PROMETHEUS_PORT": str(port),
        "FRAMEWALK_SQL_LISTEN_PORT": str(free_port()),
        "SW_CORE_REST_PORT": str(free_port()),
        "SW_PROMQL_REST_PORT": str(free_port()),
    }
    starting = subprocess.Popen(
        [FRAMEWALK, *MAIN["args"]],
        env=environment(folder) | own_ports,
        cwd=folder,
        stderr=subprocess.DEVNULL,
    )
    with ending(starting) as process:
        wait_until(lambda: process.poll() is not None or "k8s_als" in metrics(port))
        families = list(text_string_to_metric_families(metrics(port)))
        # Nothing is written beside the folder, as all else is read-only in the container.
        assert {one.name for one in folder.iterdir()} == {"lib"}
        yield {one.name for one in families}
        process.kill()


def metrics(port: int) -> str:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=DEADLINE_S)
    try:
        connection.request("GET", "/metrics")
        return connection.getresponse().read().decode()
    except ConnectionRefusedError:
        return ""
    finally:
        connection.close()


def test_the_pages_name_every_metric_of_a_server_and_no_other(exported: set[str]) -> None:
    rows = [
        line.split("|")[1]
        for page in (DOCS / "serving.md", DOCS / "recording.md")
        for line in read(page).splitlines()
        if line.startswith("| `")
    ]
    named = {name for row in rows for name in METRIC.findall(row)}
    own = {one for one in exported if not one.startswith("process_") and "_created" not in one}
    assert {one for one in own if one.startswith("framewalk_engine_")}
    assert named == own


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_variables_and_links_of_the_pages_exist(page: Path) -> None:
    text = read(page)
    assert set(VARIABLE.findall(text)) <= CONFIGURED_VARIABLES | OTHER_VARIABLES
    links = [one for one in re.findall(r"\]\(([^)#]+)", text) if "://" not in one]
    assert links
    assert [one for one in links if not (page.parent / one).exists()] == []


def test_the_page_names_what_is_to_be_put_in() -> None:
    text = read(DOCS / "kubernetes.md")
    for manifest in ("framewalk.yaml", "rover.yaml"):
        places = re.findall(r"image: (\S+)", read(FOLDER / manifest))
        assert places
        assert [one for one in places if one not in text] == []
    for container, variable in (
        (MAIN, "SW_AUTHENTICATION"),
        (ROVER_CONTAINER, "ROVER_BACKEND_AUTHENTICATION"),
    ):
        secret = secret_of(container, variable)
        assert f"create secret generic {secret['name']} --from-literal={secret['key']}=" in text
