"""The file of tiers: what it may say, and that each mistake is told with its line and field."""

import pytest

from chat2api.errors import ConfigError
from chat2api.keys.tier_file import MAX_FILE, PERSON_DEFAULTS, Problem, TiersError, read_tiers
from chat2api.storage.keys import KeyLimits

MODELS = "[free.models]\nm = { requests_per_minute = 1, tokens_per_minute = 2 }\n"
SMALL = f'[free]\nbase = "/free"\n{MODELS}'


def problems(text: str, **given: list[str]) -> list[Problem]:
    with pytest.raises(TiersError) as raised:
        read_tiers(text, **given)
    return list(raised.value.problems)


def with_field(line: str) -> str:
    """Put a line into the file as its third."""
    return f'[free]\nbase = "/free"\n{line}\n{MODELS}'


def test_a_small_file_takes_the_defaults() -> None:
    (tier,) = read_tiers(SMALL)
    assert (tier.name, tier.bases, tier.notice, tier.provider, tier.shared_key) == ("free", ("/free",), "", None, "")
    assert tier.per_person == PERSON_DEFAULTS
    (model,) = tier.models
    assert model.limits == KeyLimits(requests_per_minute=1, tokens_per_minute=2, requests_at_once=None)


def test_G4_without_a_limit_is_only_what_says_so() -> None:
    (tier,) = read_tiers(
        '[free]\nbase = "/free"\nmax_answer_tokens = "unlimited"\n[free.per_person]\nrequests_per_minute = "unlimited"\n'
        '[free.models]\nm = { requests_per_minute = "unlimited", tokens_per_minute = "unlimited" }\n'
    )
    assert tier.per_person == KeyLimits(requests_per_minute=None, requests_at_once=PERSON_DEFAULTS.requests_at_once)
    assert tier.models[0].limits == KeyLimits(requests_per_minute=None, requests_at_once=None)
    assert tier.rules.max_answer_tokens is None
    (missing,) = problems('[free]\nbase = "/free"\n[free.models]\nm = { requests_per_minute = 1 }\n')
    assert missing == Problem(
        4, "free.models.m.tokens_per_minute", 'expected a whole number or "unlimited"; it is not there'
    )


def test_tiers_and_models_keep_the_order_of_the_file() -> None:
    text = SMALL.replace("free", "b").replace("m =", "z =") + "a = { requests_per_minute = 1, tokens_per_minute = 2 }\n"
    (first, second) = read_tiers(text + SMALL.replace("free", "a"))
    assert (first.name, second.name) == ("b", "a")
    assert [model.name for model in first.models] == ["z", "a"]


@pytest.mark.parametrize(
    ("line", "field", "word"),
    [
        ("sytem = 'drop'", "free.sytem", "no such field"),
        ("system = 'keep'", "free.system", '"allow", "drop", "reject"'),
        ("system = ['drop']", "free.system", '"allow", "drop", "reject"'),
        ("text_only = 'yes'", "free.text_only", "true or false"),
        ("text_only = 1", "free.text_only", "true or false"),
        ("max_answer_tokens = 0", "free.max_answer_tokens", "whole number"),
        ("max_answer_tokens = true", "free.max_answer_tokens", "whole number"),
        ("max_answer_tokens = 1.5", "free.max_answer_tokens", "whole number"),
        ("max_answer_tokens = 'none'", "free.max_answer_tokens", '"unlimited"'),
        ("provider = 'somebody'", "free.provider", '"openai", "chatgpt"'),
        ("notice = 3", "free.notice", "a text"),
        (f"notice = '{'x' * 2001}'", "free.notice", "at most 2000"),
        (r'notice = "\u0007"', "free.notice", "printable"),
        ("shared_key = 'abc'", "free.shared_key", "4 to 200"),
        ("shared_key = 'with a blank'", "free.shared_key", "without blanks"),
        ("shared_key = 'one,two'", "free.shared_key", "commas"),
        ("shared_key = 'sk-c2a-whatever'", "free.shared_key", "issued keys"),
        ("shared_key = 'operator-key'", "free.shared_key", "operator key"),
        ("per_person = 3", "free.per_person", "a table"),
        ("per_person = { requests_total = 3 }", "free.per_person.requests_total", "no such field"),
        ("per_person = { requests_per_day = -1 }", "free.per_person.requests_per_day", "whole number"),
    ],
)
def test_a_wrong_field_is_told_with_its_line(line: str, field: str, word: str) -> None:
    (problem,) = problems(with_field(line), keys=["operator-key"])
    assert (problem.line, problem.field) == (3, field)
    assert word in problem.text


@pytest.mark.parametrize(
    ("base", "word"),
    [
        ('""', "begins with '/'"),
        ('"free"', "begins with '/'"),
        ('"/"', "begins with '/'"),
        ('"/free/"', "begins with '/'"),
        ('"//free"', "begins with '/'"),
        ('"/a/../b"', "begins with '/'"),
        ('"/a b"', "begins with '/'"),
        ('"/a%2fb"', "begins with '/'"),
        ('"/<x>"', "begins with '/'"),
        (f'"/{"x" * 128}"', "begins with '/'"),
        ('"/free/v1"', "leave /v1 out"),
        ('"/v1"', "leave /v1 out"),
        ('"/tokens"', "other routes"),
        ('"/tokens/free"', "other routes"),
        ('["/free", "/free"]', "already"),
        ("[]", "expected a path"),
        ("3", "expected a path"),
        ("[1]", "expected a path"),
        (str([f"/{number}" for number in range(11)]), "at most 10"),
    ],
)
def test_a_base_that_cannot_be_or_shadows_another_route_is_refused_with_its_line(base: str, word: str) -> None:
    (problem,) = problems(f"# first\n[free]\nbase = {base}\n{MODELS}", taken=["tokens"])
    assert (problem.line, problem.field) == (3, "free.base")
    assert word in problem.text


@pytest.mark.parametrize("base", ["/free", "/api/blog/free", "/~x/A-1._"])
def test_a_base_may_have_several_segments(base: str) -> None:
    (tier,) = read_tiers(SMALL.replace("/free", base), taken=["v2", "tokens"])
    assert tier.bases == (base,)


def test_two_tiers_share_neither_a_path_nor_a_key() -> None:
    text = with_field("shared_key = 'sk-free-api'")
    (base, key) = problems(text + text.replace("free.", "b.").replace("[free]", "[b]"))
    assert (base.field, key.field) == ("b.base", "b.shared_key")
    assert (base.line, key.line) == (7, 8)


@pytest.mark.parametrize("name", ["Free", "a b", "x" * 33, "-a", "off", "on", "none", "ä", ""])
def test_a_name_that_nobody_could_use_is_refused(name: str) -> None:
    text = f"['{name}']\nbase = '/free'\nmodels.m = {{ requests_per_minute = 1, tokens_per_minute = 2 }}\n"
    (problem,) = problems(text)
    assert (problem.line, problem.field) == (1, name)
    assert "32 small letters" in problem.text


@pytest.mark.parametrize(
    ("text", "line", "field", "word"),
    [
        ("", 1, "", "no tier"),
        ("free = 3", 1, "free", "a table"),
        (MODELS, 1, "free.base", "expected a path"),
        ("[free]\nbase = '/free'\n", 1, "free.models", "names its models"),
        ("[free]\nbase = '/free'\nmodels = {}\n", 3, "free.models", "1 to 200"),
        ("[free]\nbase = '/free'\nmodels = ['m']\n", 3, "free.models", "1 to 200"),
        ("[free]\nbase = '/free'\n[free.models]\nm = 60\n", 4, "free.models.m", "a table"),
        ("[free]\nbase = '/free'\n[free.models]\nm = { tpm = 1, requests_per_minute = 1, tokens_per_minute = 1 }\n",
         4, "free.models.m.tpm", "no such field"),
        ("[free]\nbase = '/free'\n[free.models]\ngpt-3.5-turbo = { requests_per_minute = 1, tokens_per_minute = 1 }\n",
         4, "free.models.gpt-3", "in quotes"),
        ("[free]\nbase = '/free'\n[free.models]\n'' = { requests_per_minute = 1, tokens_per_minute = 1 }\n",
         4, "free.models.", "1 to 100"),
        ("[free\n", 1, "", "not TOML"),
        ("[free]\nbase = \n", 2, "", "not TOML"),
        ("[free]\nbase = [\n'/a'\n", 3, "", "where the file ends"),
        ("[free]\nbase = '/a'\nbase = '/b'\n", 3, "", "not TOML"),
        ("x = " + "[" * 5000 + "]" * 5000, 1, "", "nested"),
        ("# " + "x" * MAX_FILE, 1, "", "larger than"),
    ],
)  # fmt: skip
def test_a_file_that_is_none_is_told_with_its_line(text: str, line: int, field: str, word: str) -> None:
    (problem,) = problems(text)
    assert (problem.line, problem.field) == (line, field)
    assert word in problem.text


def test_all_mistakes_are_told_at_once_and_in_the_order_of_the_lines() -> None:
    found = problems("[b]\nbase = 'b'\n[free]\nsystem = 1\ntext_only = 1\n" + MODELS)
    assert [problem.line for problem in found] == sorted(problem.line for problem in found)
    assert [problem.field for problem in found] == ["b.models", "b.base", "free.base", "free.system", "free.text_only"]


def test_R23_the_complaint_names_the_setting_and_every_mistake_in_a_line_each() -> None:
    with pytest.raises(ConfigError) as raised:
        read_tiers("[free]\nbase = '/v1'\nsystem = 1\n" + MODELS)
    assert raised.value.message == (
        "The tiers' file (TIERS_FILE) cannot be used:\n"
        "  line 2, free.base: '/v1': leave /v1 out, clients and the server add it\n"
        '  line 3, free.system: expected one of "allow", "drop", "reject"'
    )


def test_a_shared_key_is_never_told_in_a_complaint() -> None:
    (problem,) = problems(with_field("shared_key = 'sk-c2a-secret of theirs'"))
    assert "secret" not in str(problem)


def test_too_many_tiers_are_one_complaint() -> None:
    (problem,) = problems("\n".join(f"[t{number}]" for number in range(51)))
    assert "more than 50" in problem.text
