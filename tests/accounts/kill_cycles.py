"""Kills a process in the middle of refreshes, again and again, and prints what became of the tokens.

    python -m tests.accounts.kill_cycles FOLDER overlap|strict KILLS MOMENTS SEED

Every cycle is a process of its own, forked so that it need not import everything again. It opens the records, settles
what the one before left, refreshes, and is killed: KILLS times at one of the labelled points (`rotated` is inside the
exchange: the server has replaced the token and the answer is lost), MOMENTS times at a random moment. The sign-in
server is a file that survives. `overlap` accepts the token before the present one; `strict` ends the sign-in when it
sees that one.

The last line printed is JSON: kills, lost (accounts whose stored token the server refuses without our knowing),
in_doubt, flagged, resent (how often a consumed token was sent) and unreadable.
"""

import asyncio
import contextlib
import json
import os
import random
import signal
import sys
from collections.abc import Coroutine
from pathlib import Path
from typing import Any, TypedDict

from chat2api.accounts.exchange import RefreshAnswer
from chat2api.accounts.refresh import POINTS, TokenKeeper
from chat2api.errors import AccountRejectedError, UpstreamError
from chat2api.storage.shared import MemoryShared
from chat2api.storage.sql_records import SqlRecords
from chat2api.storage.values import Account
from tests.accounts.jwt import access_token
from tests.clocks import FakeClock
from tests.storage.accounts import add, new_account, rotating

ALL_POINTS = (*POINTS, "rotated")

LONGEST_CYCLE = 0.08
"""Random moments fall into this many seconds, about as long as a cycle takes."""


class Grant(TypedDict):
    """What the sign-in server knows: tokens by number, which are accepted, and how often a consumed one came."""

    present: int
    alive: bool
    resent: int


class Server:
    """A sign-in server of one account whose state is a file."""

    def __init__(self, path: Path, strict: bool) -> None:
        """Use this file."""
        self._path = path
        self._strict = strict

    def grant(self) -> Grant:
        """Give the state."""
        if not self._path.exists():
            return Grant(present=0, alive=True, resent=0)
        state: Grant = json.loads(self._path.read_text())
        return state

    def save(self, grant: Grant) -> None:
        """Store the state so that a kill leaves the old or the new one."""
        new = self._path.with_suffix(".new")
        new.write_text(json.dumps(grant))
        new.replace(self._path)

    def rotate(self, token: str) -> str:
        """Take a token and give the next; AccountRejectedError as the real one answers."""
        grant, number = self.grant(), int(token.removeprefix("rt_"))
        consumed = number < grant["present"]
        grant["resent"] += consumed
        if not grant["alive"] or number > grant["present"] or (consumed and self._strict):
            grant["alive"] = False
            self.save(grant)
            raise AccountRejectedError("used", reason="refresh_token_reused")
        if consumed and number < grant["present"] - 1:
            raise AccountRejectedError("too old", reason="invalid_grant")
        grant["present"] += 1
        self.save(grant)
        return rotating(grant["present"])

    def accepts(self, token: str) -> bool:
        """Whether the token would be taken."""
        grant, number = self.grant(), int(token.removeprefix("rt_"))
        return grant["alive"] and number in (
            {grant["present"]} if self._strict else {grant["present"], grant["present"] - 1}
        )


def die_at(wanted: str | None, point: str) -> None:
    """End this process as kill -9 does, if this is the point."""
    if point == wanted:
        os.kill(os.getpid(), signal.SIGKILL)


async def cycle(folder: Path, server: Server, point: str | None) -> None:
    """Open, settle, refresh until killed; with no point, refresh once and end."""
    clock = FakeClock()
    if point is not None and point.startswith("after "):
        # The default action of this signal ends the process on the spot.
        signal.setitimer(signal.ITIMER_REAL, float(point.removeprefix("after ")))

    async def exchange(account: Account, token: str) -> RefreshAnswer:
        renewable = server.rotate(token)
        die_at(point, "rotated")
        return RefreshAnswer(access_token(serial=server.grant()["present"]), renewable)

    def spawn(work: Coroutine[Any, Any, str], name: str) -> "asyncio.Task[str]":
        return asyncio.get_running_loop().create_task(work, name=name)

    records = await SqlRecords.open(folder)
    keeper = TokenKeeper(
        records, MemoryShared(clock), clock, exchange, spawn, at=lambda reached: die_at(point, reached)
    )
    await keeper.recover()
    for account in (await records.changes()).accounts:
        # In doubt, or without a sign-in: that is for the operator, whom the survey plays.
        with contextlib.suppress(UpstreamError):
            await keeper.renew(account)
    await records.aclose()


async def survey(folder: Path, server: Server) -> dict[str, int]:
    """Settle what is left and compare the stored token with what the server takes; then begin anew if it is dead."""
    await cycle(folder, server, None)
    records = await SqlRecords.open(folder)
    account = (await records.changes()).accounts[0]
    view = await records.refresh_view(account.id)
    assert view is not None and view.secrets.renewable is not None
    good = server.accepts(view.secrets.renewable)
    flagged = account.state in ("in_doubt", "needs_sign_in")
    doubted = view.intent if good else None
    if doubted is not None:
        # Killed in its second try, before the token left: the operator says that it may be sent, and sees it done.
        assert flagged
        await records.abandon_refresh(doubted, 0.0, state="ok")
    if not good:
        number = server.grant()["present"] + 1
        server.save(Grant(present=number, alive=True, resent=server.grant()["resent"]))
        await records.delete_accounts(None, 0.0)
        await records.sweep(1e12)
        await add(records, new_account(0, renewable=rotating(number)))
    await records.aclose()
    if doubted is not None:
        await cycle(folder, server, None)
    return {"lost": int(not good and not flagged), "in_doubt": int(not good), "flagged": int(not good and flagged)}


def in_child(work: Coroutine[Any, Any, Any], result: Path | None = None) -> int:
    """Run it in a forked process and give how that ended; its result is left as JSON."""
    child = os.fork()
    if child == 0:
        status = 1
        try:
            value = asyncio.run(work)
            if result is not None:
                result.write_text(json.dumps(value))
            status = 0
        finally:
            os._exit(status)
    work.close()
    _, ended = os.waitpid(child, 0)
    return os.waitstatus_to_exitcode(ended)


async def begin(folder: Path) -> None:
    """Make records with the one account."""
    records = await SqlRecords.open(folder)
    await add(records, new_account(0))
    await records.aclose()


def main(folder: Path, strict: bool, kills: int, moments: int, seed: int) -> dict[str, int]:
    """Run the cycles and give the sums."""
    rng = random.Random(seed)
    folder.mkdir(parents=True, exist_ok=True)
    server, result = Server(folder / "server.json", strict), folder / "result.json"
    totals = {"kills": 0, "lost": 0, "in_doubt": 0, "flagged": 0, "resent": 0, "unreadable": 0}
    assert in_child(begin(folder)) == 0
    points = [ALL_POINTS[number % len(ALL_POINTS)] for number in range(kills)]
    points += [f"after {rng.uniform(0.001, LONGEST_CYCLE):.6f}" for _ in range(moments)]
    rng.shuffle(points)
    for point in points:
        if point == "doubt_claimed":
            # Only passed by who finds a doubt: leave one first.
            in_child(cycle(folder, server, "rotated"))
        totals["kills"] += in_child(cycle(folder, server, point)) in (-signal.SIGKILL, -signal.SIGALRM)
        if in_child(survey(folder, server), result) != 0:
            totals["unreadable"] += 1
            continue
        for name, number in json.loads(result.read_text()).items():
            totals[name] += number
    totals["resent"] = server.grant()["resent"]
    return totals


if __name__ == "__main__":
    arguments = sys.argv[1:]
    outcome = main(Path(arguments[0]), arguments[1] == "strict", *map(int, arguments[2:5]))
    sys.stdout.write(json.dumps(outcome) + "\n")
