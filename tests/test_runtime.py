"""The runtime: opened in order, closed in reverse, and nothing is left of it."""

import asyncio
import threading
from pathlib import Path

import pytest

from chat2api.accounts.pool import Outcome
from chat2api.config import Config
from chat2api.errors import AccountLimitedError, Chat2APIError, DrainingError, StorageError
from chat2api.gateway.provider import Caller
from chat2api.keys.operator import KEY_FILE, OperatorKeys, make_operator_key
from chat2api.logs import Redactor
from chat2api.runtime import VISITORS_SECONDS, Demo, Runtime
from chat2api.simulator.app import Simulator
from chat2api.simulator.faults import Fault
from chat2api.storage.keys import NewKey
from tests.accounts.jwt import access_token
from tests.e2e.harness import HouseClock, add_tokens, until

KEY = "operator-key-of-the-suite"


def settings(folder: Path, sim: Simulator | None = None, **more: str) -> Config:
    environ = {"DATA_DIR": str(folder), "AUTHORIZATION": KEY}
    if sim is not None:
        environ |= {"CHATGPT_BASE_URL": sim.url, "OPENAI_AUTH_TOKEN_URL": f"{sim.url}/oauth/token"}
    return Config.from_env(environ | more)


def tasks() -> set["asyncio.Task[object]"]:
    return {task for task in asyncio.all_tasks() if not task.done()}


async def test_what_was_opened_is_closed_without_a_trace(tmp_path: Path) -> None:
    before = tasks()
    threads = threading.active_count()
    for _ in range(3):
        runtime = await Runtime.open(settings(tmp_path), demo=True)
        assert len(tasks()) > len(before)
        await runtime.aclose()
        assert tasks() == before
    await until(lambda: threading.active_count() <= threads + 4, "threads are left")  # the loop's own few may stay


async def test_closing_twice_is_closing_once(tmp_path: Path) -> None:
    runtime = await Runtime.open(settings(tmp_path))
    await runtime.aclose()
    await runtime.aclose()


async def test_a_data_folder_has_one_server_beside_which_commands_work(tmp_path: Path) -> None:
    server = await Runtime.open(settings(tmp_path), serving=True)
    before = tasks()
    with pytest.raises(StorageError, match="Another server uses"):
        await Runtime.open(settings(tmp_path), serving=True)
    assert tasks() <= before
    await (await Runtime.open(settings(tmp_path))).aclose()
    await server.aclose()
    await (await Runtime.open(settings(tmp_path), serving=True)).aclose()


async def test_R17_records_that_cannot_be_read_stop_the_start_and_leave_nothing(tmp_path: Path) -> None:
    (tmp_path / "records.db").write_bytes(b"this is no database" * 1000)
    before = tasks()
    with pytest.raises(StorageError):
        await Runtime.open(settings(tmp_path), demo=True)
    assert tasks() == before
    assert (tmp_path / "records.db").read_bytes().startswith(b"this is no database"), "and it is not replaced"


async def test_a_start_that_is_given_up_closes_what_was_open(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def fail(self: Simulator) -> Simulator:
        raise OSError("no port")

    before = tasks()
    monkeypatch.setattr(Simulator, "__aenter__", fail)
    with pytest.raises(OSError, match="no port"):
        await Runtime.open(settings(tmp_path), demo=True)
    assert tasks() == before
    monkeypatch.undo()
    runtime = await Runtime.open(settings(tmp_path))
    await runtime.aclose()


# Background work


async def test_background_work_is_named_and_cancelled_at_the_end(tmp_path: Path) -> None:
    runtime = await Runtime.open(settings(tmp_path))
    work = runtime.spawn(asyncio.Event().wait(), name="a task of the test")
    done = runtime.spawn(asyncio.sleep(0, "result"), name="another")
    assert work.get_name() == "a task of the test"
    assert await done == "result"
    await runtime.aclose()
    assert work.cancelled()


async def test_background_work_goes_on_after_a_mistake_that_nobody_thought_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    failed = asyncio.Event()

    async def fail() -> None:
        failed.set()
        raise RuntimeError("a mistake")

    runtime = await Runtime.open(settings(tmp_path), clock=HouseClock(speed=20))
    try:
        monkeypatch.setattr(runtime.pool, "flush", fail)
        await failed.wait()
        monkeypatch.undo()
        await add_tokens(tmp_path, [access_token()])
        await until(lambda: runtime.pool.statistics().total == 1, "the pool follows the records no more")
        assert "pool failed and begins anew" in caplog.text
    finally:
        await runtime.aclose()


async def test_R11_a_refresh_under_way_is_finished_before_anything_closes(tmp_path: Path) -> None:
    async with Simulator() as sim:
        config = settings(tmp_path, sim)
        runtime = await Runtime.open(config)
        account = sim.control.accounts[0]
        await add_tokens(tmp_path, [account.refresh_token])
        await runtime.pool.reload()
        sim.control.fail("oauth_token", Fault("stall", seconds=0.2))
        (view,) = runtime.pool.views()
        renewing = asyncio.ensure_future(runtime.keeper.renew(view.account))
        await sim.control.wait_until(lambda: bool(sim.control.requests_to("oauth_token")))
        await runtime.aclose()
        await renewing

        again = await Runtime.open(config)
        try:
            lease = await again.pool.lease(model="auto")
            await again.sources.pool.open_session(lease, workspace=None)
            await lease.release(Outcome.SERVED)
            assert len(sim.control.requests_to("oauth_token")) == 1, "the new token was stored"
        finally:
            await again.aclose()


# Readiness and stopping


async def test_R11_a_refresh_that_begins_while_another_is_waited_for_is_finished_too(tmp_path: Path) -> None:
    runtime = await Runtime.open(settings(tmp_path))
    answered = asyncio.Event()
    stored: list[bool] = []

    async def second() -> None:
        await answered.wait()
        await runtime.records.set_meta("refreshed", "second")
        stored.append(True)

    async def first() -> None:
        runtime.spawn(second(), name="refresh the second")

    runtime.spawn(first(), name="refresh the first")
    asyncio.get_running_loop().call_later(0.2, answered.set)
    await runtime.aclose()

    assert stored == [True]


async def test_R24_readiness_is_one_word(tmp_path: Path) -> None:
    runtime = await Runtime.open(settings(tmp_path))
    try:
        assert runtime.readiness() == "ready"
        runtime.operator_keys = OperatorKeys((), shut="why")
        assert runtime.readiness() == "degraded"
        runtime.drain()
        assert runtime.readiness() == "draining"
    finally:
        await runtime.aclose()


class Answer:
    """An answer on its way."""

    def __init__(self) -> None:
        self.ended_with: Chat2APIError | None = None

    def interrupt(self, error: Chat2APIError) -> None:
        self.ended_with = error


async def test_R24_when_the_stop_cannot_wait_all_answers_are_ended(tmp_path: Path) -> None:
    runtime = await Runtime.open(settings(tmp_path))
    try:
        answers = [Answer() for _ in range(3)]
        runtime.answers.update(dict.fromkeys(answers))
        ending = asyncio.Event()
        runtime.watch_shutdown(ending)
        await asyncio.sleep(0)
        assert all(answer.ended_with is None for answer in answers)
        ending.set()
        await until(lambda: all(answer.ended_with is not None for answer in answers), "an answer goes on")
        assert all(isinstance(answer.ended_with, DrainingError) and answer.ended_with.final for answer in answers)
    finally:
        await runtime.aclose()


# Keys and secrets


async def test_S13_a_key_that_another_process_made_is_used_within_a_second(tmp_path: Path) -> None:
    config = Config.from_env({"DATA_DIR": str(tmp_path)})
    runtime = await Runtime.open(config, clock=HouseClock(50.0))
    try:
        old = (tmp_path / KEY_FILE).read_text().strip()
        assert runtime.operator_keys.matches(old)
        await make_operator_key(runtime.records, tmp_path)
        new = (tmp_path / KEY_FILE).read_text().strip()
        await until(lambda: runtime.operator_keys.matches(new), "the new key is not taken")
        assert not runtime.operator_keys.matches(old)
    finally:
        await runtime.aclose()


async def test_with_keys_of_ones_own_none_is_made(tmp_path: Path) -> None:
    runtime = await Runtime.open(settings(tmp_path))
    try:
        assert runtime.operator_keys.matches(KEY)
        assert not (tmp_path / KEY_FILE).exists()
    finally:
        await runtime.aclose()


async def test_S18_what_is_secret_is_told_to_the_log(tmp_path: Path) -> None:
    redactor = Redactor()
    config = settings(tmp_path, AUTH_KEY="gateway-canary", SECRET_KEY="secret-canary")
    runtime = await Runtime.open(config, redactor=redactor)
    await runtime.aclose()
    for secret in (KEY, "gateway-canary", "secret-canary"):
        assert redactor.redact(f"with {secret} inside") == "with [secret] inside"


async def test_S18_renewed_tokens_are_told_to_the_log(tmp_path: Path) -> None:
    async with Simulator() as sim:
        redactor = Redactor()
        await add_tokens(tmp_path, [sim.control.accounts[2].refresh_token])
        runtime = await Runtime.open(settings(tmp_path, sim), redactor=redactor)
        try:
            (view,) = runtime.pool.views()
            await runtime.keeper.renew(view.account)
            fresh = sim.control.refresh_token(sim.control.accounts[2].user_id)
            assert redactor.redact(f"<{fresh}>") in ("<[secret]>", "<[token45]>")
        finally:
            await runtime.aclose()


# Visitors


async def test_access_tokens_that_callers_bring_do_not_stay_for_ever(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = HouseClock()
    monkeypatch.setattr("chat2api.runtime.VISITORS_KEPT", 2)
    runtime = await Runtime.open(settings(tmp_path), clock=clock)
    visitors = runtime.sources.visitors

    async def bring(serial: int) -> str:
        caller = Caller("own_token", f"caller-{serial}", access_token(serial=serial))
        return (await runtime.sources.claim(caller)).account_id or ""

    async def known() -> set[str]:
        assert await runtime.timetable.run("sweep")
        stored = {one.id for one in (await visitors.records.changes()).accounts}
        assert stored == {one for one in (anonymous, *brought) if one in visitors.pool}
        return stored

    try:
        anonymous = (await runtime.sources.claim(Caller("anonymous", "anonymous"))).account_id or ""
        brought = [await bring(serial) for serial in range(300)]
        serving = await visitors.pool.lease(model="gpt", account_id=brought[0])
        limited = await visitors.pool.lease(model="gpt", account_id=brought[1])
        await limited.release(AccountLimitedError("", retry_after=7 * 24 * 3600.0))
        clock.advance(VISITORS_SECONDS[0] / 2)
        used = await visitors.pool.lease(model="gpt", account_id=brought[2])
        await used.release(Outcome.SERVED)
        assert await known() == {anonymous, *brought}

        clock.advance(VISITORS_SECONDS[0] / 2 + 1)
        assert await known() == {anonymous, *brought[:3]}
        clock.advance(VISITORS_SECONDS[1])
        assert await known() == {anonymous, brought[0]}
        await serving.release(Outcome.SERVED)
    finally:
        await runtime.aclose()


# The demo


async def test_the_demo_runs_only_while_no_account_is_set_up(tmp_path: Path) -> None:
    runtime = await Runtime.open(settings(tmp_path), demo=True)
    assert runtime.demo is not None
    assert runtime.demo.key_matches(runtime.demo.key)
    assert runtime.pool.statistics().total == 0, "its account is not the pool's"
    await runtime.aclose()
    async with Simulator() as sim:
        await add_tokens(tmp_path, [sim.control.accounts[0].access_token])
        runtime = await Runtime.open(settings(tmp_path, sim), demo=True)
        assert runtime.demo is None
        assert runtime.sources.demo is None
        await runtime.aclose()


def test_each_demo_has_a_key_of_its_own() -> None:
    first, second = Demo(Simulator()), Demo(Simulator())
    assert first.key != second.key
    assert not first.key_matches(second.key)
    assert not first.key_matches("")
    assert first.key.startswith("demo-")
    assert len(first.key) != 45, "45 characters would look like a RefreshToken"


async def test_R22_a_scheduled_refresh_begins_with_the_start(tmp_path: Path) -> None:
    async with Simulator() as sim:
        await add_tokens(tmp_path, [sim.control.accounts[0].refresh_token])
        runtime = await Runtime.open(settings(tmp_path, sim, SCHEDULED_REFRESH="true"), clock=HouseClock(50.0))
        try:
            await sim.control.wait_until(lambda: bool(sim.control.requests_to("oauth_token")))
        finally:
            await runtime.aclose()


async def test_without_a_disk_everything_works_and_nothing_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    runtime = await Runtime.open(Config.from_env({"DATA_DIR": "none", "AUTHORIZATION": KEY}))
    try:
        issued = await runtime.keys.issue(NewKey("somebody", None))
        assert runtime.keys.find(issued.secret) is not None
        assert runtime.operator_keys.matches(KEY)
        assert "disk" not in {check.name for check in runtime.doctor.checks()}
        assert runtime.readiness() == "ready"
    finally:
        await runtime.aclose()
    assert list(tmp_path.iterdir()) == []  # noqa: ASYNC240 - the server is closed


async def test_S1_without_a_disk_no_operator_key_is_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    runtime = await Runtime.open(Config.from_env({"DATA_DIR": "none"}))
    try:
        assert runtime.operator_keys.shut == "DATA_DIR is none, so no operator key can be kept. Set AUTHORIZATION."
        assert runtime.readiness() == "degraded"
    finally:
        await runtime.aclose()
    assert list(tmp_path.iterdir()) == []  # noqa: ASYNC240 - the server is closed


async def test_a_folder_that_cannot_be_written_stops_the_start_with_advice(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match=r"cannot be used: .* name another in DATA_DIR, or set DATA_DIR=none"):
        await Runtime.open(settings(tmp_path / "file" / "data"))
