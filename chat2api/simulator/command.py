"""The command `chat2api simulate`: runs the simulator until it is interrupted, and prints how to use it."""

import argparse
import asyncio
import signal
import sys
import tempfile
from pathlib import Path
from typing import get_args

from chat2api.simulator.app import Simulator
from chat2api.simulator.openai_api import ApiSimulator
from chat2api.simulator.options import AnswerKind, SimulatorOptions


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments to a parser."""
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default: %(default)s)")
    parser.add_argument("--port", type=int, default=8050, help="port, 0 for a free one (default: %(default)s)")
    parser.add_argument("--openai", action="store_true", help="play the OpenAI API, not the website's backend")
    parser.add_argument("--tls", action="store_true", help="listen with TLS too, on the next port")
    parser.add_argument("--ca-file", type=Path, help="where to write the CA (default: a temporary file)")
    parser.add_argument("--seed", default="simulator", help="makes the accounts; the same seed, the same tokens")
    parser.add_argument("--accounts", type=int, default=3, help="ready-made accounts (default: %(default)s)")
    parser.add_argument(
        "--proof-difficulty", default="0fffff", metavar="HEX", help="default: %(default)s; off for none"
    )
    parser.add_argument("--two-stage", action="store_true", help="offer only the two-stage requirements exchange")
    parser.add_argument("--endpoint", choices=("classic", "f", "both"), default="both", help="default: %(default)s")
    parser.add_argument("--encoding", choices=("auto", "classic", "v1"), default="auto", help="default: %(default)s")
    parser.add_argument("--rotation", choices=("strict", "overlap", "none"), default="strict", help="of refresh tokens")
    parser.add_argument("--answer", choices=get_args(AnswerKind), default="text", help="kind of answer")
    parser.add_argument(
        "--delay", type=float, default=0.03, metavar="SECONDS", help="between words (default: %(default)s)"
    )
    parser.add_argument("--events", type=int, metavar="N", help="answer with N numbered words")
    parser.add_argument("--no-record", action="store_true", help="keep no requests, for long load runs")
    parser.add_argument("--verbose", action="store_true", help="print all tokens and one line for each reply")


def run(arguments: argparse.Namespace) -> int:
    """Run until SIGINT or SIGTERM; give the exit status."""
    difficulty = arguments.proof_difficulty
    options = SimulatorOptions(
        seed=arguments.seed,
        accounts=arguments.accounts,
        record=not arguments.no_record,
        stages="two" if arguments.two_stage else "both",
        proof_required=difficulty != "off",
        difficulty="0fffff" if difficulty == "off" else difficulty,
        endpoints=arguments.endpoint,
        encoding=arguments.encoding,
        rotation=arguments.rotation,
        answer=arguments.answer,
        delay=arguments.delay,
        events=arguments.events,
    )
    kind = ApiSimulator if arguments.openai else Simulator
    simulator = _make(kind, options, arguments.host, arguments.port, arguments.tls)
    try:
        asyncio.run(_serve(simulator, arguments.tls, arguments.ca_file, arguments.verbose))
    except OSError as error:
        sys.stderr.write(f"cannot listen on {arguments.host}:{arguments.port}: {error}\n")
        return 1
    return 0


async def serve_simulator(host: str, port: int, options: SimulatorOptions, *, tls: bool = False) -> None:
    """Serve until cancelled. Raises OSError when the port is taken."""
    async with _make(Simulator, options, host, port, tls):
        await asyncio.Event().wait()


def _make(kind: type[Simulator], options: SimulatorOptions, host: str, port: int, tls: bool) -> Simulator:
    return kind(options, host=host, port=port, tls=tls, tls_port=port + 1 if port else 0)


async def _serve(simulator: Simulator, tls: bool, ca_file: Path | None, verbose: bool) -> None:
    stopped = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stopped.set)
    async with simulator:
        with tempfile.TemporaryDirectory(prefix="chat2api-simulator-") as folder:
            if tls:
                ca_file = simulator.write_ca(ca_file or Path(folder) / "ca.pem")
            sys.stdout.write(describe(simulator, ca_file if tls else None, verbose))
            sys.stdout.flush()
            await stopped.wait()


def describe(simulator: Simulator, ca_file: Path | None, verbose: bool) -> str:
    """Give the text that says where the simulator listens and which accounts it has."""
    if isinstance(simulator, ApiSimulator):
        lines = [f"Simulated OpenAI API on {simulator.url}/v1, with these keys:"]
        lines += [f"  {key}" for key in simulator.keys]
        if ca_file is not None:
            lines.append(f"With TLS on {simulator.tls_url}/v1 (CA: {ca_file})")
        return "\n".join([*lines, "", f"Steer it at {simulator.url}/__control__/ and stop it with Ctrl-C.", ""])
    lines = [f"Simulated ChatGPT backend on {simulator.url}"]
    if ca_file is not None:
        lines.append(f"With TLS on {simulator.tls_url} (CA: {ca_file})")
    for account in simulator.control.accounts:
        lines += ["", f"{account.email}, {account.plan}, workspaces {', '.join(account.account_ids)}"]
        lines.append(f"  refresh token {account.refresh_token}")
        lines.append(f"  access token  {account.access_token}")
        if verbose:
            lines.append(f"  web cookie    {account.session_cookie}")
    lines += ["", f"Steer it at {simulator.url}/__control__/ and stop it with Ctrl-C.", ""]
    return "\n".join(lines)
