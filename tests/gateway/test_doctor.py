"""The doctor: what it finds, and that it tells nothing secret and changes nothing."""

import re
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from unittest.mock import AsyncMock

import pytest
import pytest_asyncio

from chat2api.accounts.tokens import to_credential, to_new_account
from chat2api.errors import NotFoundError
from chat2api.gateway import doctor
from chat2api.gateway.doctor import Finding
from chat2api.gateway.sources import host_of
from chat2api.protocol.chatgpt import proof_of_work
from chat2api.protocol.chatgpt.account import AccountInfo
from chat2api.simulator.app import Simulator
from chat2api.simulator.faults import Fault
from chat2api.simulator.openai_api import ApiSimulator
from tests.api.openai.forwarding import open_forwarding
from tests.e2e.harness import open_house, until
from tests.gateway.bench import Gateway, open_gateway
from tests.proxies import HttpProxy

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def gateway(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Gateway]:
    async with open_gateway(tmp_path_factory.mktemp("doctor")) as made:
        yield made


async def examine(gateway: Gateway) -> dict[str, Finding]:
    """Give the findings by subject."""
    found = [finding async for finding in gateway.runtime.doctor.examine()]
    assert len({finding.subject for finding in found}) == len(found)
    assert all(bool(finding.advice) != finding.ok for finding in found), "advice goes with every failure, only there"
    return {finding.subject: finding for finding in found}


async def test_all_is_well(gateway: Gateway) -> None:
    await gateway.fresh(2)
    findings = await examine(gateway)
    assert all(finding.ok for finding in findings.values())
    labels = [view.account.label for view in gateway.source.pool.views()]
    assert list(findings) == [
        *("proof of work", "records", "disk", "clock"),
        f"{gateway.sim.url} directly",
        *(f"account {label}" for label in labels),
    ]
    assert findings[f"account {labels[0]}"].text == "plan plus, signed in, 8 models offered"
    assert gateway.in_flight == 0
    assert gateway.turns == 0, "no turn is spent"


async def test_the_proof_of_work_says_how_it_is_searched(gateway: Gateway, monkeypatch: pytest.MonkeyPatch) -> None:
    await gateway.fresh(0)
    assert (await examine(gateway))["proof of work"].text == proof_of_work.describe()
    monkeypatch.setattr(proof_of_work, "variants", lambda: (proof_of_work.PYTHON,))
    slow = (await examine(gateway))["proof of work"]
    assert not slow.ok
    assert "make setup" in slow.advice


async def test_what_chatgpt_is_needed_for_is_left_out_where_api_keys_alone_answer(tmp_path: Path) -> None:
    async with open_forwarding(tmp_path) as keyed:  # nobody listens where ChatGPT would be
        doctor = keyed.house.runtime.doctor
        findings = {finding.subject: finding async for finding in doctor.examine()}
        assert [name for name, finding in findings.items() if not finding.ok] == []
        assert list(findings)[:3] == ["records", "disk", "ChatGPT"]
        assert findings["ChatGPT"].text.startswith("not examined")
        await keyed.house.runtime.records.add_accounts([to_new_account(to_credential("rt_" + "a" * 86))], 1.0)
        await keyed.house.runtime.pool.reload()
        names = [check.name for check in doctor.checks()]
        assert {"proof-of-work", "clock", "way-1"} <= set(names)
        assert "chatgpt" not in names


async def test_a_public_tier_without_accounts_is_about_sign_in_free_chat(tmp_path: Path) -> None:
    async with open_gateway(tmp_path, PUBLIC_MODE="free") as public:
        await public.fresh(0)
        well = (await examine(public))["sign-in-free chat"]
        assert well.ok
        assert well.text.startswith("offered to this address")
        public.control.refuse("models", "cloudflare")
        ill = (await examine(public))["sign-in-free chat"]
        assert not ill.ok
        assert "PROXY_URL" in ill.advice


async def test_without_a_disk_accounts_are_those_of_the_running_server(tmp_path: Path) -> None:
    async with open_gateway(tmp_path, DATA_DIR="none") as diskless:
        await diskless.fresh(0)
        findings = await examine(diskless)
    assert findings["records"].text == "in memory, they end with the server"
    assert "disk" not in findings
    assert "on its pages" in findings["accounts"].advice


@pytest.mark.parametrize(
    ("settings", "word"),
    [({"PROXY_URL": "http://127.0.0.1:9"}, "the proxy that PROXY_URL names"), ({"CHATGPT_BASE_URL": "tls"}, "UPSTREAM_CA_FILE"),
     ({"CHATGPT_BASE_URL": "http://127.0.0.1:9"}, "Check the network"), ({"CHATGPT_BASE_URL": "api"}, "Check CHATGPT_BASE_URL")],
)  # fmt: skip
async def test_a_way_that_fails_has_advice_that_fits(tmp_path: Path, settings: dict[str, str], word: str) -> None:
    async with Simulator(tls=True) as sim, ApiSimulator() as api:
        named = {"tls": sim.tls_url, "api": api.url}
        settings = {name: named.get(value, value) for name, value in settings.items()}
        async with open_house(tmp_path, sim, **settings) as house:  # type: ignore[arg-type]  # settings are all strings
            found = await house.runtime.doctor.run("way-1")
    assert not found.ok
    assert word in found.advice


async def test_a_pool_without_accounts_is_a_finding(gateway: Gateway) -> None:
    await gateway.fresh(0)
    finding = (await examine(gateway))["accounts"]
    assert not finding.ok
    assert "tokens add" in finding.advice


async def test_a_dead_account_is_told_with_its_reason_and_what_to_do(gateway: Gateway) -> None:
    (account,) = await gateway.fresh()
    gateway.control.deactivate(account.user_id)
    (label,) = [view.account.label for view in gateway.source.pool.views()]
    first = (await examine(gateway))[f"account {label}"]
    assert not first.ok
    assert "Sign in with a browser" in first.advice
    second = (await examine(gateway))[f"account {label}"]
    assert second.text == "needs_sign_in: account_deactivated"
    assert len(gateway.control.requests_to("models")) == 1, "what is known to be dead is not asked again"


async def test_R7_a_waiting_account_is_left_alone(gateway: Gateway) -> None:
    await gateway.fresh()
    gateway.control.refuse("models", "retry_later", retry_after=3000)
    (label,) = [view.account.label for view in gateway.source.pool.views()]
    assert not (await examine(gateway))[f"account {label}"].ok
    waiting = (await examine(gateway))[f"account {label}"]
    assert "waits for" in waiting.text
    assert 0 < int(waiting.advice.split(" in ")[1].split(" s")[0]) <= 3000
    assert len(gateway.control.requests_to("models")) == 1


@pytest.mark.parametrize(
    ("named", "word"), [("cloudflare", "PROXY_URL"), ("unusual_activity", "PROXY_URL"), ("server_error", "Try again")]
)
async def test_a_refused_account_has_advice_that_fits(gateway: Gateway, named: str, word: str) -> None:
    await gateway.fresh()
    gateway.control.refuse("models", named)
    (label,) = [view.account.label for view in gateway.source.pool.views()]
    assert word in (await examine(gateway))[f"account {label}"].advice


async def test_a_token_that_cannot_be_renewed_is_told_with_the_address_that_was_asked(tmp_path: Path) -> None:
    async with Simulator() as gone:
        nowhere = f"{gone.url}/oauth/token"
    async with open_gateway(tmp_path, OPENAI_AUTH_TOKEN_URL=nowhere) as gateway:
        await gateway.fresh(0)
        (added,) = await gateway.add(gateway.control.add_account().refresh_token)
        finding = (await examine(gateway))[f"account {added.label}"]
        assert not finding.ok
        assert f"OPENAI_AUTH_TOKEN_URL ({nowhere})" in finding.advice


async def test_a_refused_workspace_is_told_as_that(gateway: Gateway) -> None:
    await gateway.fresh(0)
    stranger = gateway.control.add_account()
    (added,) = await gateway.add(stranger.access_token, workspace="11111111-2222-4333-8444-555555555555")
    finding = (await examine(gateway))[f"account {added.label}"]
    assert "account-id" in finding.advice
    again = (await examine(gateway))[f"account {added.label}"]
    assert again.text == "needs_sign_in: workspace_not_allowed"


async def test_S18_an_exit_is_named_without_its_credentials(tmp_path: Path) -> None:
    async with HttpProxy(credentials="someone:proxy-canary") as proxy:
        url = proxy.url("someone:proxy-canary")
        async with open_gateway(tmp_path, PROXY_URL=f"{url},http://127.0.0.1:9") as gateway:
            await gateway.fresh(0)
            findings = await examine(gateway)
            assert findings[f"{gateway.sim.url} through http://127.0.0.1:{proxy.port}"].ok
            dead = findings[f"{gateway.sim.url} through http://127.0.0.1:9"]
            assert not dead.ok
            assert "PROXY_URL" in dead.advice
            assert "canary" not in str(findings)


async def test_R5_what_an_account_met_is_told_to_its_exit(gateway: Gateway) -> None:
    await gateway.fresh()
    exits, host = gateway.source.exits, host_of(gateway.sim.url)
    (view,) = gateway.source.pool.views()
    gateway.control.refuse("models", "cloudflare")
    await gateway.runtime.doctor.examine_account(view)
    rest = exits.blocked_for(None, host)
    assert rest > 0
    gateway.clock.advance(rest)
    assert (await gateway.runtime.doctor.examine_account(view)).ok
    for _ in range(2):
        exits.choose("somebody", host)  # no probe is out any more: all may go


async def test_R5_an_exit_that_cannot_connect_rests(tmp_path: Path) -> None:
    dead = "http://127.0.0.1:9"
    async with HttpProxy() as proxy, open_gateway(tmp_path, PROXY_URL=f"{proxy.url()},{dead}") as gateway:
        await gateway.fresh(0)
        await examine(gateway)
        exits, host = gateway.source.exits, host_of(gateway.sim.url)
        assert exits.blocked_for(dead, host) > 0
        assert exits.blocked_for(proxy.url(), host) == 0


async def test_a_backend_that_is_not_there_is_a_finding_for_each_origin(tmp_path: Path) -> None:
    async with Simulator() as gone:
        nowhere = gone.url
    async with Simulator() as other, open_gateway(tmp_path, CHATGPT_BASE_URL=f"{nowhere},{other.url}") as gateway:
        findings = await examine(gateway)
        assert not findings[f"{nowhere} directly"].ok
        assert findings[f"{other.url} directly"].ok


async def test_findings_come_as_they_are_made(gateway: Gateway) -> None:
    await gateway.fresh()
    gateway.control.fail("home", Fault("stall", seconds=0.2))
    examination = gateway.runtime.doctor.examine()
    for subject in ("proof of work", "records", "disk"):
        assert (await anext(examination)).subject == subject
    assert gateway.control.requests == []
    assert (await anext(examination)).subject == "clock"
    assert (await anext(examination)).subject.startswith(gateway.sim.url)
    await examination.aclose()  # type: ignore[attr-defined]  # an async generator
    await until(lambda: gateway.in_flight == 0, "an account is still leased")


async def test_each_check_can_be_run_by_itself(gateway: Gateway) -> None:
    await gateway.fresh(1)
    checks = gateway.runtime.doctor.checks()
    assert all(re.fullmatch("[a-z0-9-]+", check.name) for check in checks)
    for check in checks:
        gateway.control.requests.clear()
        assert (await gateway.runtime.doctor.run(check.name)).subject == check.subject
        routes = {recorded.route for recorded in gateway.control.requests}
        wanted = {"clock": {"home"}, "way-1": {"home"}}.get(check.name, set())
        assert routes == (wanted or ({"models", "accounts_check"} if check.name.startswith("account") else set()))
    with pytest.raises(NotFoundError):
        await gateway.runtime.doctor.run("way-7")


async def test_a_clock_that_is_wrong_is_told(gateway: Gateway, monkeypatch: pytest.MonkeyPatch) -> None:
    await gateway.fresh(0)
    for seconds, word in ((120.0, "120 s behind"), (-90.0, "90 s ahead")):
        monkeypatch.setattr(gateway.runtime.client, "clock_skew", AsyncMock(return_value=seconds))
        assert word in (await gateway.runtime.doctor.run("clock")).text
    monkeypatch.setattr(gateway.runtime.client, "clock_skew", AsyncMock(return_value=None))
    assert not (await gateway.runtime.doctor.run("clock")).ok


@pytest.mark.parametrize(("proxies", "is_well"), [("", False), ("127.0.0.1", True)])
async def test_a_proxy_that_is_not_named_is_a_finding(tmp_path: Path, proxies: str, is_well: bool) -> None:
    origins = "https://chat.example.org"
    async with open_gateway(tmp_path, PUBLIC_ORIGINS=origins, TRUSTED_PROXIES=proxies) as gateway:
        finding = await gateway.runtime.doctor.run("reverse-proxy")
    assert finding.ok is is_well
    assert ("Set TRUSTED_PROXIES" in finding.advice) is not is_well


async def test_R18_a_full_disk_is_told(gateway: Gateway, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "LEAST_SPACE", 2**62)
    finding = await gateway.runtime.doctor.run("disk")
    assert not finding.ok
    assert "MiB are free" in finding.text


async def test_R30_an_older_copy_is_told(tmp_path: Path) -> None:
    async with open_gateway(tmp_path) as gateway:
        await gateway.runtime.records.backup(tmp_path / "copy.db")
        assert (await gateway.runtime.doctor.run("store")).ok
    (tmp_path / "copy.db").replace(tmp_path / "records.db")
    async with open_gateway(tmp_path) as gateway:
        finding = await gateway.runtime.doctor.run("store")
        assert not finding.ok
        assert "confirm-restored" in finding.advice


async def test_what_an_account_tells_of_itself_is_kept(gateway: Gateway) -> None:
    await gateway.fresh(1, plan="pro")
    (view,) = gateway.source.pool.views()
    assert "plan pro" in (await gateway.runtime.doctor.examine_account(view)).text
    (view,) = gateway.source.pool.views()
    assert (view.account.plan, len(view.account.models)) == ("pro", 8)
    assert view.account.capabilities
    kept = await gateway.runtime.records.account(view.account.id)
    assert kept is not None
    # When it was last used is written later.
    assert replace(kept, last_used_at=None) == replace(view.account, last_used_at=None)


async def test_a_closed_workspace_is_told(gateway: Gateway, monkeypatch: pytest.MonkeyPatch) -> None:
    await gateway.fresh(1)
    closed = AccountInfo("team", (), is_deactivated=True)
    monkeypatch.setattr(gateway.runtime.client, "account_info", AsyncMock(return_value=closed))
    (view,) = gateway.source.pool.views()
    finding = await gateway.runtime.doctor.examine_account(view)
    assert not finding.ok
    assert "closed" in finding.text
