"""What is in deploy/: the units for systemd, and the examples for Docker Compose and Kubernetes.

They start what is installed, fit what the server does when it is stopped, and are what the schemas allow. Compose
files are checked by `compose-spec`, manifests by the schemas in `kubernetes-validate`. No container is started.
"""

from __future__ import annotations

import configparser
import json
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml
from click.testing import CliRunner
from compose_spec import PyCompose

from oncecast.cli.server import serve
from oncecast.message import Retention
from oncecast.server import config
from oncecast.server.brokers import build_broker
from oncecast.server.settings import Settings

DEPLOY = Path(__file__).parent.parent / "deploy"


def unit(name: str) -> configparser.ConfigParser:
    """Read a unit; of a key that stands twice, the last."""
    parser = configparser.ConfigParser(strict=False, interpolation=None, comment_prefixes=("#",))
    parser.optionxform = str  # type: ignore[assignment, method-assign]
    parser.read_string((DEPLOY / name).read_text("utf-8"))
    return parser


def test_it_starts_a_command_that_is_there() -> None:
    """The command takes each flag that the unit gives it."""
    program, command, *flags = shlex.split(unit("oncecast.service")["Service"]["ExecStart"])
    assert ("oncecast", "serve") == (Path(program).name, command)
    known = CliRunner().invoke(serve, ["--help"]).output
    assert all(flag in known for flag in flags if flag.startswith("--"))


def test_subscribers_have_their_time_to_leave() -> None:
    """systemd tells the supervisor alone to stop, and waits for longer than a drain takes."""
    service = unit("oncecast.service")["Service"]
    assert "mixed" == service["KillMode"]
    assert float(service["TimeoutStopSec"]) > Settings().limits.drain_seconds
    assert re.fullmatch(r"/\S*kill -HUP \$MAINPID", service["ExecReload"])
    assert "notify" == service["Type"]


def test_the_socket_is_where_the_server_would_listen() -> None:
    """With and without the socket unit it is the same address."""
    settings = Settings()
    assert f"{settings.host}:{settings.port}" == unit("oncecast.socket")["Socket"]["ListenStream"]


@pytest.mark.parametrize("name", ["oncecast.service", "oncecast.socket"])
def test_systemd_finds_no_fault(name: str, tmp_path: Path) -> None:
    """Each unit is of sections and keys that systemd knows; where it is installed, it is asked."""
    known = {"Unit", "Service", "Socket", "Install"}
    assert known >= set(unit(name).sections())
    program = shutil.which("systemd-analyze")
    if program is not None:
        for file in DEPLOY.glob("oncecast.*"):
            (tmp_path / file.name).write_text(
                file.read_text("utf-8").replace("/opt/oncecast/bin/oncecast", "/bin/true")
            )
        done = subprocess.run([program, "verify", str(tmp_path / name)], capture_output=True, text=True, timeout=60)
        assert (0, "") == (done.returncode, done.stderr)


# Docker Compose and Kubernetes -----------------------------------------------------------------------------------

KUBERNETES = ("1.31", "1.34")  # the oldest and the newest version that the manifests are checked against
KINDS = sorted(path.stem for path in (DEPLOY / "compose").glob("*.yaml"))
PASSWORDS = ("REDIS_PASSWORD", "NATS_PASSWORD", "RABBITMQ_PASSWORD")  # of nodes, from a Secret
SCHEMES = {"rabbitmq": "amqp"}  # where the URL has another name than the kind

each_kind = pytest.mark.parametrize("kind", KINDS)


def compose(kind: str) -> dict[str, Any]:
    """A Compose file, its anchors and merge keys (`<<`) resolved, as Compose resolves them before it checks."""
    read: dict[str, Any] = yaml.safe_load((DEPLOY / "compose" / f"{kind}.yaml").read_text("utf-8"))
    return read


def manifests(kind: str) -> list[dict[str, Any]]:
    """The documents of a file for Kubernetes."""
    return list(yaml.safe_load_all((DEPLOY / "kubernetes" / f"{kind}.yaml").read_text("utf-8")))


def one(kind: str, what: str, name: str) -> dict[str, Any]:
    """The one document of a sort and a name."""
    (found,) = [each for each in manifests(kind) if (each["kind"], each["metadata"]["name"]) == (what, name)]
    return found


def check_settings(environ: dict[str, str], kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A node starts with these variables: each is a setting, and the broker can be made from its URL."""
    for name in PASSWORDS:
        monkeypatch.setenv(name, "secret")
    loaded = config.load(file=None, environ=environ, flags={})
    assert () == tuple(loaded.warnings)
    settings = loaded.settings
    assert (True, "0.0.0.0", 8000) == (settings.public, settings.host, settings.port)
    assert settings.broker.startswith(f"{SCHEMES.get(kind, kind)}://")
    build_broker(settings, lambda channel: Retention())


def test_each_broker_has_both() -> None:
    """An example for Compose has one for Kubernetes beside it, and a page."""
    assert KINDS == sorted(path.stem for path in (DEPLOY / "kubernetes").glob("*.yaml"))
    assert {"redis", "nats"} <= set(KINDS)
    for kind in KINDS:
        assert (DEPLOY.parent / "docs" / "how-to" / f"{kind}.md").is_file()


@each_kind
def test_compose_takes_it(kind: str) -> None:
    """It is what the Compose specification allows: two nodes and the broker, whose volumes and configs are declared."""
    file = compose(kind)
    assert sorted(["one", "two", kind]) == sorted(PyCompose.from_yaml(yaml.safe_dump(file)).service_names())
    for name, service in file["services"].items():
        for volume in service.get("volumes", ()):
            assert volume.partition(":")[0] in file["volumes"], name
        for used in service.get("configs", ()):
            assert used["source"] in file["configs"], name


@each_kind
def test_the_check_of_compose_can_fail(kind: str) -> None:
    """A misspelled key is refused."""
    file = compose(kind)
    file["services"]["one"]["restrat"] = file["services"]["one"].pop("restart")
    with pytest.raises(ValueError, match="restrat"):
        PyCompose.from_yaml(yaml.safe_dump(file))


@each_kind
def test_two_nodes_of_compose(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both start on ports of their own, when the broker answers, and have their time to drain."""
    services = compose(kind)["services"]
    assert ["127.0.0.1:8001:8000"] == services["one"]["ports"]
    assert ["127.0.0.1:8002:8000"] == services["two"]["ports"]
    assert "healthcheck" in services[kind]
    for node in (services["one"], services["two"]):
        check_settings(node["environment"], kind, monkeypatch)
        assert {kind: {"condition": "service_healthy"}} == node["depends_on"]
        assert float(node["stop_grace_period"].removesuffix("s")) > Settings().limits.drain_seconds
        assert ((DEPLOY / "compose" / node["build"]).resolve() / "Dockerfile").is_file()


@each_kind
@pytest.mark.parametrize("version", KUBERNETES)
def test_kubernetes_takes_it(kind: str, version: str) -> None:
    """Each document is what the schema of its kind allows, without a field that it does not know."""
    found = manifests(kind)
    assert {"Deployment", "Service", "StatefulSet", "PodDisruptionBudget"} <= {each["kind"] for each in found}
    for each in found:
        kubernetes_validate.validate(each, version, strict=True)


@each_kind
def test_the_check_of_kubernetes_can_fail(kind: str) -> None:
    """A misspelled field is refused."""
    deployment = one(kind, "Deployment", "oncecast")
    deployment["spec"]["replcas"] = deployment["spec"].pop("replicas")
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(deployment, KUBERNETES[-1], strict=True)


@each_kind
def test_two_nodes_of_kubernetes(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both have the probes of this server, the variables of a node, and their time to drain."""
    spec = one(kind, "Deployment", "oncecast")["spec"]
    assert 2 == spec["replicas"]
    pod = spec["template"]["spec"]
    assert pod["enableServiceLinks"] is False
    (container,) = pod["containers"]
    program, pause = container["lifecycle"]["preStop"]["exec"]["command"]
    assert ("sleep", True) == (program, float(pause) >= 5)
    assert pod["terminationGracePeriodSeconds"] > Settings().limits.drain_seconds + float(pause)
    assert "/readyz" == container["readinessProbe"]["httpGet"]["path"]
    assert "/healthz" == container["livenessProbe"]["httpGet"]["path"]
    check_settings({each["name"]: each["value"] for each in container["env"] if "value" in each}, kind, monkeypatch)


@each_kind
def test_what_refers_to_another_finds_it(kind: str) -> None:
    """Selectors, secrets, settings, ports and volumes are those that the file declares."""
    found = manifests(kind)
    names = {(each["kind"], each["metadata"]["name"]) for each in found}
    pods = [each["spec"]["template"] for each in found if each["kind"] in ("Deployment", "StatefulSet")]
    labels = [pod["metadata"]["labels"] for pod in pods]
    for each in found:
        if each["kind"] == "Service":
            assert each["spec"]["selector"] in labels
        if each["kind"] == "StatefulSet":
            assert ("Service", each["spec"]["serviceName"]) in names
            pods_volumes = {claim["metadata"]["name"] for claim in each["spec"]["volumeClaimTemplates"]}
            pod = each["spec"]["template"]["spec"]
            pods_volumes |= {volume["name"] for volume in pod.get("volumes", ())}
            assert {mount["name"] for mount in pod["containers"][0]["volumeMounts"]} == pods_volumes
    for pod in pods:
        (container,) = pod["spec"]["containers"]
        for variable in container.get("env", ()):
            if "valueFrom" in variable:
                assert ("Secret", variable["valueFrom"]["secretKeyRef"]["name"]) in names
        for volume in pod["spec"].get("volumes", ()):
            assert ("ConfigMap", volume["configMap"]["name"]) in names


def test_no_message_is_evicted_or_too_large() -> None:
    """Redis keeps what it was given and writes it down; NATS takes messages of the size that a server takes."""
    for words in (
        compose("redis")["services"]["redis"]["command"],
        one("redis", "StatefulSet", "redis")["spec"]["template"]["spec"]["containers"][0]["args"],
    ):
        assert "noeviction" == words[words.index("--maxmemory-policy") + 1]
        assert "yes" == words[words.index("--appendonly") + 1]
    for text in (compose("nats")["configs"]["nats"]["content"], one("nats", "ConfigMap", "nats")["data"]["nats.conf"]):
        assert "max_payload: 8MB" in text
        assert "jetstream" in text


def test_the_image() -> None:
    """It is slim, runs as a user of its own, has a health check, and installs extras that there are."""
    text = (DEPLOY / "Dockerfile").read_text("utf-8").replace("\\\n", "")
    lines = dict(line.split(" ", 1) for line in text.splitlines() if line and not line.startswith("#"))
    assert re.fullmatch(r"python:3\.\d+-slim", lines["FROM"])
    assert "1000" == lines["USER"]
    assert f"--home-dir {lines['WORKDIR']} --create-home" in lines["RUN"]  # the default broker's file is there
    (extras,) = re.findall(r"\[([\w,]+)\]", lines["RUN"])
    optional = tomllib.loads((DEPLOY.parent / "pyproject.toml").read_text("utf-8"))["project"]["optional-dependencies"]
    assert set(optional) - {"demo"} == set(extras.split(","))
    assert ["oncecast", "serve"] == json.loads(lines["CMD"])
    _, _, command = lines["HEALTHCHECK"].partition(" CMD ")
    python, flag, program = json.loads(command)
    assert ("python", "-c") == (python, flag)
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False, timeout=60)
    assert "Connection refused" in ended.stderr or 0 == ended.returncode
    config.load(file=None, environ=dict([lines["ENV"].split("=")]), flags={"public": True})
