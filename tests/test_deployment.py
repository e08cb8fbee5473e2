"""Deployment files: what they set exists, and the Dockerfile's own steps make a server that starts."""

import configparser
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml

from chat2api.config import Config, describe_settings
from chat2api.keys.operator import KEY_FILE

ROOT = Path(__file__).parent.parent
COMPOSE_FILES = ["docker-compose.yml", "docker-compose-warp.yml"]
SETTINGS = {spec.name for spec in describe_settings()}


def load(name: str) -> dict[str, Any]:
    document = yaml.safe_load((ROOT / name).read_text(encoding="utf-8"))
    assert isinstance(document, dict)
    return document


@pytest.mark.parametrize("name", COMPOSE_FILES)
def test_compose_sets_only_settings_that_exist_with_values_that_are_valid(name: str) -> None:
    environment: dict[str, str] = load(name)["services"]["chat2api"]["environment"]
    assert set(environment) <= SETTINGS
    # An `.env` that was written for `make run` must not move the container's listener or its data.
    assert {"HOST", "PORT", "DATA_DIR"} <= set(environment)
    values = {key: re.sub(r"\$\{\w+:-(.*?)\}", r"\1", value) for key, value in environment.items()}
    assert not Config.from_env(values).loopback


@pytest.mark.parametrize("name", COMPOSE_FILES)
def test_S19_compose_runs_without_privileges_and_keeps_data_in_a_volume(name: str) -> None:
    document = load(name)
    service = document["services"]["chat2api"]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert "no-new-privileges:true" in service["security_opt"]
    volume, _, target = service["volumes"][0].partition(":")
    assert volume in document["volumes"]
    assert target == re.search(r"DATA_DIR=(\S+)", (ROOT / "Dockerfile").read_text(encoding="utf-8"))[1]  # type: ignore[index]


@pytest.mark.parametrize("name", COMPOSE_FILES)
def test_R24_compose_waits_until_running_answers_are_done(name: str) -> None:
    grace = float(load(name)["services"]["chat2api"]["stop_grace_period"].removesuffix("s"))
    assert grace >= Config().drain_accept + Config().drain_timeout


def test_the_warp_container_is_the_way_out() -> None:
    services = load("docker-compose-warp.yml")["services"]
    host = re.fullmatch(r"socks5h://([\w-]+):\d+", services["chat2api"]["environment"]["PROXY_URL"])
    assert host is not None
    assert host[1] in services
    assert host[1] in services["chat2api"]["depends_on"]


def test_the_dockerfile_sets_settings_that_exist_and_does_not_run_as_root() -> None:
    text = (ROOT / "Dockerfile").read_text(encoding="utf-8")
    block = re.search(r"^ENV (.*?)\nUSER", text, re.MULTILINE | re.DOTALL)
    assert block is not None
    names = set(re.findall(r"([A-Z_]+)=", block[1])) - {"PATH", "PYTHONUNBUFFERED", "PYTHONDONTWRITEBYTECODE"}
    assert names <= SETTINGS
    assert re.search(r"^USER (?!root)", text, re.MULTILINE)
    assert "HEALTHCHECK" in text


def test_the_dockerfile_copies_what_the_server_needs(tmp_path: Path) -> None:
    """Copy what the Dockerfile copies into a clean folder and run the server's code from there, as the image does."""
    stages = re.split(r"^FROM ", (ROOT / "Dockerfile").read_text(encoding="utf-8"), flags=re.MULTILINE)
    ignored = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    copies = re.findall(r"^COPY (?!--from)(.+)$", stages[1], re.MULTILINE)
    assert copies
    for line in copies:
        *sources, target = line.split()
        for source in sources:
            assert f"!{source}" in ignored, f"{source} is kept out of the image's context"
            destination = tmp_path / (target if target != "./" else source)
            if (ROOT / source).is_dir():
                shutil.copytree(ROOT / source, destination, ignore=shutil.ignore_patterns("__pycache__", "*.so"))
            else:
                shutil.copy(ROOT / source, destination)
    done = subprocess.run(
        [sys.executable, "-I", "-c", _START.format(root=str(tmp_path))], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == (ROOT / "version.txt").read_text().strip()


def test_the_image_checks_its_health_on_the_port_that_the_host_sets() -> None:
    """Run the HEALTHCHECK itself: well against a server that answers, ill against a port where nobody does."""
    check = re.search(r"HEALTHCHECK .*?CMD (\[.*?\])\n", (ROOT / "Dockerfile").read_text(encoding="utf-8"), re.DOTALL)
    assert check is not None
    _, *arguments = json.loads(check[1])

    class Answer(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200 if self.path == "/healthz" else 404)
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Answer) as server:
        thread = threading.Thread(target=server.handle_request)
        thread.start()
        environ = {"PORT": str(server.server_port)}
        assert subprocess.run([sys.executable, *arguments], env=environ, timeout=30).returncode == 0
        thread.join(10)
    assert subprocess.run([sys.executable, *arguments], env=environ, stderr=subprocess.DEVNULL).returncode != 0


def test_the_operator_key_lies_where_readme_looks_for_it_in_the_container() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    folder = re.search(r"DATA_DIR=(\S+)", (ROOT / "Dockerfile").read_text(encoding="utf-8"))
    assert folder is not None
    assert f"cat {folder[1]}/{KEY_FILE}" in readme
    assert f"cat {Config().data_dir}/{KEY_FILE}" in readme


# ---- hosts and systemd ----

# Fields that each host's reference names where these files use them; a misspelled one would be passed over in silence.
ZEABUR_SERVICE = {"name", "template", "domainKey", "spec"}
ZEABUR_SPEC = {"source", "ports", "volumes", "healthCheck", "env"}
RENDER_SERVICE = {
    "type", "name", "runtime", "plan", "numInstances", "healthCheckPath", "maxShutdownDelaySeconds", "dockerCommand",
    "disk", "envVars",
}  # fmt: skip
GENERATED = "Zm9ydHktdHdvIGJ5dGVzIG9mIGNoYW5jZSwgc3VwcG9zZWRseQ=="
ADDRESS = "https://chat.example.org"


def zeabur() -> tuple[dict[str, Any], dict[str, str]]:
    """Give the template's service and its environment as the host would fill it in."""
    (service,) = load("zeabur.yaml")["spec"]["services"]
    given = {"${PASSWORD}": GENERATED, "${ZEABUR_WEB_URL}": ADDRESS}
    return service, {
        name: given.get(entry["default"], entry["default"]) for name, entry in service["spec"]["env"].items()
    }


def render() -> tuple[dict[str, Any], dict[str, str]]:
    """Give the blueprint's service and its environment as the host would fill it in."""
    (service,) = load("render.yaml")["services"]
    environment = {}
    for entry in service["envVars"]:
        assert set(entry) - {"key"} in ({"value"}, {"generateValue"}, {"sync"}), entry
        environment[entry["key"]] = entry.get("value", GENERATED if entry.get("generateValue") else "")
    return service, environment


def image_port() -> int:
    port = re.search(r"PORT=(\d+)", (ROOT / "Dockerfile").read_text(encoding="utf-8"))
    assert port is not None
    return int(port[1])


def test_the_zeabur_template_has_the_form_that_the_host_reads() -> None:
    document = load("zeabur.yaml")
    assert set(document) == {"apiVersion", "kind", "metadata", "spec", "localization"}
    assert (document["apiVersion"], document["kind"]) == ("zeabur.com/v1", "Template")
    service, environment = zeabur()
    assert set(service) == ZEABUR_SERVICE
    assert set(service["spec"]) == ZEABUR_SPEC
    (port,) = service["spec"]["ports"]
    assert port == {"id": "web", "port": int(environment["PORT"]), "type": "HTTP"}
    variables = {variable["key"] for variable in document["spec"]["variables"]}
    assert service["domainKey"] in variables
    for words in document["localization"].values():
        assert set(words) == {"description", "variables", "readme"}
        assert {variable["key"] for variable in words["variables"]} == variables


def test_the_zeabur_template_keeps_its_data_and_is_asked_for_its_health() -> None:
    service, environment = zeabur()
    assert [volume["dir"] for volume in service["spec"]["volumes"]] == [environment["DATA_DIR"]]
    check = service["spec"]["healthCheck"]
    assert check == {"type": "HTTP", "port": "web", "http": {"path": "/healthz"}}


def test_the_render_blueprint_has_the_form_that_the_host_reads() -> None:
    assert set(load("render.yaml")) == {"services"}
    service, environment = render()
    assert set(service) == RENDER_SERVICE
    assert (service["type"], service["runtime"], service["numInstances"]) == ("web", "docker", 1)
    assert service["healthCheckPath"] == "/healthz"
    assert service["disk"]["mountPath"] == environment["DATA_DIR"]
    assert service["maxShutdownDelaySeconds"] >= Config().drain_accept + Config().drain_timeout


@pytest.mark.parametrize("given", [{}, {"PUBLIC_ORIGINS": "https://own.example.org"}])
def test_the_render_command_names_the_hosts_address_unless_there_is_another(given: dict[str, str]) -> None:
    """Run the command itself by a shell, with something that tells its environment in the server's place."""
    shell, flag, line = shlex.split(render()[0]["dockerCommand"])
    line, served = re.subn(r"exec python -m chat2api serve$", "exec printenv PUBLIC_ORIGINS", line)
    assert served == 1
    environ = {"PATH": os.defpath, "RENDER_EXTERNAL_URL": ADDRESS, **given}
    told = subprocess.run([shell, flag, line], env=environ, capture_output=True, text=True, timeout=30)
    assert told.stdout.strip() == given.get("PUBLIC_ORIGINS", ADDRESS)


@pytest.mark.parametrize("place", [zeabur, render], ids=["zeabur", "render"])
def test_hosts_are_given_settings_that_exist_and_make_a_server_behind_their_proxy(
    place: Callable[[], tuple[dict[str, Any], dict[str, str]]],
) -> None:
    _, environment = place()
    assert set(environment) <= SETTINGS
    config = Config.from_env({"PUBLIC_ORIGINS": ADDRESS, **environment})
    assert config.port == image_port()
    assert config.public_origins == (ADDRESS,)
    assert config.authorization == (GENERATED,), "the key is made by the host, never written in the file"
    assert not config.loopback
    assert not config.unnamed_proxy


@pytest.mark.parametrize("name", ["zeabur.yaml", "render.yaml", "docker-compose.yml", "docker-compose-warp.yml"])
def test_S2_no_deployment_file_holds_a_secret(name: str) -> None:
    text = (ROOT / name).read_text(encoding="utf-8")
    secrets = "|".join(spec.name for spec in describe_settings() if spec.secret)
    values = re.findall(rf"^[ -]*(?:key: )?(?:{secrets})(?::?\n +(?:default|value))?:(.*)$", text, re.MULTILINE)
    plain = {value.strip() for value in values} - {"", "socks5h://warp:1080"}
    assert not {value for value in plain if not value.startswith("${")}


def unit() -> configparser.ConfigParser:
    # Each name may stand once: a second line would add to the first, which a reader overlooks.
    parser = configparser.ConfigParser(interpolation=None, delimiters=("=",))
    parser.optionxform = str  # type: ignore[assignment, method-assign]  # names of systemd are told apart by case
    parser.read_string((ROOT / "docs" / "chat2api.service").read_text(encoding="utf-8"))
    return parser


def test_the_systemd_unit_sets_settings_that_exist_and_keeps_its_data_where_it_may_write() -> None:
    service = unit()["Service"]
    environment = dict(word.split("=", 1) for word in service["Environment"].split())
    assert set(environment) <= SETTINGS | {"PYTHONDONTWRITEBYTECODE"}
    folder = f"/var/lib/{service['StateDirectory']}"
    assert environment["DATA_DIR"] == service["WorkingDirectory"] == folder
    assert service["StateDirectoryMode"] == "0700"
    assert service["ProtectSystem"] == "strict"
    assert service["User"] not in ("", "root")
    assert service["ExecStart"].endswith("/python -m chat2api serve")


def test_R24_the_systemd_unit_waits_until_running_answers_are_done_and_leaves_bad_settings_be() -> None:
    service = unit()["Service"]
    assert float(service["TimeoutStopSec"]) >= Config().drain_accept + Config().drain_timeout
    assert service["RestartPreventExitStatus"] == "2"


@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="there is no systemd here")
def test_systemd_understands_the_unit(tmp_path: Path) -> None:
    """Have it read with a program and a user of this machine in place of those that an operator makes."""
    text = (ROOT / "docs" / "chat2api.service").read_text(encoding="utf-8")
    text, changed = re.subn(r"^ExecStart=\S+", f"ExecStart={shutil.which('true')}", text, flags=re.MULTILINE)
    assert changed == 1
    path = tmp_path / "chat2api.service"
    path.write_text(re.sub(r"^(User|Group)=.*$", r"\1=daemon", text, flags=re.MULTILINE), encoding="utf-8")
    done = subprocess.run(["systemd-analyze", "verify", path], capture_output=True, text=True, timeout=60)
    complaints = [line for line in done.stderr.splitlines() if str(path) in line or "chat2api.service" in line]
    assert not complaints


_START = """
import sys
sys.path.insert(0, {root!r})
import chat2api, chat2api.app
from chat2api.config import Config
assert chat2api.__file__.startswith({root!r})
chat2api.app.create_app(Config())
print(chat2api.__version__)
"""
