"""From settings to a running server: the process's own protection, the listener, what is said at the start."""

import asyncio
import ctypes
import gc
import logging
import os
import resource
import shlex
import shutil
import signal
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path

from chat2api import __version__
from chat2api.api.body import body_limit
from chat2api.api.connection import ConnectionSettings
from chat2api.api.context import running_runtime
from chat2api.api.conversations import error_writer
from chat2api.api.guards import BodyGuard, BodySettings
from chat2api.api.listening import Address
from chat2api.api.server import ServerSettings, Shutdown, serve
from chat2api.app import create_app
from chat2api.clock import Clock
from chat2api.config import Config
from chat2api.errors import Chat2APIError
from chat2api.keys.operator import KEY_FILE
from chat2api.logs import Redactor
from chat2api.protocol.chatgpt import proof_of_work
from chat2api.runtime import Runtime

log = logging.getLogger(__name__)

NOT_KEPT = (
    "DATA_DIR is none: accounts, issued keys, invitations, usage, sign-ins and the journal end with this process. Add no "
    "RefreshToken here that others shall use later: it may be replaced, and the new one would be lost"
)
_PR_SET_DUMPABLE = 4

_OPEN_MAX = 10_240
"""Descriptors that macOS gives a process at most, whatever limit it tells. Source: Apple's setrlimit(2), COMPATIBILITY."""

_ALLOCATIONS_BETWEEN_COLLECTIONS = 10_000


def protect_process() -> None:
    """Keep what this process writes and holds from others (private files, no core dumps; S19), and lift its own limits."""
    os.umask(0o077)
    few, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    for wanted in (most, _OPEN_MAX, few):
        with suppress(ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, most))
            break
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)


def calm_collector() -> None:
    """Have Python look for cycles of garbage less often, and never among what is here by now.

    Each look at the young objects otherwise comes after 700 of them, which is several a request, and each look at all goes
    through every module, route and template again.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(_ALLOCATIONS_BETWEEN_COLLECTIONS, *gc.get_threshold()[1:])


async def run_server(
    config: Config,
    redactor: Redactor,
    *,
    demo: bool = False,
    unused: Sequence[str] = (),
    shutdown: Shutdown | None = None,
    clock: Clock | None = None,
    on_ready: Callable[[Runtime, Sequence[Address]], None] | None = None,
) -> int:
    """Serve until told to stop; give the exit status. Raises ConfigError when an address cannot be used.

    `unused` names settings that are set in vain. `shutdown` None lets signals stop the server; `clock` None means the
    machine's. `on_ready` is told the real addresses in place of the banner on standard output.
    """
    app = create_app(config, demo=demo, redactor=redactor, clock=clock)
    app.logger.addFilter(_needs_traceback)
    handle_signals = shutdown is None
    shutdown = shutdown or Shutdown()

    def ready(addresses: Sequence[Address]) -> None:
        runtime = running_runtime(app)
        runtime.watch_shutdown(shutdown.ending)
        if handle_signals:  # the process is the server's alone
            calm_collector()
            _reload_on_hangup(runtime)
        _log_start(runtime, unused)
        (on_ready or _show_banner)(runtime, addresses)

    return await serve(
        BodyGuard(
            app,
            limit_for=body_limit,
            write_for=partial(error_writer, f"/{config.api_prefix}" if config.api_prefix else ""),
            settings=BodySettings(timeout=config.client_body_timeout),
        ),
        binds=[(host, config.port) for host in config.host],
        settings=ServerSettings(
            connection=ConnectionSettings(
                header_timeout=config.client_headers_timeout, send_timeout=config.client_write_timeout
            ),
            drain_accept=config.drain_accept,
            drain_timeout=config.drain_timeout,
        ),
        shutdown=shutdown,
        on_ready=ready,
        on_draining=lambda: running_runtime(app).drain(),
        handle_signals=handle_signals,
    )


def _reload_on_hangup(runtime: Runtime) -> None:
    """Let SIGHUP read the tiers' file anew, where there is one; without, the signal ends the process as ever."""
    if runtime.tiers.path is not None and hasattr(signal, "SIGHUP"):
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGHUP, lambda: runtime.spawn(runtime.tiers.reload(), name="tiers"))


def _needs_traceback(record: logging.LogRecord) -> bool:
    """Keep the framework from logging our own errors with a traceback when it starts: they are told in words."""
    return record.exc_info is None or not isinstance(record.exc_info[1], Chat2APIError)


def _log_start(runtime: Runtime, unused: Sequence[str]) -> None:
    """Log one block: version, settings, accounts by state, upstream."""
    statistics = runtime.pool.statistics()
    states = ", ".join(f"{count} {state}" for state, count in sorted(statistics.by_state.items())) or "none"
    log.info("chat2api %s, proof of work: %s", __version__, proof_of_work.describe())
    log.info("settings: %s", " ".join(f"{name}={text}" for name, text in runtime.config.summary().items()))
    log.info("accounts: %d (%s)", statistics.total, states)
    log.info(
        "upstream: %s", "simulator for the demo key" if runtime.demo else ", ".join(runtime.config.chatgpt_base_url)
    )
    if runtime.openai.configured:
        keys = runtime.openai.pool.statistics()
        states = ", ".join(f"{count} {state}" for state, count in sorted(keys.by_state.items()))
        log.info("forwarding: %s, API keys: %d (%s)", runtime.openai.client.base, keys.total, states)
    if runtime.config.unnamed_proxy:
        log.warning(
            "PUBLIC_ORIGINS says that a reverse proxy stands in front, but TRUSTED_PROXIES does not name it: all callers "
            "seem to be one, none counts as this machine, and who guesses keys holds up everybody. Set TRUSTED_PROXIES to "
            "the proxy's address, 127.0.0.1 if it runs on this machine"
        )
    if runtime.config.diskless:
        log.warning("%s", NOT_KEPT)
    if unused:
        log.warning("settings of similar servers that this one does not read: %s", ", ".join(unused))
    if runtime.operator_keys.shut is not None:
        log.error("%s", runtime.operator_keys.shut)


def _show_banner(runtime: Runtime, addresses: Sequence[Address]) -> None:
    """Say on standard output how to use the server."""
    config = runtime.config
    host, port = addresses[0]
    shown = "localhost" if host in ("0.0.0.0", "::", "127.0.0.1", "::1") else host
    base = f"http://{shown}:{port}{'/' + config.api_prefix if config.api_prefix else ''}"
    command = own_command()
    lines = ["", f"chat2api {__version__} listens on {base}", ""]
    if runtime.demo is not None:
        lines += [
            "No account is set up: the built-in SIMULATOR answers the demo key below.",
            "Its answers come from no model, and the response header x-chat2api-upstream says `simulator`.",
            "The key ends with this run.",
            "",
            *_examples(base, runtime.demo.key),
        ]
    if runtime.openai.configured:
        count = runtime.openai.pool.statistics().total
        lines += [f"Calls are forwarded to {runtime.openai.client.base}, with {count} API key{'s' * (count > 1)}."]
    if config.diskless:
        lines += [NOT_KEPT + ".", ""]
    elif not runtime.pool.statistics().total and not runtime.openai.configured:
        lines += [
            "To use your own ChatGPT account, add its token (README says how to get it), in another terminal:",
            f"  {command} tokens add -",
        ]
    if not config.authorization and runtime.operator_keys.shut is None:
        opened = "this server" if runtime.openai.configured else "the accounts"
        lines += [
            f"The operator key opens {opened}. Clients take it from these variables:",
            f"  export OPENAI_BASE_URL={base}/v1",
            f"  export OPENAI_API_KEY=$(cat {shlex.quote(str(config.data_dir / KEY_FILE))})",
        ]
    sys.stdout.write("\n".join(lines) + "\n")
    sys.stdout.flush()


def own_command() -> str:
    """Give how this program's commands are called from the folder in which it was started."""
    python = Path(sys.executable)
    script = python.with_name("chat2api")
    if script.is_file():
        return "chat2api" if shutil.which("chat2api") == str(script) else _near(script)
    return ("python" if shutil.which("python") == str(python) else _near(python)) + " -m chat2api"


def _near(path: Path) -> str:
    """Give a path as it is called from the current folder."""
    return shlex.quote(str(path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path))


def _examples(base: str, key: str) -> list[str]:
    body = '{"model": "auto", "stream": true, "messages": [{"role": "user", "content": "Name three rivers."}]}'
    return [
        f"curl -N {base}/v1/chat/completions \\",
        f'  -H "Authorization: Bearer {key}" \\',
        '  -H "Content-Type: application/json" \\',
        f"  -d '{body}'",
        "",
        "from openai import OpenAI",
        f'client = OpenAI(base_url="{base}/v1", api_key="{key}")',
        "for chunk in client.chat.completions.create(",
        '    model="auto", stream=True, messages=[{"role": "user", "content": "Name three rivers."}]',
        "):",
        '    print(chunk.choices[0].delta.content or "", end="")',
        "",
    ]
