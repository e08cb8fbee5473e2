"""Documents: what they name exists, what they promise is what the code says."""

import io
import os
import re
import subprocess
from collections.abc import Iterator
from contextlib import redirect_stdout
from importlib.metadata import version
from itertools import takewhile
from pathlib import Path
from typing import get_args
from urllib.parse import urlsplit

import pytest

from chat2api import __version__, errors
from chat2api.accounts.health import WaitReason
from chat2api.accounts.listing import STATES
from chat2api.accounts.views import advice_for
from chat2api.api.errors import answer_error
from chat2api.app import OTHER_PLACES, create_app
from chat2api.cli import main
from chat2api.config import SAMPLE_KEYS, Config, describe_settings
from chat2api.keys.terms import FIELD_NAMES
from chat2api.protocol.openai.openapi import openapi_document
from tests.documents import ROOT, env_example, with_chinese_settings_table, with_settings_table

GUIDE = "docs/operators-guide.md"
HOSTING = [f"docs/deploy-{place}.md" for place in ("docker", "zeabur", "render", "cloud-run", "systemd")]
# The documents that there are in two languages, by their English name.
TWINS = ["README.md", GUIDE, "docs/compatibility.md", *HOSTING]
DOCUMENTS = ["README.md", "CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md", GUIDE]
DOCUMENTS += [name for twin in TWINS for name in (twin, twin.replace(".md", ".zh-CN.md")) if name not in DOCUMENTS]
DEPLOYMENT_FILES = [
    "docker-compose.yml",
    "docker-compose-warp.yml",
    "zeabur.yaml",
    "render.yaml",
    "docs/chat2api.service",
]

# Every host that a document may name: ours on loopback, those of the services themselves, and reserved examples.
HOSTS = {
    "localhost",
    "127.0.0.1",
    "chatgpt.com",
    "api.openai.com",
    "auth.openai.com",
    "chat.example.org",
    "keepachangelog.com",
    "semver.org",
    "schema.zeabur.app",
}

# Raised under their subclasses only, or never told to a caller.
NOT_TOLD = {errors.Chat2APIError, errors.UpstreamError, errors.ConfigError}


def text_of(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def code_of(name: str) -> Iterator[str]:
    """Yield the lines of a document's shell blocks, comments and continuations taken out, and its inline code."""
    text = text_of(name)
    for block in re.findall(r"```sh\n(.*?)```", text, re.DOTALL):
        yield from (line.partition("  #")[0].strip() for line in block.replace("\\\n", " ").splitlines())
    yield from re.findall(r"(?<!`)`([^`\n]+)`(?!`)", re.sub(r"```.*?```", "", text, flags=re.DOTALL))


def told_errors() -> list[type[errors.Chat2APIError]]:
    found, rest = [], [errors.Chat2APIError]
    while rest:
        kind = rest.pop()
        rest += kind.__subclasses__()
        if kind not in NOT_TOLD and kind.__module__ == errors.__name__:
            found.append(kind)
    return found


# ---- settings ----


def test_the_example_env_file_is_what_config_says() -> None:
    assert text_of(".env.example") == env_example(), "run `python -m tests.documents`"


def test_the_table_of_settings_is_what_config_says() -> None:
    assert text_of("README.md") == with_settings_table(text_of("README.md")), "run `python -m tests.documents`"
    chinese = text_of("README.zh-CN.md")
    assert chinese == with_chinese_settings_table(chinese), "run `python -m tests.documents`"


def test_a_new_setting_comes_into_the_chinese_table_and_what_is_translated_stays() -> None:
    chinese = text_of("README.zh-CN.md")
    without = re.sub(r"^\| `PORT` .*\n", "", chinese, flags=re.MULTILINE)
    english = next(setting.text for setting in describe_settings() if setting.name == "PORT")
    assert with_chinese_settings_table(without) == re.sub(
        r"^(\| `PORT` \| `5005` \| ).* \|$", rf"\1{english} |", chinese, flags=re.MULTILINE
    )
    with pytest.raises(ValueError, match="no table"):
        with_chinese_settings_table("# README\n")


@pytest.mark.parametrize("name", DOCUMENTS)
def test_every_setting_that_a_document_names_exists(name: str) -> None:
    known = {setting.name for setting in describe_settings()} | {"GO_CHATGPT_API_PROXY"}
    others = {"OPENAI_BASE_URL", "OPENAI_API_BASE", "OPENAI_API_KEY", "LABEL", "FILE"}
    others |= {"RENDER_EXTERNAL_URL", "ZEABUR_WEB_URL", "NET_ADMIN"}  # of hosts and containers
    named = {word for code in code_of(name) for word in re.findall(r"\b[A-Z][A-Z]+(?:_[A-Z]+)+\b", code)}
    assert named <= known | others


def test_R23_settings_that_readme_writes_out_are_valid() -> None:
    written = {
        (key, value)
        for code in code_of("README.md")
        for key, value in re.findall(r"\b([A-Z][A-Z_]+)=([^\s`]+)", code)
        if key in {setting.name for setting in describe_settings()}
    }
    assert {key for key, _ in written} >= {"HOST", "HISTORY_DISABLED", "CONVERSATION_ONLY", "ENABLE_LIMIT"}
    for key, value in written:
        assert Config.from_env({key: value}) is not None


# ---- commands ----


def commands() -> set[tuple[str, ...]]:
    """Give the words after `chat2api` of every command that a document names."""
    found = set()
    for code in (code for name in DOCUMENTS for code in code_of(name)):
        words = code.split()
        places = [place for place, word in enumerate(words) if word.rpartition("/")[2] == "chat2api"]
        if words[:1] == ["docker"]:
            places = places[1:]  # the first is the container
        if places:
            found.add(tuple(words[places[-1] + 1 :]))
    return found


def test_documents_name_the_commands_that_matter() -> None:
    assert commands() >= {
        ("tokens", "add", "-"),
        ("tokens", "list"),
        ("keys", "operator"),
        ("doctor",),
        ("serve", "--help"),
    }


@pytest.mark.parametrize("words", sorted(commands()), ids=" ".join)
def test_every_command_that_a_document_names_exists(words: tuple[str, ...]) -> None:
    named = (word for word in words if word.islower())
    actions = list(takewhile(lambda word: re.fullmatch("[a-z]+(-[a-z]+)*", word), named))
    told = io.StringIO()
    with redirect_stdout(told), pytest.raises(SystemExit) as ended:
        main([*actions, "--help"])
    assert ended.value.code == 0
    assert {word for word in words if word.startswith("--")} <= set(re.findall(r"--[\w-]+", told.getvalue()))
    operands = [word for word in words if not word.startswith("--") and word not in actions]
    assert not operands or re.search(r"LABEL|FILE|KEY|NAME", told.getvalue())


def test_every_make_target_that_a_document_names_exists() -> None:
    named = {target for name in DOCUMENTS for code in code_of(name) for target in re.findall(r"^make ([a-z]+)", code)}
    assert {"run", "test", "check", "bench", "lock"} <= named
    for target in named:
        done = subprocess.run(["make", "-n", target], cwd=ROOT, capture_output=True, text=True, timeout=30)
        assert done.returncode == 0, done.stderr


def test_make_help_names_every_target_for_people() -> None:
    makefile = text_of("Makefile")
    phony = set(re.search(r"^\.PHONY: (.*)$", makefile, re.MULTILINE)[1].split())  # type: ignore[index]
    told = subprocess.run(["make", "-s", "help"], cwd=ROOT, capture_output=True, text=True, timeout=30).stdout
    assert set(re.findall(r"^make (\w+)", told, re.MULTILINE)) == phony - {"help"}


# ---- errors ----


def error_rows() -> set[tuple[int, str, str | None]]:
    rows = re.findall(r"^\| (\d{3}) \| `(\w+)` \| (.*?) \|", text_of("README.md"), re.MULTILINE)
    return {(int(status), kind, None if code == "by case" else code.strip("`")) for status, kind, code in rows}


def test_T1_the_table_of_errors_is_what_the_classes_say() -> None:
    expected = {(kind.status, kind.type, kind.default_code) for kind in told_errors()}
    assert error_rows() == expected | {(500, "server_error", "internal_error")}


async def test_T1_what_the_table_says_of_an_unexpected_failure_is_what_a_caller_sees() -> None:
    answer = await answer_error(RuntimeError("secret detail"))
    body = await answer.get_json()
    assert (answer.status_code, body["error"]["type"], body["error"]["code"]) in error_rows()
    assert "secret" not in str(body)


# ---- routes ----


def real_routes(*endpoints: str) -> set[tuple[str, str]]:
    """Give method and path of the app's routes, of all endpoints but files or of those that begin so.

    Routes that are other names of others are told of in README's text.
    """
    return {
        (method, re.sub(r"<(?:\w+:)?(\w+)>", r"{\1}", rule.rule))
        for rule in create_app(Config()).url_map.iter_rules()
        for method in (rule.methods or set()) - {"HEAD", "OPTIONS"}
        if rule.endpoint != "static"
        and rule.endpoint.startswith(endpoints or "")
        and not rule.endpoint.startswith(tuple(OTHER_PLACES))
    }


def named_routes(text: str) -> set[tuple[str, str]]:
    return set(re.findall(r"`(GET|POST|PUT|PATCH|DELETE) (/\S*)`", text))


def test_the_routes_that_readme_lists_are_those_that_there_are() -> None:
    section = text_of("README.md").partition("## What is supported")[2].partition("## Conversations")[0]
    assert named_routes(section) == real_routes()


def test_readme_tells_under_which_other_paths_the_routes_are_found() -> None:
    text = text_of("README.md")
    assert all(f"`{place}`" in text for place in OTHER_PLACES)


def test_the_guide_lists_every_route_of_the_operators_rest_and_says_where_they_are_described() -> None:
    section = text_of(GUIDE).partition("## Calls for programs")[2].partition("\n## ")[0]
    assert "`/openapi.json` describes" in section
    assert named_routes(section) == real_routes("accounts.", "keys.", "invites.", "local_users.")
    described = openapi_document(__version__)["paths"]
    assert isinstance(described, dict)
    assert {path for _, path in named_routes(section)} <= set(described)


def test_the_routes_that_the_guide_names_anywhere_are_there() -> None:
    assert named_routes(text_of(GUIDE)) <= real_routes()


def test_the_pages_that_the_guide_lists_are_there() -> None:
    pages = re.findall(r"^\| `(/\S*)` \|", guide_section("Pages"), re.MULTILINE)
    assert set(pages) >= {"/", "/login", "/usage", "/tokens/overview"}
    assert {("GET", page) for page in pages} <= real_routes() - real_routes("accounts.", "keys.", "local_users.")


# ---- what the operator reads ----


def first_words(section: str) -> set[str]:
    """Give what stands as code in the first columns of a section's tables."""
    cells = re.findall(r"^\| (.*?) \|", section, re.MULTILINE)
    return {word for cell in cells for word in re.findall(r"`([\w.-]+)`", cell)}


def guide_section(heading: str) -> str:
    text = text_of(GUIDE)
    assert f"# {heading}\n" in text
    return text.partition(f"# {heading}\n")[2].partition("\n#")[0]


def test_the_guide_says_what_every_state_and_reason_means() -> None:
    section = guide_section("What a state means")
    states, _, reasons = section.partition("Behind a state")
    assert first_words(states) == set(STATES)
    named = first_words(reasons)
    assert named >= set(get_args(WaitReason))
    assert named >= {"token_expired", "invalid_grant", "refresh_token_reused", "restored_copy", "workspace_not_allowed"}
    general = advice_for("no such reason")
    assert not [reason for reason in named if advice_for(reason) == general]


async def test_the_metrics_that_the_guide_names_are_told(tmp_path: Path) -> None:
    named = set(re.findall(r"`(chat2api_\w+)", text_of(GUIDE)))
    assert len(named) > 15
    key = "a-key-of-this-test-alone"
    app = create_app(Config(data_dir=tmp_path, authorization=(key,)))
    async with app.test_app():
        answer = await app.test_client().get(
            "/metrics", headers={"Authorization": f"Bearer {key}", "Host": "localhost"}
        )
        told = set(re.findall(r"^# HELP (\w+)", await answer.get_data(as_text=True), re.MULTILINE))
    assert named <= told


def test_the_guide_names_the_terms_that_keys_have() -> None:
    options = {"--" + name.replace("_", "-") for name in FIELD_NAMES}
    assert set(re.findall(r"`(--[\w-]+)`", guide_section("Keys"))) <= options | {"--note"}
    body = re.search(r"^\| `POST /keys` \| (.*?) \|", text_of(GUIDE), re.MULTILINE)
    assert body is not None
    assert set(re.findall(r"`(\w+)`", body[1])) == set(FIELD_NAMES)


def test_the_codes_that_the_faq_explains_are_those_of_the_table_of_errors() -> None:
    faq = text_of("README.md").partition("## FAQ")[2].partition("\n## ")[0]
    codes = {code for _, _, code in error_rows()}
    named = set(re.findall(r"`([a-z]+_[a-z_]+)`", faq))
    assert named >= {
        "invalid_api_key",
        "caller_token_rejected",
        "anonymous_unavailable",
        "workspace_not_allowed",
        "upstream_challenge",
        "proof_of_work_too_hard",
        "rate_limit_exceeded",
        "insufficient_quota",
        "no_account",
    }
    assert named <= codes


# ---- links and places ----


def headings_of(path: Path) -> set[str]:
    """Give the names by which links reach the headings of a document."""
    return {
        re.sub(r"[^\w\- ]", "", line.lstrip("# ")).lower().replace(" ", "-")
        for line in re.findall(r"^#+ .*$", path.read_text(encoding="utf-8"), re.MULTILINE)
    }


@pytest.mark.parametrize("name", DOCUMENTS)
def test_links_lead_somewhere(name: str) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", text_of(name)):
        if not urlsplit(target).scheme:
            place, _, heading = target.partition("#")
            path = (ROOT / name).parent / place if place else ROOT / name
            assert path.exists(), target
            assert not heading or heading in headings_of(path), target


@pytest.mark.parametrize("name", [*DOCUMENTS, ".env.example", *DEPLOYMENT_FILES])
def test_documents_name_no_host_but_known_ones_and_no_place_on_somebodys_machine(name: str) -> None:
    text = text_of(name)
    hosts = {urlsplit(url).hostname for url in re.findall(r"https?://[^\s`'\"<>)\]]+", text)}
    assert hosts <= HOSTS
    assert not re.search(r"/(?:home|root|Users|work|tmp)/\w", text)


@pytest.mark.parametrize("name", [path for path in DOCUMENTS if path != "SECURITY.md"])
def test_documents_say_nothing_of_unlimited_use(name: str) -> None:
    assert not re.search(
        r"\bunlimited\b|\bfree (?:api|access|gpt)\b|\bbypass|免费|无限|绕过", text_of(name), re.IGNORECASE
    )


def test_G1_readme_warns_of_the_terms_before_it_tells_how_to_begin() -> None:
    before, _, after = text_of("README.md").partition("## Two commands")
    assert after
    assert "terms of use" in before
    assert "cost the account" in before
    assert "own responsibility" in before
    before, _, after = text_of("README.zh-CN.md").partition("## 两条命令")
    assert after
    assert all(words in before for words in ("使用条款", "使账号被停用", "由你自己负责"))


# ---- two languages ----


def sections(name: str) -> list[tuple[str, str]]:
    """Give a document's headings as their level, each with the text that follows it; code is no place for headings."""
    blocks = re.split(r"(```.*?```)", text_of(name), flags=re.DOTALL)
    marked = "".join(block.replace("\n#", "\n\0#") if block.startswith("```") else block for block in blocks)
    parts = re.split(r"^(#+) .*$", marked, flags=re.MULTILINE)[1:]
    return list(zip(parts[::2], parts[1::2], strict=True))


def named_code(section: str) -> set[str]:
    """Give what a section has as inline code and in its blocks, without comments and what people call things."""
    plain = re.sub(r"```.*?```", "", section, flags=re.DOTALL)
    lines = [line for block in re.findall(r"```\w*\n(.*?)```", section, re.DOTALL) for line in block.splitlines()]
    lines = [re.split(r"  +(?:#|//)|^\0?# ", line)[0].strip() for line in lines]
    return set(re.findall(r"(?<!`)`([^`\n]+)`(?!`)", plain)) | set(lines)


def rows(section: str) -> list[int]:
    """Give the number of columns of each row of a section's tables."""
    return [line.replace("\\|", "").count("|") for line in section.splitlines() if line.startswith("|")]


@pytest.mark.parametrize("name", TWINS)
def test_a_document_says_the_same_in_both_languages(name: str) -> None:
    """The same sections, tables, pictures, commands and names of things, each in its place.

    Figures of performance are left to the English README, which the Chinese one names.
    """
    english, chinese = sections(name), sections(name.replace(".md", ".zh-CN.md"))
    assert [level for level, _ in english] == [level for level, _ in chinese]
    for (_, ours), (_, theirs) in zip(english, chinese, strict=True):
        if "README.md#performance" not in theirs:
            assert named_code(ours) == named_code(theirs), f"{name} and its Chinese twin change together"
            assert rows(ours) == rows(theirs), f"{name} and its Chinese twin change together"
            assert re.findall(r"[\w-]+\.png", ours) == re.findall(r"[\w-]+\.png", theirs)


@pytest.mark.parametrize("name", TWINS)
def test_each_language_leads_to_the_other_and_stays_with_itself(name: str) -> None:
    """Links to documents that there are in Chinese lead from Chinese ones to the Chinese one, and the other way round."""
    other = name.replace(".md", ".zh-CN.md")
    folder = Path(name).parent
    for here, twin in ((name, other), (other, name)):
        targets = [
            str(Path(os.path.normpath(folder / target)))
            for target in re.findall(r"\]\(([^)#\s]+)", text_of(here))
            if not urlsplit(target).scheme
        ]
        assert twin in targets[:1]
        foreign = {document.replace(".md", ".zh-CN.md") if here == name else document for document in TWINS}
        assert set(targets) & foreign == {twin}


def test_the_pictures_are_small_and_each_is_shown_to_the_operator() -> None:
    pictures = sorted((ROOT / "docs" / "pictures").glob("*.png"))
    assert {f"pictures/{picture.name}" for picture in pictures} == set(re.findall(r"\]\((.*?\.png)\)", text_of(GUIDE)))
    assert all(picture.stat().st_size <= 150_000 for picture in pictures)


def test_the_version_of_the_client_that_the_suite_runs_is_the_one_that_documents_name() -> None:
    installed = version("openai")
    assert f"| `openai` for Python | {installed} | in the suite" in text_of("docs/compatibility.md")
    assert f"Python client ({installed.rpartition('.')[0]})" in text_of("README.md")


def test_the_changelog_has_this_version() -> None:
    assert f"## [{__version__}]" in text_of("CHANGELOG.md")


def test_S2_no_document_prints_a_key_that_would_be_taken() -> None:
    for name in [*DOCUMENTS, ".env.example"]:
        for key in re.findall(r"AUTHORIZATION[=:] *([\w-]{3,})", text_of(name)):
            assert key in SAMPLE_KEYS


def test_the_parts_that_are_written_by_a_program_need_a_place_to_be_written_to() -> None:
    with pytest.raises(ValueError, match="no table"):
        with_settings_table("# README without a table\n")


def test_documents_are_where_people_look_for_them() -> None:
    assert all((ROOT / name).is_file() for name in [*DOCUMENTS, "LICENSE", ".env.example", "Makefile"])
    assert Path(ROOT / ".ci" / "run").stat().st_mode & 0o111
