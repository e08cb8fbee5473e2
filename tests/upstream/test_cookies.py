from chat2api.upstream.cookies import Cookies

SITE = "https://chatgpt.test/backend-api/me"


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
