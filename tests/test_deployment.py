"""Deployment files: what they set exists, and the Dockerfile's own steps make a server that starts."""

import json
import re
import shutil
import subprocess
import sys
import threading
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


_START = """
import sys
sys.path.insert(0, {root!r})
import chat2api, chat2api.app
from chat2api.config import Config
assert chat2api.__file__.startswith({root!r})
chat2api.app.create_app(Config())
print(chat2api.__version__)
"""
