"""Tests of the command."""

import argparse
import asyncio
import re
import socket
import sys
from pathlib import Path

import pytest

from chat2api.simulator.app import Simulator
from chat2api.simulator.command import add_arguments, describe, run, serve_simulator
from chat2api.simulator.openai_api import ApiSimulator
from chat2api.simulator.options import SimulatorOptions
from tests.simulator.web_client import plain_http

_PROGRAM = """
import argparse, sys
from chat2api.simulator.command import add_arguments, run
parser = argparse.ArgumentParser()
add_arguments(parser)
sys.exit(run(parser.parse_args(sys.argv[1:])))
"""


async def test_it_prints_where_it_is_serves_and_ends_well(tmp_path: Path) -> None:
    ca_file = tmp_path / "ca.pem"
    arguments = ["--port", "0", "--tls", "--ca-file", str(ca_file), "--proof-difficulty", "off", "--delay", "0"]
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", _PROGRAM, *arguments, stdout=asyncio.subprocess.PIPE
    )
    try:
        assert process.stdout is not None
        text = ""
        async with asyncio.timeout(20):
            while "Ctrl-C" not in text:
                text += (await process.stdout.readline()).decode()
        origin = re.search(r"on (http://127\.0\.0\.1:\d+)", text)
        tokens = re.findall(r"access token +(\S+)", text)
        assert origin is not None
        assert len(tokens) == 3
        assert ca_file.read_bytes().startswith(b"-----BEGIN CERTIFICATE-----")
        async with plain_http() as http:
            headers = {"authorization": f"Bearer {tokens[0]}"}
            path = "/backend-api/sentinel/chat-requirements"
            answer = await http.post(origin[1] + path, json={"p": None}, headers=headers)
            assert answer.json()["proofofwork"] == {"required": False}
        process.terminate()
        assert await asyncio.wait_for(process.wait(), 10) == 0
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


def test_a_taken_port_is_one_line_and_a_status(capsys: pytest.CaptureFixture[str]) -> None:
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        assert run(parser.parse_args(["--port", str(taken.getsockname()[1])])) == 1
    assert "cannot listen" in capsys.readouterr().err


async def test_it_tells_cookies_only_when_verbose(sim: Simulator) -> None:
    cookie = sim.control.accounts[0].session_cookie
    assert cookie not in describe(sim, None, False)
    assert cookie in describe(sim, None, True)


async def test_serving_goes_on_until_cancelled() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    serving = asyncio.create_task(serve_simulator("127.0.0.1", port, SimulatorOptions()))
    await asyncio.sleep(0)
    async with plain_http() as http:
        assert (await http.get(f"http://127.0.0.1:{port}/")).status_code == 200
    serving.cancel()
    with pytest.raises(asyncio.CancelledError):
        await serving


async def test_it_plays_the_openai_api_as_well() -> None:
    async with ApiSimulator(SimulatorOptions(accounts=2)) as api:
        told = describe(api, None, verbose=False)
        assert f"{api.url}/v1" in told
        assert all(key in told for key in api.keys)
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    assert parser.parse_args(["--openai"]).openai
