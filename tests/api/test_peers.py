"""What is believed of a request's headers."""

import pytest
from quart import Quart, Request, request

from chat2api.api.peers import check_host, is_loopback_host, is_secure, peer_address
from chat2api.config import Config
from chat2api.errors import MisdirectedRequestError


async def asked(host: str, config: Config, scheme: str = "http", **headers: str) -> dict[str, object]:
    """Tell what is made of a request with that Host."""
    app = Quart("peers")
    async with app.test_request_context("/", scheme=scheme, headers={"Host": host, **headers}):
        return _told(request._get_current_object(), config)  # type: ignore[attr-defined]  # the proxy's own way to its object


def _told(incoming: Request, config: Config) -> dict[str, object]:
    try:
        check_host(incoming, config)
        known = True
    except MisdirectedRequestError:
        known = False
    return {"known": known, "secure": is_secure(incoming, config), "loopback": is_loopback_host(incoming)}


CONFIG = Config(public_origins=("https://chat.example.test", "http://plain.example.test:8080"))


@pytest.mark.parametrize(
    ("host", "known", "secure", "loopback"),
    [
        ("localhost", True, False, True),
        ("LOCALHOST:5005", True, False, True),
        ("a.localhost:1", True, False, True),
        ("127.0.0.1:5005", True, False, True),
        ("127.8.8.8", True, False, True),
        ("[::1]:5005", True, False, True),
        ("192.0.2.7:5005", True, False, False),
        ("[2001:db8::1]", True, False, False),
        ("chat.example.test", True, True, False),
        ("CHAT.example.test", True, True, False),
        ("plain.example.test:8080", True, False, False),
        ("chat.example.test:444", False, False, False),
        ("plain.example.test", False, False, False),
        ("localhost.example.test", False, False, False),
        ("127.0.0.1.example.test", False, False, False),
        ("", False, False, False),
    ],
)
async def test_S21_S23_a_host_is_known_secure_or_loopback_by_its_name_alone(
    host: str, known: bool, secure: bool, loopback: bool
) -> None:
    expected = {"known": known, "secure": secure, "loopback": loopback}
    assert await asked(host, CONFIG) == expected
    forged = {"X-Forwarded-Proto": "https", "X-Forwarded-Host": "chat.example.test", "Forwarded": "proto=https"}
    assert await asked(host, CONFIG, **forged) == expected
    assert (await asked(host, CONFIG, scheme="https"))["secure"]


async def test_S14_behind_a_proxy_that_is_not_named_nobody_counts_as_this_machine() -> None:
    app = Quart("peers")
    async with app.test_request_context("/", headers={"Remote-Addr": "127.0.0.1"}):
        told = peer_address(request._get_current_object(), CONFIG)  # type: ignore[attr-defined]  # as above
    assert (told.network, told.loopback) == ("127.0.0.1", False)


@pytest.mark.parametrize(
    ("client", "trusted", "forwarded", "network", "loopback"),
    [
        ("198.51.100.7", (), "203.0.113.9", "198.51.100.7", False),
        ("127.0.0.1", (), "", "127.0.0.1", True),
        ("10.0.0.2", ("10.0.0.0/8",), "203.0.113.9", "203.0.113.9", False),
        ("10.0.0.2", ("10.0.0.0/8",), "192.0.2.1, 203.0.113.9, 10.0.0.3", "203.0.113.9", False),
        ("10.0.0.2", ("10.0.0.0/8",), "192.0.2.1, nonsense, 10.0.0.3", "10.0.0.3", False),
        ("2001:db8:1:2:3:4:5:6", (), "", "2001:db8:1:2::/64", False),
        ("::ffff:198.51.100.7", (), "", "198.51.100.7", False),
        ("nonsense", (), "", "unknown", False),
    ],
)
async def test_S14_the_address_is_the_peers_unless_a_trusted_proxy_tells_another(
    client: str, trusted: tuple[str, ...], forwarded: str, network: str, loopback: bool
) -> None:
    app = Quart("peers")
    headers = {"X-Forwarded-For": forwarded} if forwarded else {}
    headers["Remote-Addr"] = client  # where Quart puts the listener's word
    async with app.test_request_context("/", headers=headers):
        told = peer_address(request._get_current_object(), Config(trusted_proxies=trusted))  # type: ignore[attr-defined]  # as above
    assert (told.network, told.loopback) == (network, loopback)
