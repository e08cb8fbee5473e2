"""Deployment files: what they set exists, and the Dockerfile's own steps make a server that starts."""

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from chat2api.config import Config, describe_settings

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
    values = {key: re.sub(r"\$\{\w+:-(.*?)\}", r"\1", value) for key, value in environment.items()}
    Config.from_env({"HOST": "0.0.0.0", **values})


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
    text = (ROOT / "Dockerfile").read_text(encoding="utf-8").partition("\nFROM python")[0]
    ignored = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    for line in re.findall(r"^COPY (.+)$", text, re.MULTILINE):
        *sources, target = line.split()
        for source in sources:
            assert f"!{source}" in ignored, f"{source} is kept out of the image's context"
            destination = tmp_path / (target if target != "./" else source)
            subprocess.run(["cp", "-r", ROOT / source, destination], check=True)
    done = subprocess.run(
        [sys.executable, "-I", "-c", _START.format(root=str(tmp_path))], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == (ROOT / "version.txt").read_text().strip()


_START = """
import sys
sys.path.insert(0, {root!r})
import chat2api, chat2api.app
from chat2api.config import Config
assert chat2api.__file__.startswith({root!r})
chat2api.app.create_app(Config())
print(chat2api.__version__)
"""
