"""Configuration files: what they mean, and what is said of those that mean nothing."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml
from typer.testing import CliRunner

from framewalk.cli.main import app
from framewalk.server.config.files import DEFAULT_FILE, Problem
from framewalk.server.config.load import Config, ConfigError, effective_settings, load_config

PAGE = Path(__file__).parents[2] / "docs" / "configuration.md"
FRAMEWALK = Path(sys.executable).with_name("framewalk")


@pytest.fixture
def pem(tmp_path: Path) -> Path:
    """A file that could be a key, a certificate or anything else that must be there."""
    path = tmp_path / "some.pem"
    path.write_text("default: 500\n")
    return path


def load(text: str, folder: Path, **environment: str) -> Config:
    path = folder / "framewalk.yml"
    path.write_text(text)
    return load_config(path, environment)


def problems(text: str | bytes, folder: Path, **environment: str) -> list[str]:
    """What is said of a file, with the two files by their bare names."""
    path = folder / "framewalk.yml"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    with pytest.raises(ConfigError) as caught:
        load_config(path, environment)
    said = str(caught.value).replace(str(path), "f").replace(str(DEFAULT_FILE), "default.yml")
    return said.replace(str(folder), "DIR").split("\n")


def in_core(line: str) -> str:
    return f"core:\n  default:\n    {line}\n"


def in_engine(line: str) -> str:
    return f"engine:\n  default:\n    {line}\n"


# The default file


def test_the_default_file_needs_no_environment() -> None:
    config = load_config(None, {})
    assert config.grpc.host == "0.0.0.0"  # noqa: S104 - as the OAP
    assert config.grpc.port == 11800
    assert config.grpc.max_message_bytes == 50 * 2**20
    assert config.grpc.max_calls_per_connection is None
    assert config.grpc.tls is None
    assert config.authentication is None
    assert config.core.metrics_ttl_days == 7
    assert config.spool.fsync == "batch"
    assert config.spool.segment_bytes == 64 * 2**20
    assert config.spool.segment_age_s == 60
    assert config.storage.path == Path("framewalk-data/metrics.duckdb")
    assert config.engine is not None
    assert config.engine.entities_paths == ()
    assert config.engine.apdex_path is None
    assert config.engine.flush_interval_s == 5
    assert config.engine.max_ahead_s == 300
    assert config.sql is not None
    assert (config.sql.host, config.sql.port) == ("127.0.0.1", 11801)
    assert config.graphql is not None
    assert (config.graphql.host, config.graphql.port) == ("127.0.0.1", 12800)
    assert config.promql is not None
    assert (config.promql.host, config.promql.port) == ("127.0.0.1", 9090)
    assert config.telemetry is not None
    assert (config.telemetry.host, config.telemetry.port) == ("127.0.0.1", 1234)


def test_an_empty_file_is_the_default_file(tmp_path: Path) -> None:
    assert load("# nothing yet\n", tmp_path) == load_config(None, {})
    assert load("", tmp_path) == load_config(None, {})
    assert load("core:\nspool:\n  default:\n", tmp_path) == load_config(None, {})


def test_a_configuration_cannot_be_changed() -> None:
    with pytest.raises(ValueError, match="frozen"):
        load_config(None, {}).core.port = 1


# Substitution


GOOD: list[tuple[str, dict[str, str], str, object]] = [
    ("gRPCPort: 1", {}, "port", 1),
    ("gRPCPort: '1'", {}, "port", 1),
    ("gRPCPort: ${P:2}", {}, "port", 2),
    ("gRPCPort: ${P:2}", {"P": "3"}, "port", 3),
    ("gRPCPort: ${P}", {"P": "3"}, "port", 3),
    ("gRPCPort: '${P:2}'", {"P": "3"}, "port", 3),
    ('gRPCPort: ${P:"2"}', {}, "port", 2),
    ("gRPCPort: ${A:1}${B:2}0", {"A": "4"}, "port", 420),
    ("gRPCHost: ${A:db}.${B:shop}.svc # here", {"B": "test"}, "host", "db.test.svc"),
    ("gRPCHost: ${H:::1}", {}, "host", "::1"),
    ("gRPCHost: ${H:x}", {"H": "fe80::1"}, "host", "fe80::1"),
    ("gRPCSslKeyPath: ${K:}", {}, "tls_key_path", None),
    ("gRPCSslKeyPath: ${K:''}", {}, "tls_key_path", None),
    ("gRPCSslKeyPath:", {}, "tls_key_path", None),
    ("gRPCSslKeyPath: ${K:a}", {"K": ""}, "tls_key_path", None),
    ("gRPCSslKeyPath: ${K:/a b}", {}, "tls_key_path", Path("/a b")),
    ("gRPCSslKeyPath: ${K:}", {"K": "/${K:x}"}, "tls_key_path", Path("/${K:x}")),
    ("gRPCSslKeyPath: /a$b/{c}", {}, "tls_key_path", Path("/a$b/{c}")),
    ("gRPCSslEnabled: False", {}, "tls_enabled", False),
    ("gRPCSslEnabled: ${S:off}", {}, "tls_enabled", False),
    ("drainTimeoutSeconds: 1.5", {}, "drain_timeout_s", 1.5),
    ("drainTimeoutSeconds: ${D:1}", {"D": "2e1"}, "drain_timeout_s", 20.0),
]


@pytest.mark.parametrize(("line", "environment", "field", "value"), GOOD)
def test_values(
    line: str, environment: dict[str, str], field: str, value: object, tmp_path: Path
) -> None:
    core = load(in_core(line), tmp_path, **environment).core
    assert getattr(core, field) == value
    assert type(getattr(core, field)) is type(value)


def test_a_token_stays_as_it_is(tmp_path: Path) -> None:
    text = "receiver-sharing-server:\n  default:\n    authentication: ${T:007}\n"
    for given in ("0x10", "true", "null", '"quoted"', "a b: #c", "${T}", "1_0"):
        token = load(text, tmp_path, T=given).authentication
        assert token is not None
        assert token.get_secret_value() == given
    token = load(text, tmp_path).authentication
    assert token is not None
    assert token.get_secret_value() == "007"


@pytest.mark.parametrize(
    "line", ["oalPaths: ${P:}", "oalPaths: [DIR, DIR/a]", "oalPaths: DIR, DIR/a ,"]
)
def test_lists_are_written_in_two_ways(line: str, tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    text = in_engine(line.replace("DIR", str(tmp_path)))
    engine = load(text, tmp_path, P=f"{tmp_path},{tmp_path / 'a'}").engine
    assert engine is not None
    assert engine.oal_paths == (tmp_path, tmp_path / "a")


def test_what_a_file_leaves_out_comes_from_the_default_file_and_its_variables(
    tmp_path: Path,
) -> None:
    core = load(in_core("gRPCPort: 1"), tmp_path, SW_CORE_GRPC_PORT="2", SW_CORE_GRPC_HOST="h").core
    assert (core.host, core.port) == ("h", 1)


# Modules


@pytest.mark.parametrize(
    "selector",
    ["-", "- # off", "'-'", "${SW_RECEIVER_EBPF:-}", "${X:default}"],
)
def test_a_dash_turns_a_module_off(selector: str, tmp_path: Path) -> None:
    text = f"receiver-ebpf:\n  selector: {selector}\n  default:\n"
    assert load(text, tmp_path, X="-").ebpf is None
    assert load(text.replace("\n", "\r\n"), tmp_path, X="-").ebpf is None


def test_modules_that_can_be_turned_off() -> None:
    off = {"SW_RECEIVER_EBPF", "FRAMEWALK_ENGINE", "FRAMEWALK_SQL", "SW_TELEMETRY"}
    off |= {"SW_QUERY", "SW_PROMQL"}
    config = load_config(None, dict.fromkeys(off, "-"))
    assert [name for name, part in config if part is None] == [
        "ebpf",
        "engine",
        "sql",
        "graphql",
        "promql",
        "telemetry",
    ]
    assert load_config(None, {"SW_TELEMETRY": "none"}).telemetry is None


def test_values_of_a_module_that_is_off_do_not_matter() -> None:
    wrong = {"SW_TELEMETRY_PROMETHEUS_PORT": "x", "FRAMEWALK_SQL_LISTEN_PORT": "11800"}
    assert load_config(None, {"SW_TELEMETRY": "-", "FRAMEWALK_SQL": "-"} | wrong)


# The server that is opened


def test_the_server_is_the_first_with_a_port() -> None:
    environment = {
        "SW_CORE_GRPC_HOST": "10.0.0.1",
        "SW_CORE_GRPC_MAX_MESSAGE_SIZE": "1000",
    }
    server = load_config(None, environment).grpc
    assert (server.host, server.port, server.max_message_bytes) == ("10.0.0.1", 11800, 1000)
    environment |= {
        "SW_RECEIVER_GRPC_HOST": "10.0.0.2",
        "SW_RECEIVER_GRPC_MAX_MESSAGE_SIZE": "2000",
        "SW_RECEIVER_GRPC_PORT": "2",
    }
    server = load_config(None, environment).grpc
    assert (server.host, server.port, server.max_message_bytes) == ("10.0.0.2", 2, 2000)
    own = {
        "SW_EBPF_GRPC_HOST": "10.0.0.3",
        "SW_EBPF_GRPC_MAX_CONCURRENT_CALL": "5",
        "SW_EBPF_GRPC_PORT": "3",
        # What is bound no closer elsewhere may stand there.
        "SW_RECEIVER_GRPC_HOST": "0.0.0.0",  # noqa: S104 - not bound to
    }
    environment |= own
    server = load_config(None, environment).grpc
    assert (server.host, server.port, server.max_message_bytes) == ("10.0.0.3", 3, 1000)
    assert server.max_calls_per_connection == 5
    server = load_config(None, environment | {"SW_RECEIVER_EBPF": "-"}).grpc
    assert server.port == 2


def test_the_files_of_tls(pem: Path) -> None:
    environment = {
        "SW_CORE_GRPC_SSL_ENABLED": "true",
        "SW_CORE_GRPC_SSL_KEY_PATH": str(pem),
        "SW_CORE_GRPC_SSL_CERT_CHAIN_PATH": str(pem),
    }
    tls = load_config(None, environment).grpc.tls
    assert tls is not None
    assert (tls.key_path, tls.certificate_chain_path, tls.trusted_ca_path) == (pem, pem, None)
    tls = load_config(None, environment | {"SW_CORE_GRPC_SSL_TRUSTED_CA_PATH": str(pem)}).grpc.tls
    assert tls is not None
    assert tls.trusted_ca_path == pem


# Problems


OAP_FILE = Path(__file__).with_name("oap_application.yml")
# A file, then what is said of it; "f" is its name.
BAD = Path(__file__).with_name("bad_config.txt").read_text(encoding="utf-8").split("====\n")


@pytest.mark.parametrize("case", BAD, ids=range(len(BAD)))
def test_bad_files(case: str, tmp_path: Path) -> None:
    text, _, said = case.partition("--\n")
    found = problems(text.replace("DIR", str(tmp_path)), tmp_path)
    numberless = [re.sub(r"default\.yml:\d+", "default.yml:N", line) for line in found]
    assert numberless == said.splitlines()


def test_all_problems_are_told_at_once_with_those_of_the_own_file_first(tmp_path: Path) -> None:
    text = "spool:\n  default:\n    fsync: x\n    segmentByte: 1\nsql:\n  selector: x\n"
    found = problems(text, tmp_path, SW_CORE_GRPC_PORT="x", SW_TELEMETRY="-x")
    places = [line.split(": ")[0] for line in found]
    assert places[:3] == ["f:3", "f:4", "f:6"]
    assert [place.split(":")[0] for place in places[3:]] == ["default.yml", "default.yml"]


def test_an_oap_s_file_is_taken_with_a_warning_for_each_thing_left_out() -> None:
    left_out: list[Problem] = []
    config = load_config(OAP_FILE, {}, left_out.append)
    assert (config.core.port, config.core.metrics_ttl_days) == (11811, 9)
    assert config.telemetry is None
    assert config.storage == load_config(None, {}).storage
    lines = OAP_FILE.read_text(encoding="utf-8").splitlines()
    assert [lines[one.line - 1].split(":")[0].strip() for one in left_out] == [
        "cluster",
        "role",
        "restHost",
        "restPort",
        "gRPCThreadPoolSize",
        "downsampling",
        "l1FlushPeriod",
        "searchableTracesTags",
        "enableHierarchy",
        "selector",
        "banyandb",
        "elasticsearch",
        "mysql",
        "restPort",
        "gRPCThreadPoolSize",
        "envoy-metric",
        "sslEnabled",
        "continuousPolicyCacheTimeout",
    ]
    assert [str(one).partition(": ")[2] for one in left_out[:2]] == [
        "framewalk has no module 'cluster': it is left out",
        "framewalk has no key 'role' in core.default: it is left out",
    ]
    chosen = next(one for one in left_out if "storage.selector" in one.message)
    assert chosen.message == "storage.selector names a provider of an OAP; duckdb is used"
    done = run("check", OAP_FILE)
    assert done.returncode == 0
    assert len(done.stderr.splitlines()) == len(left_out)


def test_a_mistake_in_an_oap_s_file_is_an_error(tmp_path: Path) -> None:
    text = OAP_FILE.read_text(encoding="utf-8")
    text = text.replace("restPort", "restPorts").replace("banyandb:", "banyanDB:")
    found = problems(text, tmp_path)
    assert [line.partition(": ")[2].partition(";")[0] for line in found] == [
        "unknown key 'restPorts' in core.default",
        "unknown provider 'banyanDB' in storage",
        "unknown key 'restPorts' in receiver-sharing-server.default",
    ]


def test_a_wrong_variable_is_named() -> None:
    with pytest.raises(ConfigError) as caught:
        load_config(None, {"SW_CORE_GRPC_PORT": "x"})
    lines = DEFAULT_FILE.read_text().splitlines()
    line = next(n for n, text in enumerate(lines, 1) if "SW_CORE_GRPC_PORT" in text)
    assert str(caught.value) == (
        f"{DEFAULT_FILE}:{line}: core.default.gRPCPort is not a whole number; "
        "got 'x' from SW_CORE_GRPC_PORT, want a whole number from 1 to 65535"
    )


@pytest.mark.parametrize("token", ["hush\n", " hush", "hüsh", "hu\tsh"])
def test_a_token_is_never_shown(token: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        load_config(None, {"SW_AUTHENTICATION": token})
    assert "got *** from SW_AUTHENTICATION" in str(caught.value)
    text = f"receiver-sharing-server:\n  default:\n    authentication: {token.strip()}${{X\n"
    said = "\n".join(problems(text, tmp_path))
    assert token.strip() not in f"{caught.value!r} {caught.value} {said}"


def test_a_good_token_is_never_shown() -> None:
    environment = {"SW_AUTHENTICATION": "hush"}
    config = load_config(None, environment)
    assert "hush" not in f"{config!r} {config} {config.model_dump()} {config.model_dump_json()}"
    assert "hush" not in repr(effective_settings(None, environment))


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"core: \xff\n", "f: this is not UTF-8 text; hint: save it as UTF-8"),
        (b'core: "\\UFFFFFFFF"\n', "f: no YAML: "),
        (b"core: \x00\n", "f: no YAML: "),
        (b"[" * 2000, "f: no YAML: "),
        (b"a: &a [*a]\n", "f:1: unknown module 'a'"),
        (b"core: &a\n  default: *a\n", "f:2: unknown key 'default' in core.default"),
        (b"a: 1\n---\nb: 1\n", "f:2: no YAML: "),
    ],
)
def test_files_that_are_hardly_yaml(content: bytes, said: str, tmp_path: Path) -> None:
    assert said in "\n".join(problems(content, tmp_path))


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    for path, reason in (
        (tmp_path / "no.yml", "no such file or directory"),
        (tmp_path, "is a directory"),
    ):
        with pytest.raises(ConfigError) as caught:
            load_config(path, {})
        assert str(caught.value) == f"{path}: {reason}; hint: check the path and its permissions"


# The documentation


class Key(NamedTuple):
    """A value of the default file with what is said of it."""

    module: str
    key: str
    variable: str
    default: str
    comment: str


def documented() -> Iterator[Key]:
    """Read the default file as a person does."""
    module, comments = "", []
    for line in DEFAULT_FILE.read_text(encoding="utf-8").splitlines():
        text = line.strip()
        if text.startswith("#"):
            comments.append(text.removeprefix("#").strip())
            continue
        if found := re.fullmatch(r"([\w-]+):", line):
            module = found[1]
        elif found := re.fullmatch(r"(\w+): \$\{(\w+):(.*)\}", text):
            yield Key(module, found[1], found[2], found[3].strip('"'), " ".join(comments))
            comments = []
        elif not text:
            comments = []


def table() -> str:
    """The keys as a Markdown table."""
    rows = ["| key | variable | default | what it is |", "|---|---|---|---|"]
    rows += [
        f"| `{key.module}` `{key.key}` | `{key.variable}` "
        f"| {f'`{key.default}`' if key.default else 'empty'} | {key.comment} |"
        for key in documented()
    ]
    return "\n".join(rows)


def test_the_page_has_every_key() -> None:
    assert table() in PAGE.read_text(encoding="utf-8"), f"stale; its table is now:\n{table()}"


def test_every_key_is_documented_and_has_its_own_variable() -> None:
    keys = list(documented())
    tree = yaml.safe_load(DEFAULT_FILE.read_text(encoding="utf-8"))
    in_file = sum(
        1 if isinstance(part, str) else len(part or ())
        for module in tree.values()
        for part in module.values()
    )
    assert len(keys) == in_file == len(effective_settings(None, {}))
    assert len({key.variable for key in keys}) == len(keys)
    assert all(key.comment for key in keys)
    assert all(key.variable.startswith(("SW_", "FRAMEWALK_")) for key in keys)


OTHER: dict[str, str] = {
    "http": "all",
    "hosts,paths,traces": "paths",
    "false": "true",
    "batch": "never",
    "text": "json",
    "info": "debug",
    "uvicorn": "grpcio",
    "127.0.0.1": "127.0.0.2",
    # A thousand more is GraphQL's.
    "11800": "11900",
    "0.0.0.0": "127.0.0.2",  # noqa: S104 - replaced
}
ONLY_ONE = {
    "SW_CORE",
    "SW_RECEIVER_SHARING_SERVER",
    "FRAMEWALK_SPOOL",
    "FRAMEWALK_STORAGE",
    "FRAMEWALK_LOGGING",
}


def dump(environment: dict[str, str]) -> dict[str, Any]:
    config = load_config(None, environment)
    token = config.authentication
    return config.model_dump() | {"token": token.get_secret_value() if token else None}


@pytest.mark.parametrize("key", list(documented()), ids=lambda key: key.variable)
def test_every_variable_changes_its_value(key: Key, pem: Path, tmp_path: Path) -> None:
    if key.variable in ONLY_ONE:
        with pytest.raises(ConfigError, match=f"got 'other' from {key.variable}"):
            load_config(None, {key.variable: "other"})
        return
    before = {
        f"SW_{server}_GRPC_SSL_{name}": value
        for server in ("CORE", "RECEIVER", "EBPF")
        for name, value in (
            ("ENABLED", "true"),
            ("KEY_PATH", str(pem)),
            ("CERT_CHAIN_PATH", str(pem)),
        )
    }
    if key.key in {"gRPCHost", "maxConcurrentCallsPerConnection"}:
        # They count only for the server that is opened.
        before[re.sub(r"_GRPC_.*", "_GRPC_PORT", key.variable)] = "7"
    if key.key in {"minuteDataTTL", "hourDataTTL"}:
        # What is coarser is kept for at least as long.
        before |= dict.fromkeys(("FRAMEWALK_HOUR_DATA_TTL", "FRAMEWALK_DAY_DATA_TTL"), "2000")
    if key.key == "gRPCSslEnabled":
        before |= {name: "false" for name in before if name.endswith("ENABLED")}
        before["SW_EBPF_GRPC_PORT" if "EBPF" in key.variable else "SW_CORE_GRPC_PORT"] = "7"
        before["SW_RECEIVER_GRPC_PORT" if "RECEIVER" in key.variable else "X"] = "8"
    value = other_value(key, tmp_path / "other", pem)
    after = before | {key.variable: value}
    assert dump(before) != dump(after)
    settings = effective_settings(None, after)
    (setting,) = (one for one in settings if (one.module, one.key) == (key.module, key.key))
    assert setting.origin == f"environment {key.variable}"
    assert setting.text == ("***" if key.key == "authentication" else value)


def other_value(key: Key, new: Path, existing: Path) -> str:
    if key.key == "selector":
        return "-"
    if "Path" in key.key:
        new.write_bytes(existing.read_bytes())
        return str(new)
    texts = {"authentication", "kubernetesContext", "uri", "engineName"}
    if key.key in {"directory", "path", "kubeconfig"} | texts:
        return str(new)
    if key.key == "trustedProxies":
        return "10.1.0.0/16,::1"
    if key.key == "hostNames":
        return "framewalk,framewalk.shop"
    return OTHER.get(key.default) or str(int(key.default) + 1000)


# The commands


def run(*arguments: str | Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [FRAMEWALK, "config", *arguments],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )


def test_check_says_that_all_is_fine(tmp_path: Path) -> None:
    done = run("check")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == "the default configuration: fine; 13 modules, 0 of them off\n"
    path = tmp_path / "a.yml"
    path.write_text("sql:\n  selector: -\n")
    done = run("check", path)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == f"{path}: fine; 13 modules, 1 of them off\n"


@pytest.mark.parametrize("option", ["--store", "--entities"])
def test_an_option_of_an_engine_that_is_off_is_wrong_usage(option: str, pem: Path) -> None:
    told = CliRunner().invoke(app, ["serve", option, str(pem)], env={"FRAMEWALK_ENGINE": "-"})
    assert told.exit_code == 2
    assert f"Invalid value for {option}: is of no use" in told.output


def test_check_tells_every_problem_on_a_line(tmp_path: Path) -> None:
    path = tmp_path / "a.yml"
    path.write_text("cor:\n" + in_core("gRPCPort: 0"))
    done = run("check", path)
    assert (done.returncode, done.stdout) == (1, "")
    unknown, wrong = done.stderr.splitlines()
    left_out = f"{path}:1: framewalk has no module 'cor': it is left out"
    assert unknown == f"warning: {left_out}; hint: did you mean 'core'?"
    assert wrong.startswith(f"error: {path}:4: core.default.gRPCPort is out of range; got '0'")


def test_show_prints_a_file_that_means_the_same_and_where_it_comes_from(tmp_path: Path) -> None:
    path = tmp_path / "a.yml"
    path.write_text(in_core("gRPCPort: 1") + "sql:\n  selector: -\n")
    environment = {"SW_CORE_GRPC_HOST": "::1", "FRAMEWALK_SPOOL_DIRECTORY": "a b: #c"}
    done = run("show", path, **environment)
    assert (done.returncode, done.stderr) == (0, "")
    shown = dict(
        re.split(r" +# ", line, maxsplit=1) for line in done.stdout.splitlines() if "# " in line
    )
    assert shown["    gRPCPort: 1"] == f"{path}:3"
    assert shown['    gRPCHost: "::1"'] == "environment SW_CORE_GRPC_HOST"
    assert shown["    metricsDataTTL: 7"] == "default"
    again = tmp_path / "b.yml"
    again.write_text(done.stdout)
    assert load_config(again, {}) == load_config(path, environment)


def test_show_hides_the_token() -> None:
    done = run("show", SW_AUTHENTICATION="hush")
    assert 'authentication: "***"' in done.stdout
    assert "hush" not in done.stdout


if __name__ == "__main__":  # Writes the table of the page anew.
    page = PAGE.read_text(encoding="utf-8")
    parts = re.split(r"^\| key \|(?:.*\n)+?(?=\n|\Z)", page, maxsplit=1, flags=re.MULTILINE)
    PAGE.write_text(f"{table()}\n".join(parts), encoding="utf-8")


def test_what_is_kept_of_logs_is_checked() -> None:
    wrong = {"FRAMEWALK_ARCHIVE_MODE": "some", "FRAMEWALK_ARCHIVE_KEEP": "hosts,bodies"}
    with pytest.raises(ConfigError) as told:
        load_config(None, wrong)
    assert "want none or off or http or all or sampled" in str(told.value)
    assert "names 'bodies', which is not one of hosts, paths, queries, traces" in str(told.value)
