"""The tiers as they are now: found by name, path and shared key; exchanged whole or not at all."""

from pathlib import Path

import pytest

from chat2api.errors import ConfigError, InvalidRequestError
from chat2api.keys.tier_book import TierBook
from chat2api.keys.tier_file import TiersError
from chat2api.keys.tiers import BUILT_IN

MODELS = "models.m = { requests_per_minute = 1, tokens_per_minute = 1 }\n"
TEXT = f"""
[blog]
base = ["/api/blog", "/b"]
shared_key = "sk-free-api"
{MODELS}
[inner]
base = "/api/blog/free"
{MODELS}
"""


def write(file: Path, content: str | bytes) -> None:
    file.write_bytes(content.encode() if isinstance(content, str) else content)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "tiers.toml"
    path.write_text(TEXT)
    return path


async def test_without_a_file_there_is_the_built_in_tier() -> None:
    book = TierBook(None)
    assert not book.tiers
    assert book.find("/free/v1") is None
    await book.load()
    assert book.tiers == (BUILT_IN,)
    assert book.public is None
    assert book.get("free") is BUILT_IN


async def test_who_asks_for_a_tier_that_there_is_not_is_told_those_that_there_are(file: Path) -> None:
    book = TierBook(file)
    await book.load()
    assert book.require("blog") is book.get("blog")
    for ask in (book.require, book.check):
        with pytest.raises(InvalidRequestError, match=r"no tier 'gold'\. There are: blog, inner\.") as told:
            ask("gold")
        assert (told.value.param, told.value.code) == ("tier", "invalid_value")
    for said in ("inner", "none", None):
        book.check(said)


async def test_PUBLIC_MODE_alone_is_enough() -> None:
    book = TierBook(None, public="free")
    await book.load()
    assert book.public is BUILT_IN


@pytest.mark.parametrize(
    ("path", "found"),
    [
        ("/b", ("blog", "")),
        ("/b/", ("blog", "/")),
        ("/api/blog/v1/models", ("blog", "/v1/models")),
        ("/api/blog/free/v1/models", ("inner", "/v1/models")),
        ("/api/blog/freedom/v1", ("blog", "/freedom/v1")),
        ("/api/blogs/v1", None),
        ("/api", None),
        ("/v1/models", None),
        ("/B/v1", None),
        ("//b/v1", None),
        ("", None),
    ],
)
async def test_the_longest_base_wins_and_ends_at_a_slash(file: Path, path: str, found: tuple[str, str] | None) -> None:
    book = TierBook(file)
    await book.load()
    answer = book.find(path)
    assert (None if answer is None else (answer[0].name, answer[1])) == found


async def test_a_shared_key_is_found_whole(file: Path) -> None:
    book = TierBook(file)
    await book.load()
    tier = book.with_shared_key("sk-free-api")
    assert tier is not None
    assert tier.name == "blog"
    for other in ("sk-free-ap", "sk-free-api2", "", "SK-FREE-API", "sk-free-\ud800"):
        assert book.with_shared_key(other) is None


async def test_R23_a_bad_file_stops_the_start(file: Path) -> None:
    write(file, "[blog]\nbase = '/v1'\n" + MODELS)
    with pytest.raises(TiersError, match=r"line 2, blog\.base"):
        await TierBook(file).load()


async def test_a_bad_file_changes_nothing_and_its_mistakes_are_kept_until_it_is_good(file: Path) -> None:
    book = TierBook(file, taken=["tokens"])
    await book.load()
    before = book.tiers
    write(file, "[blog]\nbase = '/tokens/x'\n" + MODELS)
    assert not await book.reload()
    assert book.tiers is before
    assert book.find("/b/v1") is not None
    assert [(problem.line, problem.field) for problem in book.problems] == [(2, "blog.base")]
    write(file, TEXT.replace("/b", "/c"))
    assert await book.reload()
    assert book.problems == ()
    assert book.find("/b/v1") is None
    assert book.find("/c/v1") is not None


@pytest.mark.parametrize("data", [b"\xff\xfe", b"[blog]\n# \xe4\n"])
async def test_what_is_no_text_is_told_with_its_line(file: Path, data: bytes) -> None:
    write(file, data)
    with pytest.raises(TiersError, match=f"line {1 + data.count(b'[')}: this is not UTF-8"):
        await TierBook(file).load()


async def test_a_byte_order_mark_is_no_mistake(file: Path) -> None:
    write(file, b"\xef\xbb\xbf" + TEXT.encode())
    await TierBook(file).load()


async def test_a_missing_file_is_told_by_its_path(tmp_path: Path) -> None:
    book = TierBook(tmp_path / "nowhere.toml")
    with pytest.raises(ConfigError, match=r"The tiers' file .*nowhere\.toml cannot be read: No such file"):
        await book.load()
    assert not await book.reload()
    assert "nowhere.toml" in book.problems[0].text


async def test_PUBLIC_MODE_must_name_a_tier_that_is_there_now_and_later(file: Path) -> None:
    with pytest.raises(ConfigError, match="PUBLIC_MODE names the tier free, but there is none; there are: blog, inner"):
        await TierBook(file, public="free").load()
    book = TierBook(file, public="inner")
    await book.load()
    write(file, TEXT.replace("inner", "other"))
    assert not await book.reload()
    assert book.public is not None


async def test_a_shared_key_that_opens_the_pool_is_refused(file: Path) -> None:
    with pytest.raises(TiersError, match="an operator key"):
        await TierBook(file, keys=["another", "sk-free-api"]).load()
