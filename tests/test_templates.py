"""The pages as files: readable by everybody, in every language, with nothing that their content security policy would block."""

import re
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from string import Formatter

import pytest
from jinja2 import Environment, FileSystemLoader, nodes

from chat2api.api.texts import load_catalogues

TEMPLATES = Path(__file__).parent.parent / "templates"
STYLE = (TEMPLATES / "static" / "style.css").read_text(encoding="utf-8")
SCRIPT = (TEMPLATES / "static" / "page.js").read_text(encoding="utf-8")
PAGES = sorted(TEMPLATES.glob("*.html"))
CATALOGUES = load_catalogues(TEMPLATES / "texts")

AA_TEXT = 4.5
AA_GRAPHICS = 3.0


class Page(HTMLParser):
    """Every element of a page with its attributes, and the text between them."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.words.append(data)


def without_jinja(text: str) -> str:
    """Give a template's own words: no statements, expressions or comments."""
    return re.sub(r"\{#.*?#\}|\{%.*?%\}|\{\{.*?\}\}", "", text, flags=re.DOTALL)


# Languages


def test_every_language_has_the_same_texts_with_the_same_names_in_them() -> None:
    assert set(CATALOGUES) == {"en", "zh-CN"}
    english = CATALOGUES["en"].texts
    for catalogue in CATALOGUES.values():
        assert catalogue.name
        assert set(catalogue.texts) == set(english)
        for name, text in catalogue.texts.items():
            assert text.strip() == text != ""
            assert fields(text) == fields(english[name]), f"{catalogue.tag}: {name}"


def fields(text: str) -> set[str]:
    return {name for _, name, _, _ in Formatter().parse(text) if name is not None}


def test_the_other_language_is_translated() -> None:
    same = {name for name, text in CATALOGUES["zh-CN"].texts.items() if text == CATALOGUES["en"].texts[name]}
    assert same == {
        "index.title",
        "kind.access",
        "kind.refresh",
        "index.python",
        "index.node",
        "usage.curl",
        "usage.python",
        "usage.node",
        "usage.open_webui",
        "doctor.check_chatgpt",
    }


ALONE = {"chat2api", "CSV", "JSON", "chat", "api", "openapi.json", "healthz", "readyz", "GET /v1/models", "·", "/"}
"""What may stand in a template as it is: names."""


@pytest.mark.parametrize("path", [page for page in PAGES if page.name != "snippets.html"], ids=lambda path: path.name)
def test_no_template_holds_a_sentence_of_its_own(path: Path) -> None:
    page = Page(without_jinja(path.read_text(encoding="utf-8")))
    for words in page.words:
        left = words.strip()
        assert not re.search(r"[^\W\d_]{2,}", left) or left in ALONE or left.strip("· ") in ALONE, left
    for tag, attributes in page.elements:
        for name in ("title", "aria-label", "placeholder", "alt", "value"):
            assert not re.search(r"[^\W\d_]{2,} [^\W\d_]{2,}", attributes.get(name) or ""), (tag, name)


def test_every_text_that_a_template_names_exists() -> None:
    environment = Environment(loader=FileSystemLoader(TEMPLATES), autoescape=True)
    named = set()
    for path in PAGES:
        tree = environment.parse(path.read_text(encoding="utf-8"))
        for call in tree.find_all(nodes.Call):
            if isinstance(call.node, nodes.Name) and call.node.name == "t" and call.args:
                named |= {constant.value for constant in call.args[0].find_all(nodes.Const)}
                if isinstance(call.args[0], nodes.Const):
                    named.add(call.args[0].value)
    texts = set(CATALOGUES["en"].texts)
    whole = {name for name in named if isinstance(name, str) and "." in name and not name.endswith((".", "_"))}
    assert len(whole) > 40
    assert whole - texts == set()


# Colours


def palettes() -> dict[str, dict[str, str]]:
    """Give the colours of both schemes."""
    pairs = re.findall(r"--([\w-]+): light-dark\((#\w+), (#\w+)\);", STYLE)
    return {"light": {name: light for name, light, _ in pairs}, "dark": {name: dark for name, _, dark in pairs}}


def luminance(colour: str) -> float:
    """Give the relative luminance as WCAG 2 defines it."""
    digits = colour.lstrip("#")
    digits = "".join(digit * 2 for digit in digits) if len(digits) == 3 else digits
    parts = [int(digits[place : place + 2], 16) / 255 for place in (0, 2, 4)]
    red, green, blue = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(one: str, other: str) -> float:
    darker, lighter = sorted((luminance(one), luminance(other)))
    return (lighter + 0.05) / (darker + 0.05)


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize(
    ("front", "back", "least"),
    [
        *((front, back, AA_TEXT) for front in ("text", "faint", "accent") for back in ("page", "card", "code", "tint")),
        *((front, "raised", AA_TEXT) for front in ("text", "faint", "accent", "bad")),
        *((name, f"{name}-tint", AA_TEXT) for name in ("good", "warn", "bad")),
        ("on-accent", "accent", AA_TEXT),
        ("on-accent", "accent-strong", AA_TEXT),
        ("accent-strong", "card", AA_TEXT),
        ("bad", "card", AA_TEXT),
        ("card", "bad", AA_TEXT),
        ("accent", "card", AA_GRAPHICS),
        ("edge", "card", AA_GRAPHICS),
        ("edge", "raised", AA_GRAPHICS),
        ("warn", "code", AA_GRAPHICS),
        ("bad", "code", AA_GRAPHICS),
    ],
)
def test_colours_have_the_contrast_that_everybody_can_read(scheme: str, front: str, back: str, least: float) -> None:
    colours = palettes()[scheme]
    assert contrast(colours[front], colours[back]) >= least


def test_the_measure_of_contrast_is_right_where_it_is_known() -> None:
    assert contrast("#000", "#fff") == pytest.approx(21)
    assert contrast("#767676", "#ffffff") == pytest.approx(4.54, abs=0.01)


def test_every_colour_of_the_style_is_one_of_the_scheme() -> None:
    rules = re.sub(r":root \{.*?\}", "", STYLE, count=1, flags=re.DOTALL)
    assert not re.search(r"#[0-9a-f]{3,8}\b|rgb|hsl", rules)
    assert set(re.findall(r"var\(--([\w-]+)\)", rules)) == set(palettes()["light"])


# What the policy forbids


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_S24_nothing_on_a_page_needs_what_its_policy_forbids(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    for tag, attributes in Page(without_jinja(text)).elements:
        assert tag not in ("style", "iframe", "object", "base", "embed")
        assert tag != "script" or "src" in attributes
        assert not any(name == "style" or name.startswith("on") for name in attributes)
        for name in ("href", "src", "action"):
            assert not re.match(r"https?:|//|javascript:|data:", attributes.get(name) or "")


def test_S24_neither_style_nor_script_fetches_from_elsewhere_or_makes_markup() -> None:
    assert not re.search(r"@import|https?:|url\(", STYLE)
    assert not re.search(
        r"https?:|innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval|Function\(|\.style\b", SCRIPT
    )


def test_every_form_that_changes_something_carries_the_token() -> None:
    own = {"login.html": 1, "base.html": 2, "invite.html": 1}
    """Forms without a sign-in: the box; language and appearance; taking a key by invitation."""
    for path in PAGES:
        forms = re.findall(r"<form[^>]*method=\"post\".*?</form>", path.read_text(encoding="utf-8"), re.DOTALL)
        bare = [form for form in forms if "csrf_field()" not in form]
        assert len(bare) == own.get(path.name, 0), path.name


# What everybody needs


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_headings_do_not_skip_a_level(path: Path) -> None:
    if '{% extends "base.html" %}' not in path.read_text(encoding="utf-8"):
        return  # a part of pages, or a page whose headings are another's
    elements = Page(
        re.sub(r"\{%-? macro.*?endmacro.*?%\}", "", path.read_text(encoding="utf-8"), flags=re.DOTALL)
    ).elements
    levels = [int(tag[1]) for tag, _ in elements if re.fullmatch(r"h[1-6]", tag)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(later <= earlier + 1 for earlier, later in pairwise(levels))


def test_the_style_lets_the_keyboard_be_seen_and_motion_be_refused() -> None:
    assert re.search(r":focus-visible \{ outline: 2px", STYLE)
    assert "transition" in STYLE.partition("prefers-reduced-motion: no-preference")[2]
    assert "transition" not in STYLE.partition("prefers-reduced-motion: no-preference")[0]
    assert "outline: none" not in STYLE.replace("main:focus { outline: none; }", "")
