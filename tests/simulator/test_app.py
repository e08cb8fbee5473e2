"""Tests of the simulator as a whole: what it shares with the rest, how it starts and how it ends."""

import ast
from pathlib import Path

import pytest

import chat2api.simulator
from chat2api.simulator.app import Simulator
from chat2api.simulator.options import SimulatorOptions
from tests.simulator.web_client import WebClient

_SHARED = {"chat2api.clock", "chat2api.errors", "chat2api.protocol.event_stream"}


def _imported_modules() -> set[str]:
    found = set()
    for path in Path(chat2api.simulator.__path__[0]).rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and node.module:
                found.add(node.module)
            elif isinstance(node, ast.Import):
                found |= {alias.name for alias in node.names}
    return {name for name in found if name.startswith("chat2api")}


def test_the_simulator_shares_only_the_clock_with_the_rest() -> None:
    outside = {name for name in _imported_modules() if not name.startswith("chat2api.simulator")}
    assert outside <= _SHARED
    assert outside == {"chat2api.clock"}


async def test_a_taken_port_is_told(sim: Simulator) -> None:
    port = int(sim.url.rpartition(":")[2])
    with pytest.raises(OSError, match="in use"):
        async with Simulator(port=port):
            pass


async def test_the_same_seed_keeps_tokens_good_over_a_restart() -> None:
    async with Simulator(SimulatorOptions(seed="one")) as first:
        account = first.control.accounts[0]
    async with Simulator(SimulatorOptions(seed="one")) as second, WebClient(second, account) as web:
        assert (await web.ask()).status_code == 200
    async with Simulator(SimulatorOptions(seed="two")) as third, WebClient(third, account) as web:
        assert (await web.get("/backend-api/me")).status_code == 401


async def test_a_crash_inside_is_no_fault_of_the_backend(monkeypatch: pytest.MonkeyPatch) -> None:
    def crash(*_: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr("chat2api.simulator.backend.named_answer", crash)
    with pytest.raises(BaseExceptionGroup, match="the simulator itself failed"):
        async with Simulator() as sim, WebClient(sim, None) as web:
            with pytest.raises(Exception, match="disconnected"):
                await web.get("/nowhere")


async def test_tls_is_there_when_asked_for(sim: Simulator, tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="tls=True"):
        _ = sim.tls_url
    with pytest.raises(RuntimeError, match="tls=True"):
        _ = sim.ca_pem
    async with Simulator(tls=True) as secure:
        assert secure.write_ca(tmp_path / "ca.pem").read_bytes().startswith(b"-----BEGIN CERTIFICATE-----")
