"""Sentences: English everywhere, and the reader's language on pages."""

import ast
import copy
import inspect
import json
from pathlib import Path
from types import ModuleType

import orjson
import pytest

from chat2api.accounts import importing, tokens, views
from chat2api.api import doctor_page
from chat2api.api.texts import load_catalogues
from chat2api.gateway import account_care, doctor, jobs
from chat2api.keys import tier_file, tiers
from chat2api.sentences import Phrases, Sentence, words_of_error

CATALOGUES = load_catalogues(Path(__file__).parent.parent / "templates" / "texts")
ENGLISH, CHINESE = CATALOGUES["en"], CATALOGUES["zh-CN"]
BOOKS = (
    importing.SAY, tokens.SAY, views.SAY, doctor.SAY, doctor.REMEDY, account_care.SAY, jobs.SAY, doctor_page.SAY,
    tier_file.SAY, tiers.SAY,
)  # fmt: skip


@pytest.mark.parametrize("book", BOOKS, ids=lambda book: book.section)
def test_what_is_said_elsewhere_is_what_the_english_pages_say(book: Phrases) -> None:
    there = {name: text for name, text in ENGLISH.texts.items() if name.startswith(f"{book.section}.")}
    assert there == {f"{book.section}.{key}": text for key, text in book.phrases.items()}


@pytest.mark.parametrize("module", [doctor, account_care, jobs, importing])
def test_nothing_is_told_that_pages_cannot_say_in_every_language(module: ModuleType) -> None:
    for call in (node for node in ast.walk(ast.parse(inspect.getsource(module))) if isinstance(node, ast.Call)):
        if ast.unparse(call.func) in ("Finding", "JobItem", "ImportProblem", "ImportEntry", "job.end"):
            told = call.args[{"ImportProblem": 1, "job.end": 1}.get(ast.unparse(call.func), 2) :]
            assert not [part for part in told if isinstance(part, ast.Constant | ast.JoinedStr)], ast.unparse(call)


def test_a_sentence_is_its_english_text_and_is_said_in_each_language() -> None:
    sentence = importing.SAY("repeated", line=7)
    assert sentence == "The same account as on line 7."
    assert (ENGLISH.say(sentence), CHINESE.say(sentence)) == (sentence, "与第 7 行是同一账号。")
    assert json.loads(orjson.dumps({"text": sentence})) == {"text": str(sentence)}


def test_a_copy_knows_as_much() -> None:
    sentence = copy.deepcopy({"text": doctor.SAY("disk_free", amount="12")})["text"]
    assert isinstance(sentence, Sentence)
    assert CHINESE.say(sentence) == "剩余空间 12 MiB"


def test_sentences_in_sentences_are_said_in_the_readers_language_too() -> None:
    state = Sentence("needs_sign_in", "state.needs_sign_in", {})
    sentence = doctor.SAY("state", state=state, reason=doctor.SAY("no_reason"))
    assert sentence == "needs_sign_in: no reason known"
    assert ENGLISH.say(sentence) == "sign in again: no reason known"
    assert CHINESE.say(sentence) == "需重新登录：原因未知"


def test_an_errors_own_words_stay_what_they_are_in_english_and_are_explained_elsewhere() -> None:
    words = words_of_error("Port 9 of the proxy is closed.", "upstream_transport")
    assert ENGLISH.say(words) == "Port 9 of the proxy is closed."
    assert CHINESE.say(words) == "无法连接"
    assert CHINESE.say(words_of_error("Odd.", "never heard of")) is None
    assert words_of_error("Odd.", None).name == "reason.internal_error"


def test_plain_text_is_english() -> None:
    assert (ENGLISH.say("as it is"), CHINESE.say("as it is")) == ("as it is", None)


def test_braces_in_what_is_filled_in_are_text() -> None:
    assert CHINESE.say(importing.SAY("field", name="{x}")) == "字段 {x} 中没有可识别的令牌。"
    with pytest.raises(KeyError):
        importing.SAY("never heard of")
