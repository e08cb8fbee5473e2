import re
from collections import Counter

import pytest
from curl_cffi import AsyncCurl, Curl, CurlOpt

from chat2api.upstream import profiles
from chat2api.upstream.profiles import API_CLIENT, PROFILES, profile_for
from chat2api.upstream.transport import BrowserProfile, Channel, CurlTransport, Request
from tests.origin import Exchange, Origin, Seen, ca_file

CALL = (
    ("Content-Type", "application/json"),
    ("Priority", "u=1, i"),
    ("Accept", "text/event-stream"),
    ("Accept-Language", "en-US,en;q=0.9"),
    ("Authorization", "Bearer invented"),
    ("Oai-Language", "en-US"),
    ("Origin", "https://chatgpt.test"),
    ("Referer", "https://chatgpt.test/"),
    ("Sec-Fetch-Dest", "empty"),
    ("Sec-Fetch-Mode", "cors"),
    ("Sec-Fetch-Site", "same-origin"),
)


async def _answer(exchange: Exchange) -> None:
    await exchange.respond(200)
    await exchange.finish()


def test_profiles_have_names_of_their_own_and_known_targets() -> None:
    assert len({profile.name for profile in PROFILES}) == len(PROFILES) >= 4
    curl = Curl()
    assert curl.impersonate("no-such-browser") != 0
    for profile in PROFILES:
        assert curl.impersonate(profile.impersonate, default_headers=False) == 0, profile.name


async def test_G6_an_api_client_sends_its_own_headers_alone_and_keeps_no_cookies() -> None:
    seen: list[Seen] = []

    async def answer(exchange: Exchange) -> None:
        seen.append(exchange.seen)
        await exchange.respond(200, [("Set-Cookie", "__cf_bm=theirs; Path=/")])
        await exchange.finish()

    async with Origin(answer) as origin:
        transport = CurlTransport()
        for _ in range(2):
            request = Request("POST", f"{origin.url}/v1/chat/completions", (("Authorization", "Bearer sk-1"),), b"{}")
            await transport.fetch(Channel("api", None, API_CLIENT), request, connect_timeout=5, timeout=5)
        await transport.aclose()
    assert len(seen) == 2
    for one in seen:
        assert sorted(one.names()) == [
            "accept", "accept-encoding", "authorization", "content-length", "host", "user-agent",
        ]  # fmt: skip


@pytest.mark.parametrize("profile", PROFILES, ids=lambda profile: profile.name)
def test_agent_hints_and_target_name_the_same_version_and_platform(profile: BrowserProfile) -> None:
    version = profile.impersonate.removeprefix("chrome")
    hints = dict(profile.headers)
    assert f"Chrome/{version}.0.0.0" in profile.user_agent
    assert f'"Google Chrome";v="{version}"' in hints["sec-ch-ua"]
    assert f'"Chromium";v="{version}"' in hints["sec-ch-ua"]
    assert hints["sec-ch-ua-platform"] == ('"macOS"' if "Mac OS X" in profile.user_agent else '"Windows"')


async def test_brands_are_those_that_the_library_sends_for_its_targets() -> None:
    async with Origin(_answer, tls=True, http2=True) as origin:
        for profile in PROFILES:
            default = await _default_headers(profile.impersonate, origin)
            assert default["sec-ch-ua"] == dict(profile.headers)["sec-ch-ua"]
            assert default["accept-encoding"] == profile.accept_encoding
            system = re.compile(r"\([^)]*\)")
            assert system.sub("", default["user-agent"], count=1) == system.sub("", profile.user_agent, count=1)


async def _default_headers(target: str, origin: Origin) -> dict[str, str]:
    """Give what curl_cffi sends by itself for a target."""
    curl, multi = Curl(cacert=ca_file()), AsyncCurl(ca_file())
    try:
        curl.impersonate(target)
        curl.setopt(CurlOpt.URL, origin.url)
        await multi.add_handle(curl)
    finally:
        curl.close()
        await multi.close()  # type: ignore[no-untyped-call]  # curl_cffi leaves it without annotations
    return {name.lower(): value for name, value in origin.requests[-1].headers}


async def _record(profile: BrowserProfile, origin: Origin, request: Request) -> Seen:
    transport = CurlTransport(ca_file=ca_file())
    try:
        await transport.fetch(Channel("a", None, profile), request, connect_timeout=5, timeout=5)
    finally:
        await transport.aclose()
    return origin.requests[-1]


@pytest.mark.parametrize("profile", PROFILES, ids=lambda profile: profile.name)
async def test_a_call_goes_out_as_the_script_of_that_browser_would_send_it(profile: BrowserProfile) -> None:
    async with Origin(_answer, tls=True, http2=True) as origin:
        seen = await _record(profile, origin, Request("POST", f"{origin.url}/c", CALL, b"{}"))
    assert seen.names() == [
        ":method",
        ":authority",
        ":scheme",
        ":path",
        "content-length",
        "sec-ch-ua-platform",
        "authorization",
        "oai-language",
        "user-agent",
        "sec-ch-ua",
        "content-type",
        "sec-ch-ua-mobile",
        "accept",
        "origin",
        "sec-fetch-site",
        "sec-fetch-mode",
        "sec-fetch-dest",
        "referer",
        "accept-encoding",
        "accept-language",
        "priority",
    ]
    assert seen.header("user-agent") == profile.user_agent
    assert seen.header("accept") == "text/event-stream"
    assert seen.header("sec-fetch-mode") == "cors"
    assert seen.body == b"{}"


@pytest.mark.parametrize("tls", [False, True])
async def test_nothing_of_a_navigation_leaks_into_a_bare_request(tls: bool) -> None:
    async with Origin(_answer, tls=tls) as origin:
        seen = await _record(PROFILES[0], origin, Request("GET", origin.url))
    assert sorted(seen.names()) == [
        "accept",
        "accept-encoding",
        "host",
        "sec-ch-ua",
        "sec-ch-ua-mobile",
        "sec-ch-ua-platform",
        "user-agent",
    ]
    assert seen.header("accept") == "*/*"


def test_the_choice_is_stable_and_spreads() -> None:
    keys = [f"account-{number}" for number in range(2000)]
    chosen = [profile_for(key) for key in keys]
    assert chosen == [profile_for(key) for key in keys]
    counts = Counter(profile.name for profile in chosen)
    fair = len(keys) / len(PROFILES)
    assert all(0.7 * fair < count < 1.3 * fair for count in counts.values())
    assert len(counts) == len(PROFILES)


def test_a_smaller_table_moves_only_the_accounts_of_the_profile_that_went(monkeypatch: pytest.MonkeyPatch) -> None:
    keys = [f"account-{number}" for number in range(500)]
    before = {key: profile_for(key) for key in keys}
    gone = PROFILES[0]
    monkeypatch.setattr(profiles, "PROFILES", PROFILES[1:])
    assert all(profile_for(key) == before[key] for key in keys if before[key] != gone)
