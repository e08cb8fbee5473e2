"""Where a request came from and which of our names it was sent to: what may be believed of its headers."""

import ipaddress
from collections.abc import Sequence
from functools import lru_cache
from urllib.parse import urlsplit

from quart import Request

from chat2api.api.context import PeerAddress
from chat2api.config import Config
from chat2api.errors import MisdirectedRequestError

_HERE = ("127.0.0.1", "::1")
"""The only addresses of which what came of them is remembered: those of people are kept nowhere."""

_LOOPBACK_NAMES = {"localhost", "localhost."}


def check_host(incoming: Request, config: Config) -> None:
    """Refuse a Host that is neither a loopback name, an IP literal, nor named in PUBLIC_ORIGINS (DNS rebinding)."""
    host = incoming.headers.get("Host", "").lower()
    allowed = {urlsplit(origin).netloc.lower() for origin in config.public_origins}
    if host in allowed or _is_literal_or_loopback(host):
        return
    raise MisdirectedRequestError("This host name is not answered for. Add its origin to the setting PUBLIC_ORIGINS.")


def is_secure(incoming: Request, config: Config) -> bool:
    """Whether the browser speaks TLS: to us, or to a proxy under a name that PUBLIC_ORIGINS gives with https.

    `X-Forwarded-Proto` has no say: anybody can send it.
    """
    named = {urlsplit(origin).netloc.lower() for origin in config.public_origins if origin.startswith("https:")}
    return incoming.scheme == "https" or incoming.headers.get("Host", "").lower() in named


def is_loopback_host(incoming: Request) -> bool:
    """Whether the browser asked for this machine by a name or address that never leaves it."""
    name = _host_name(incoming.headers.get("Host", "").lower())
    if name in _LOOPBACK_NAMES or name.endswith(".localhost"):
        return True
    address = _parse_address(name)
    return address is not None and address.is_loopback


def _is_literal_or_loopback(host: str) -> bool:
    name = _host_name(host)
    return name in _LOOPBACK_NAMES or name.endswith(".localhost") or _parse_address(name) is not None


def _host_name(host: str) -> str:
    """Give the name or address in a Host value, without port and brackets."""
    return (host[: host.index("]") + 1] if host.startswith("[") and "]" in host else host.partition(":")[0]).strip("[]")


def peer_address(incoming: Request, config: Config) -> PeerAddress:
    """Give where the request came from; X-Forwarded-For counts only from peers in TRUSTED_PROXIES.

    Behind a proxy that is not named there nobody counts as this machine, whatever address they seem to have.
    """
    forwarded = incoming.headers.get("X-Forwarded-For", "")
    peer = incoming.remote_addr or ""
    find = _find_peer if peer in _HERE and not forwarded else _find_peer.__wrapped__
    return find(peer, forwarded, config.trusted_proxies, config.unnamed_proxy)


@lru_cache(maxsize=16)
def _find_peer(peer: str, forwarded: str, trusted: Sequence[str], unnamed_proxy: bool) -> PeerAddress:
    address = _parse_address(peer)
    if address is not None and _trusted(address, trusted):
        for hop in reversed(forwarded.split(",")):
            before = _parse_address(hop.strip())
            if before is None:
                break
            address = before
            if not _trusted(address, trusted):
                break
    if address is None:
        return PeerAddress("unknown", loopback=False)
    here = address.is_loopback and not unnamed_proxy
    if isinstance(address, ipaddress.IPv6Address):
        return PeerAddress(str(ipaddress.ip_network((address, 64), strict=False)), here)
    return PeerAddress(str(address), here)


def _parse_address(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return None
    return address.ipv4_mapped or address if isinstance(address, ipaddress.IPv6Address) else address


def _trusted(address: ipaddress.IPv4Address | ipaddress.IPv6Address, networks: Sequence[str]) -> bool:
    return any(address in ipaddress.ip_network(network) for network in networks)
