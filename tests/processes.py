"""The program as a process of its own, as people run it."""

import asyncio
import re
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).parent.parent

LONG = 30.0
"""How long a process may take to start or to end; generous, for busy machines."""


@dataclass(frozen=True, slots=True)
class Ended:
    """How a run ended: its exit status and what it wrote."""

    status: int
    out: str
    err: str


@dataclass(slots=True)
class Running:
    """A process that runs, and what it has written so far."""

    process: asyncio.subprocess.Process
    _out: bytearray = field(default_factory=bytearray)
    _err: bytearray = field(default_factory=bytearray)
    _written: asyncio.Event = field(default_factory=asyncio.Event)
    _readers: "list[asyncio.Task[None]]" = field(default_factory=list)

    @property
    def out(self) -> str:
        """What it wrote to standard output."""
        return self._out.decode(errors="replace")

    @property
    def err(self) -> str:
        """What it wrote to standard error: the log."""
        return self._err.decode(errors="replace")

    def watch(self) -> None:
        """Begin to read what it writes."""
        assert self.process.stdout is not None
        assert self.process.stderr is not None
        loop = asyncio.get_running_loop()
        pipes = ((self.process.stdout, self._out), (self.process.stderr, self._err))
        self._readers = [loop.create_task(self._read(pipe, into)) for pipe, into in pipes]

    async def _read(self, pipe: asyncio.StreamReader, into: bytearray) -> None:
        while data := await pipe.read(65536):
            into += data
            self._written.set()
        self._written.set()

    async def find(self, pattern: str) -> str:
        """Give the first group of the pattern in its standard output, once it is there."""
        async with asyncio.timeout(LONG):
            while (found := re.search(pattern, self.out)) is None:
                assert not all(reader.done() for reader in self._readers), f"it ended: {self.out}{self.err}"
                self._written.clear()
                await self._written.wait()
        return found[1] if found.groups() else found[0]

    async def wait(self) -> Ended:
        """Give how it ended, once it has."""
        async with asyncio.timeout(LONG):
            await asyncio.gather(*self._readers)
            return Ended(await self.process.wait(), self.out, self.err)

    async def stop(self) -> Ended:
        """Ask it to stop, and give how it ended."""
        if self.process.returncode is None:
            self.process.terminate()
        return await self.wait()


@asynccontextmanager
async def running(
    *arguments: str, cwd: Path, environ: dict[str, str] | None = None, module: Sequence[str] = ("-m", "chat2api")
) -> AsyncIterator[Running]:
    """Run `python -m chat2api` with these arguments and no settings but `environ`; it is killed if it still runs."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *module,
        *arguments,
        cwd=cwd,
        env={
            "PATH": "/usr/local/bin:/usr/bin:/bin",
            "PYTHONPATH": str(ROOT),  # the program beside this suite, wherever another one is installed
            "PYTHONUNBUFFERED": "1",
            **(environ or {}),
        },
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    program = Running(process)
    program.watch()
    try:
        yield program
    finally:
        if process.returncode is None:
            process.kill()
        await program.wait()


async def run(*arguments: str, cwd: Path, environ: dict[str, str] | None = None, stdin: str = "") -> Ended:
    """Run a command to its end."""
    async with running(*arguments, cwd=cwd, environ=environ) as program:
        assert program.process.stdin is not None
        program.process.stdin.write(stdin.encode())
        program.process.stdin.close()
        return await program.wait()
