import pytest

from chat2api.upstream.urls import Location, locate


@pytest.mark.parametrize(
    ("url", "location"),
    [
        ("https://A.test/p/q?x=1", Location("https", "a.test", 443, "/p/q", "https://A.test", False)),
        ("http://a.test:81", Location("http", "a.test", 81, "/", "http://a.test:81", False)),
        ("http://[::1]:8/", Location("http", "::1", 8, "/", "http://[::1]:8", False)),
        ("socks5h://u:p@a.test:1080", Location("socks5h", "a.test", 1080, "/", "socks5h://u:p@a.test:1080", True)),
        ("/path", Location("", "", 80, "/path", "://", False)),
    ],
)
def test_a_url_is_taken_apart(url: str, location: Location) -> None:
    assert locate(url) == location


@pytest.mark.parametrize("url", ["http://a.test:x/", "http://a.test:99999/", "http://[::1/"])
def test_a_url_that_cannot_be_read_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        locate(url)
