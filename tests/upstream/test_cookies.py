import pytest

from chat2api.upstream.cookies import MAX_COOKIES, Cookies
from tests.clocks import FakeClock

SITE = "https://chatgpt.test/backend-api/me"
NOW = 1_790_000_000.0


def test_an_empty_jar_adds_nothing() -> None:
    cookies = Cookies()
    assert not cookies
    assert cookies.header(SITE) == ""
    assert cookies.header(SITE, "a=1") == "a=1"


def test_a_cookie_goes_back_to_its_host_and_path_only() -> None:
    cookies = Cookies()
    cookies.store(SITE, ["did=1; Path=/; Secure; HttpOnly", "deep=2; Path=/backend-api"])
    assert cookies.header(SITE) == "deep=2; did=1"
    assert cookies.header("https://chatgpt.test/") == "did=1"
    assert cookies.header("http://chatgpt.test/") == ""
    assert cookies.header("https://files.test/") == ""


def test_a_domain_cookie_reaches_the_hosts_below_and_a_foreign_domain_is_refused() -> None:
    cookies = Cookies()
    cookies.store(SITE, ["cf=1; Domain=.chatgpt.test; Path=/", "no=1; Domain=bank.test; Path=/"])
    assert cookies.header("https://ab.chatgpt.test/") == "cf=1"
    assert cookies.header("https://bank.test/") == ""


def test_a_cookie_is_replaced_and_removed_by_the_server() -> None:
    cookies = Cookies()
    cookies.store(SITE, ["a=1; Path=/"])
    cookies.store(SITE, ["a=2; Path=/"])
    assert cookies.header(SITE) == "a=2"
    cookies.store(SITE, ["a=; Path=/; Max-Age=0"])
    assert cookies.header(SITE) == ""


def test_given_cookies_win_over_held_ones_of_the_same_name() -> None:
    cookies = Cookies()
    cookies.store(SITE, ["a=held; Path=/", "b=held; Path=/"])
    assert cookies.header(SITE, "a=given; c=3") == "a=given; c=3; b=held"


def test_several_cookies_with_dates_in_one_answer_are_all_kept() -> None:
    cookies = Cookies()
    cookies.store(SITE, ["a=1; Path=/; Expires=Wed, 01 Jan 2098 00:00:00 GMT", "rubbish", "b=2; Path=/"])
    assert {"a=1", "b=2"} <= set(cookies.header(SITE).split("; "))


@pytest.mark.parametrize(
    ("path", "asked", "sent"),
    [
        ("/a", "/a", True),
        ("/a", "/a/b", True),
        ("/a", "/ab", False),
        ("/a/", "/a", False),
        ("/a/", "/a/b", True),
        ("a", "/backend-api/x", True),  # no path of a cookie: that of the answer
        ("a", "/other", False),
    ],
)
def test_a_path_matches_whole_segments(path: str, asked: str, sent: bool) -> None:
    cookies = Cookies()
    cookies.store(SITE, [f"x=1; Path={path}"])
    assert cookies.header(f"https://chatgpt.test{asked}") == ("x=1" if sent else "")


def test_longer_paths_come_first_then_older_cookies_and_a_new_value_keeps_its_age() -> None:
    cookies = Cookies()
    cookies.store(SITE, ["old=1; Path=/", "new=2; Path=/", "deep=3; Path=/backend-api"])
    cookies.store(SITE, ["old=4; Path=/"])
    assert cookies.header(SITE) == "deep=3; old=4; new=2"


@pytest.mark.parametrize(
    "refused",
    [
        "rubbish",
        "=1",
        "a=1; Domain=test",
        "a=1; Domain=gpt.test",
        "a=1; Domain=sub.chatgpt.test",
        "a=1\x01",
        f"a={'x' * 5000}",
        "__Secure-a=1; Path=/",
        "__Host-a=1; Path=/; Secure; Domain=chatgpt.test",
        "__Host-a=1; Path=/backend-api; Secure",
        "a=1; Max-Age=0",
        "a=1; Expires=Thu, 01 Jan 1970 00:00:00 GMT",
    ],
)
def test_what_a_browser_would_not_keep_is_not_kept(refused: str) -> None:
    cookies = Cookies()
    cookies.store(SITE, [refused])
    assert not cookies
    assert cookies.header("https://chatgpt.test/backend-api/me") == ""


def test_promising_names_are_kept_when_they_keep_their_promise() -> None:
    cookies = Cookies()
    cookies.store(SITE, ["__Secure-a=1; Path=/; Secure", "__Host-b=2; Path=/; Secure"])
    assert cookies.header(SITE) == "__Secure-a=1; __Host-b=2"
    assert cookies.header("https://sub.chatgpt.test/") == ""


def test_an_insecure_answer_neither_sets_nor_replaces_secure_cookies() -> None:
    cookies, plain = Cookies(), SITE.replace("https", "http")
    cookies.store(plain, ["mine=1; Path=/; Secure"])
    cookies.store(SITE, ["a=1; Path=/; Secure"])
    cookies.store(plain, ["a=2; Path=/", "b=3; Path=/"])
    assert cookies.header(SITE) == "a=1; b=3"
    assert cookies.header(plain) == "b=3"


def test_addresses_and_single_names_have_cookies_of_their_own_only() -> None:
    cookies = Cookies()
    for host in ("127.0.0.1", "localhost", "[::1]"):
        cookies.store(f"http://{host}:81/", [f"a=1; Domain={host.strip('[]')}; Path=/", "b=2; Domain=0.0.1; Path=/"])
        assert cookies.header(f"http://{host}:82/") == "a=1", "ports share cookies"
    assert cookies.header("http://1.127.0.0.1/") == cookies.header("http://a.localhost/") == ""


@pytest.mark.parametrize(
    ("attributes", "seconds"),
    [
        ("Max-Age=60", 60),
        ("Max-Age=60; Expires=Thu, 01 Jan 1970 00:00:00 GMT", 60),
        ("Expires=Wed, 23 Sep 2026 12:00:00 GMT", 1_790_164_800 - NOW),
        ("Expires=Wed, 23-Sep-26 12:00:00 GMT", 1_790_164_800 - NOW),
    ],
)
def test_a_cookie_ends_when_it_said_also_in_headers_made_before(attributes: str, seconds: float) -> None:
    clock = FakeClock(NOW)
    cookies = Cookies(clock.now)
    cookies.store(SITE, [f"a=1; Path=/; {attributes}", "b=2; Path=/"])
    assert cookies.header(SITE) == "a=1; b=2"
    clock.advance(seconds - 1)
    assert cookies.header(SITE) == "a=1; b=2"
    clock.advance(2)
    assert cookies.header(SITE) == "b=2"


@pytest.mark.parametrize("attributes", ["Max-Age=soon", "Expires=some day", "Expires=", "Max-Age="])
def test_an_end_that_cannot_be_read_is_none(attributes: str) -> None:
    clock = FakeClock(NOW)
    cookies = Cookies(clock.now)
    cookies.store(SITE, [f"a=1; Path=/; {attributes}"])
    clock.advance(1e9)
    assert cookies.header(SITE) == "a=1"


def test_an_end_that_moves_counts_from_then_on() -> None:
    clock = FakeClock(NOW)
    cookies = Cookies(clock.now)
    for _ in range(3):
        cookies.store(SITE, ["a=1; Path=/; Max-Age=60"])
        clock.advance(50)
    assert cookies.header(SITE) == "a=1"
    clock.advance(11)
    assert not cookies


def test_a_header_made_before_is_made_anew_when_anything_it_depends_on_changes() -> None:
    cookies = Cookies()
    cookies.store(SITE, ["a=1; Path=/"])
    assert [cookies.header(SITE), cookies.header(SITE), cookies.header(SITE, "a=mine")] == ["a=1", "a=1", "a=mine"]
    cookies.store(SITE, ["a=2; Path=/"])
    assert [cookies.header(SITE), cookies.header(SITE, "c=mine")] == ["a=2", "c=mine; a=2"]
    cookies.store(SITE, ["a=2; Path=/; Secure"])
    assert cookies.header(SITE.replace("https", "http")) == ""


def test_a_jar_has_a_bound_and_the_oldest_go_first() -> None:
    cookies = Cookies()
    cookies.store(SITE, [f"c{number}=1; Path=/" for number in range(MAX_COOKIES + 5)])
    names = cookies.header(SITE).split("; ")
    assert (len(names), names[0], names[-1]) == (MAX_COOKIES, "c5=1", f"c{MAX_COOKIES + 4}=1")
