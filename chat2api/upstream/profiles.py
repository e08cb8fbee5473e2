"""The browsers that accounts appear as: a small table, and the stable choice of one for each account.

All are Chromium on a desktop. The proof of work describes the browser's insides to the backend, and that description is
Chromium's; a Firefox or Safari here would contradict it. TLS and HTTP/2 do not differ between Chromium's platforms, so
one impersonation target serves both macOS and Windows. User agents and brand lists are those that curl_cffi 0.16.3
itself sends for its targets; only the platform differs for Windows.
"""

from functools import lru_cache
from hashlib import blake2b

from chat2api.upstream.exchange import BrowserProfile
from chat2api.upstream.headers import UNNAMED

_HEADER_ORDER = (
    "content-length",
    "sec-ch-ua-platform",
    "authorization",
    UNNAMED,
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
    "cookie",
    "priority",
)
"""How Chromium since version 124 orders the headers of a script's `fetch`, as published captures show it (2026)."""

_PLATFORMS = {"macOS": "Macintosh; Intel Mac OS X 10_15_7", "Windows": "Windows NT 10.0; Win64; x64"}

_BRANDS = {
    "chrome142": '"Chromium";v="142", "Google Chrome";v="142", "Not_A Brand";v="99"',
    "chrome145": '"Not:A-Brand";v="99", "Google Chrome";v="145", "Chromium";v="145"',
    "chrome146": '"Chromium";v="146", "Not-A.Brand";v="24", "Google Chrome";v="146"',
    "chrome150": '"Not;A=Brand";v="8", "Chromium";v="150", "Google Chrome";v="150"',
}


def _chrome(target: str, platform: str) -> BrowserProfile:
    version = target.removeprefix("chrome")
    return BrowserProfile(
        name=f"{target}-{platform.lower()}",
        impersonate=target,
        user_agent=(
            f"Mozilla/5.0 ({_PLATFORMS[platform]}) AppleWebKit/537.36 (KHTML, like Gecko) "
            f"Chrome/{version}.0.0.0 Safari/537.36"
        ),
        headers=(
            ("sec-ch-ua-platform", f'"{platform}"'),
            ("sec-ch-ua", _BRANDS[target]),
            ("sec-ch-ua-mobile", "?0"),
        ),
        header_order=_HEADER_ORDER,
    )


PROFILES: tuple[BrowserProfile, ...] = tuple(_chrome(target, platform) for target in _BRANDS for platform in _PLATFORMS)
"""Every profile, oldest first."""


API_CLIENT = BrowserProfile(
    name="api-client",
    impersonate="",
    user_agent="chat2api",
    headers=(),
    accept_encoding="identity",  # what passes through is not packed on the way here, to be unpacked at once
    cookies=False,
)
"""No browser: a program that calls an API, which sends no headers but its own and keeps no cookies."""


@lru_cache(maxsize=4096)
def profile_for(key: str) -> BrowserProfile:
    """Give the profile of an account, always the same for the same key.

    Each profile draws a number from its name and the key, and the highest wins; so adding one to the table moves only
    the accounts that it wins, and removing one only those that it had.
    """
    return max(PROFILES, key=lambda profile: blake2b(f"{profile.name}\n{key}".encode(), digest_size=8).digest())
