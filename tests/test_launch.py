"""What the terminal shows: a banner whose lines work when they are pasted, and failures in words."""

import os
import pty
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from chat2api import launch
from tests.e2e.harness import OPERATOR_KEY

ROOT = Path(__file__).parent.parent


def environ(folder: Path, **settings: str) -> dict[str, str]:
    """Give an environment without settings of the person who runs the suite."""
    kept = {name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ}
    return {**kept, "PYTHONPATH": str(ROOT), "PORT": "0", "DATA_DIR": str(folder), "DRAIN_ACCEPT": "0", **settings}


@contextmanager
def serving(folder: Path, *arguments: str, **settings: str) -> Iterator[str]:
    """Run the server as a person does, and give its banner, as far as its last line."""
    command = [sys.executable, "-m", "chat2api", "serve", *arguments]
    with subprocess.Popen(
        command,
        env=environ(folder, **settings),
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as server:
        assert server.stdout is not None
        banner = ""
        last = "export OPENAI_API_KEY" if "AUTHORIZATION" not in settings else "tokens add -"
        try:
            for line in server.stdout:
                banner += line
                if last in line:
                    break
            yield banner
        finally:
            server.send_signal(signal.SIGTERM)
            assert server.wait(30) == 0


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Give the banner of a server that has no account and runs the demo."""
    with serving(tmp_path_factory.mktemp("demo"), "--demo") as banner:
        yield banner


def test_the_curl_and_python_lines_of_the_banner_work_as_they_are_pasted(demo: str) -> None:
    curl = re.search(r"^curl .*?'$", demo, re.MULTILINE | re.DOTALL)
    python = re.search(r"^from openai .*\n    print\([^\n]*\)$", demo, re.MULTILINE | re.DOTALL)
    assert curl is not None
    assert python is not None
    by_curl = subprocess.run(["sh", "-c", curl[0]], capture_output=True, text=True, timeout=30)
    by_python = subprocess.run([sys.executable, "-c", python[0]], capture_output=True, text=True, timeout=30)
    assert "data: [DONE]" in by_curl.stdout
    assert (by_python.stdout, by_python.stderr) == ("Nile, Amazon, Danube.", "")
    assert "SIMULATOR" in demo


def test_the_lines_of_the_readme_work_as_they_are_pasted(demo: str, tmp_path: Path) -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    python = re.search(r"```python\n(.*?)```", readme, re.DOTALL)
    curl = re.search(r"^curl -N \"\$OPENAI_BASE_URL.*?(?=^```)", readme, re.MULTILINE | re.DOTALL)
    key, base = re.search(r"Bearer (demo-\S+)\"", demo), re.search(r"OPENAI_BASE_URL=(\S+)", demo)
    assert python is not None
    assert curl is not None
    assert key is not None
    assert base is not None
    variables = {**environ(tmp_path), "OPENAI_BASE_URL": base[1], "OPENAI_API_KEY": key[1]}
    for command in ([sys.executable, "-c", python[1]], ["sh", "-c", curl[0]]):
        done = subprocess.run(command, env=variables, capture_output=True, text=True, timeout=30)
        assert "simulator" in done.stdout
        assert done.returncode == 0


def test_the_variables_of_the_banner_open_the_pool(tmp_path: Path) -> None:
    with serving(tmp_path) as banner:
        told = subprocess.run(
            ["sh", "-c", "\n".join(re.findall(r"^  export .*", banner, re.MULTILINE)) + "\nenv"],
            capture_output=True,
            text=True,
            timeout=30,
        ).stdout
        variables = dict(re.findall(r"^(OPENAI_\w+)=(.*)$", told, re.MULTILINE))
        answer = httpx.post(
            f"{variables['OPENAI_BASE_URL']}/chat/completions",
            headers={"Authorization": f"Bearer {variables['OPENAI_API_KEY']}"},
            json={"messages": [{"role": "user", "content": "Hello!"}]},
        )
    assert answer.json()["error"]["code"] == "no_account"  # the key was good


def test_the_command_of_the_banner_is_one_that_can_be_called_from_there(tmp_path: Path) -> None:
    with serving(tmp_path, AUTHORIZATION=OPERATOR_KEY) as banner:
        command = re.search(r"^  (.*) tokens add -$", banner, re.MULTILINE)
        assert command is not None
        told = subprocess.run(
            ["sh", "-c", f"{command[1]} --version"],
            cwd=tmp_path,
            env=environ(tmp_path),
            capture_output=True,
            timeout=30,
        )
    assert told.stdout.startswith(b"chat2api ")
    assert OPERATOR_KEY not in banner


def test_a_start_that_fails_is_told_in_words_and_not_by_a_traceback(tmp_path: Path) -> None:
    taken = tmp_path / "file"
    taken.touch()
    done = subprocess.run(
        [sys.executable, "-m", "chat2api"], env=environ(taken), cwd=tmp_path, capture_output=True, text=True, timeout=30
    )
    assert done.returncode == 2
    assert str(taken) in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("installed", "on_path", "expected"),
    [
        (True, True, "chat2api"),
        (True, False, ".venv/bin/chat2api"),
        (False, False, ".venv/bin/python -m chat2api"),
        (False, True, "python -m chat2api"),
    ],
)
def test_the_command_is_the_shortest_that_works(
    installed: bool, on_path: bool, expected: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / ".venv" / "bin"
    folder.mkdir(parents=True)
    for name in ("python", "chat2api") if installed else ("python",):
        (folder / name).touch(mode=0o755)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "executable", str(folder / "python"))
    monkeypatch.setenv("PATH", str(folder) if on_path else "/nonexistent")
    assert launch.own_command() == expected


def test_adding_tokens_at_a_terminal_says_what_is_waited_for(tmp_path: Path) -> None:
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "chat2api", "tokens", "add", "-"]
    with subprocess.Popen(command, env=environ(tmp_path), stdin=theirs, stderr=subprocess.PIPE, text=True) as adding:
        os.close(theirs)
        assert adding.stderr is not None
        asked = adding.stderr.readline()
        os.write(ours, b"# nothing yet\n\x04")
        told = adding.stderr.read()
    os.close(ours)
    assert "Ctrl-D" in asked
    assert "no token" in told
    assert adding.returncode == 1
