from dataclasses import replace

from chat2api.upstream.exchange import Channel, Request
from chat2api.upstream.profiles import PROFILES


def test_secrets_do_not_show_when_values_are_printed() -> None:
    request = Request("POST", "https://a.test/?sig=s3cret", (("Authorization", "s3cret"),), b"s3cret")
    channel = Channel("account", "http://u:s3cret@p.test", PROFILES[0])
    assert "s3cret" not in repr(request) + repr(channel)


def test_channels_of_another_account_exit_or_browser_are_others() -> None:
    channel = Channel("a", None, PROFILES[0])
    others = [
        replace(channel, key="b"),
        replace(channel, proxy="http://p.test"),
        replace(channel, profile=PROFILES[1]),
        replace(channel, profile=replace(PROFILES[0], user_agent="another one of that name")),
    ]
    assert len({channel, *others}) == 5
    assert hash(channel) == hash(Channel("a", None, replace(PROFILES[0])))
