"""Catalogues and the choice among them."""

from pathlib import Path

import pytest

from chat2api.api.texts import Catalogue, choose_language, load_catalogues

KNOWN = {"en": None, "zh-CN": None}


@pytest.mark.parametrize(
    ("chosen", "accepted", "language"),
    [
        (None, "", "en"),
        (None, "de-DE,de;q=0.9", "en"),
        (None, "zh-CN,zh;q=0.9,en;q=0.8", "zh-CN"),
        (None, "zh", "zh-CN"),
        (None, "ZH-hans-cn", "zh-CN"),
        (None, "zh-TW", "zh-CN"),
        (None, "en-GB,zh-CN;q=0.9", "en"),
        (None, "zh-CN;q=0.5,en;q=0.9", "en"),
        (None, "de,zh-CN;q=0.5", "zh-CN"),
        (None, "zh;q=0", "en"),
        (None, "zh;q=nonsense,*;q=0.1", "en"),
        (None, "," * 100_000 + "zh", "en"),
        ("zh-CN", "en", "zh-CN"),
        ("en", "zh-CN", "en"),
        ("../../etc/passwd", "zh", "zh-CN"),
    ],
)
def test_the_language_is_the_one_chosen_or_else_the_best_accepted(
    chosen: str | None, accepted: str, language: str
) -> None:
    assert choose_language(chosen, accepted, KNOWN) == language


def test_catalogues_are_read_from_a_folder(tmp_path: Path) -> None:
    (tmp_path / "xx.toml").write_text('name = "X"\n[a]\nb = "{n} of {name}"\n', encoding="utf-8")
    catalogue = load_catalogues(tmp_path)["xx"]
    assert (catalogue.tag, catalogue.name) == ("xx", "X")
    assert catalogue.get("a.b", n=1, name="y") == "1 of y"
    assert catalogue.find("a.c") is None


def test_an_unknown_text_is_a_mistake_that_shows() -> None:
    with pytest.raises(KeyError):
        Catalogue("xx", "X", {}).get("a.b")
