"""The manifests of deploy/ agree with the server: its paths, ports, settings and times."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from starlette.applications import Starlette
from starlette.routing import Route, WebSocketRoute

from tests.deploy.nginx import DEPLOY
from tocsin_server.app import create_app
from tocsin_server.config.loading import Settings, load_settings
from tocsin_server.serving.server import GRACE_SECONDS

KUBERNETES = DEPLOY / "kubernetes"
TOP = DEPLOY.parent


def documents(file: Path) -> list[Any]:
    return [document for document in yaml.safe_load_all(file.read_text()) if document]


@pytest.fixture(scope="module")
def compose() -> Any:
    return documents(DEPLOY / "compose.yaml")[0]


@pytest.fixture(scope="module")
def pod() -> Any:
    """The pod of the deployment."""
    return documents(KUBERNETES / "deployment.yaml")[0]["spec"]["template"]["spec"]


@pytest.fixture(scope="module")
def container(pod: Any) -> Any:
    (container,) = pod["containers"]
    return container


def paths(app: Starlette) -> set[str]:
    return {route.path for route in app.routes if isinstance(route, Route)}


def test_kubernetes_and_compose_share_one_configuration() -> None:
    """There are two copies because Kustomize reads only its own folder."""
    assert (KUBERNETES / "tocsin.toml").read_text() == (DEPLOY / "tocsin.toml").read_text()


def test_every_service_of_compose_gets_settings_that_exist(
    compose: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are loaded by the server's loader, which refuses unknown keys and bad values."""
    nodes = {name: service for name, service in compose["services"].items() if name.startswith("node-")}
    assert len(nodes) == 3
    for name, node in nodes.items():
        for key, value in node["environment"].items():
            monkeypatch.setenv(key, "given" if value.startswith("${") else value)
        settings = load_settings(DEPLOY / "tocsin.toml")
        assert settings.server.name == name
        assert settings.engine.url == "redis://redis:6379"
        assert len(settings.api.keys) == 1
        grace = int(node["stop_grace_period"].removesuffix("s"))
        assert grace > settings.server.drain_seconds + GRACE_SECONDS


def test_nginx_forwards_to_exactly_the_nodes_of_compose(compose: Any) -> None:
    text = (DEPLOY / "nginx" / "nginx.conf").read_text()
    named = set(re.findall(r"server (node-\d):8000", text))
    assert named == {name for name in compose["services"] if name.startswith("node-")}


def test_the_pod_gets_settings_that_exist_and_time_to_drain(
    pod: Any, container: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """PreStop runs before SIGTERM. After the drain the last requests end."""
    (secret,) = documents(KUBERNETES / "secret.example.yaml")
    for key, value in secret["stringData"].items():
        monkeypatch.setenv(key, value)
    for variable in container["env"]:
        monkeypatch.setenv(variable["name"], variable.get("value", "tocsin-abc"))
    settings: Settings = load_settings(KUBERNETES / "tocsin.toml")
    assert settings.server.name == "tocsin-abc"
    assert settings.admin.host
    _, sleep = container["lifecycle"]["preStop"]["exec"]["command"]
    needed = int(sleep) + settings.server.drain_seconds + GRACE_SECONDS
    assert pod["terminationGracePeriodSeconds"] > needed


def test_probes_and_ingress_use_paths_that_exist(container: Any) -> None:
    """They use the port that the server listens on."""
    app = create_app(Settings())
    probes = [container[f"{kind}Probe"]["httpGet"] for kind in ("readiness", "liveness", "startup")]
    assert {probe["path"] for probe in probes} <= paths(app)
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    assert ports == {"http": Settings().server.port, "admin": Settings().admin.port}
    assert {probe["port"] for probe in probes} == {"admin"}
    (service,) = documents(KUBERNETES / "service.yaml")
    assert {port["targetPort"] for port in service["spec"]["ports"]} == set(ports)
    (ingress,) = documents(KUBERNETES / "ingress.yaml")
    served = {each["path"] for each in ingress["spec"]["rules"][0]["http"]["paths"]}
    assert served == {"/connection", "/events", "/emulation"}
    assert {"/connection/websocket", "/events", "/emulation"} <= {
        *paths(app),
        *(route.path for route in app.routes if isinstance(route, WebSocketRoute)),
    }
    (monitor,) = documents(KUBERNETES / "podmonitor.yaml")
    (endpoint,) = monitor["spec"]["podMetricsEndpoints"]
    assert endpoint["path"] in paths(app)
    assert endpoint["port"] == "admin"


def test_the_autoscaler_reads_a_metric_that_exists() -> None:
    """It scales the deployment of this folder."""
    (scaler,) = documents(KUBERNETES / "horizontalpodautoscaler.yaml")
    (metric,) = scaler["spec"]["metrics"]
    page = create_app(Settings()).state.node.metrics.page().decode()
    assert f"# TYPE {metric['pods']['metric']['name']} gauge" in page
    (deployment,) = documents(KUBERNETES / "deployment.yaml")
    assert scaler["spec"]["scaleTargetRef"]["name"] == deployment["metadata"]["name"]
    assert "replicas" not in deployment["spec"]


def test_every_file_that_a_manifest_names_exists(compose: Any) -> None:
    """This covers Kustomize, compose and the image."""
    (kustomization,) = documents(KUBERNETES / "kustomization.yaml")
    for name in kustomization["resources"]:
        assert documents(KUBERNETES / name)
    for service in compose["services"].values():
        for volume in service.get("volumes", ()):
            path = volume.partition(":")[0]
            assert not path.startswith(".") or (DEPLOY / path).exists(), path
    for line in (DEPLOY / "Dockerfile").read_text().splitlines():
        if line.startswith("COPY ") and "--from" not in line:
            for name in line.split()[1:-1]:
                assert (TOP / name).exists(), name
