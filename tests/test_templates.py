"""The start page as a file: readable by everybody, nothing that its content security policy would block."""

import re
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path

import pytest
from jinja2 import Environment, FileSystemLoader, StrictUndefined

TEMPLATES = Path(__file__).parent.parent / "templates"
STYLE = (TEMPLATES / "static" / "style.css").read_text(encoding="utf-8")

AA_TEXT = 4.5
AA_GRAPHICS = 3.0


class Page(HTMLParser):
    """Every element of a page: its name and attributes."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))


def render(**values: object) -> str:
    environment = Environment(loader=FileSystemLoader(TEMPLATES), autoescape=True, undefined=StrictUndefined)
    given = {"base_url": "http://localhost:5005/v1", "prefix": "", "demo": False, "static": "/static/{}".format}
    return environment.get_template("index.html").render(given | values)


@pytest.fixture(params=[False, True], ids=["with accounts", "demo"])
def page(request: pytest.FixtureRequest) -> Page:
    return Page(render(demo=request.param))


def palettes() -> dict[str, dict[str, str]]:
    """Give the colours of both schemes; what the dark one does not name is as in the light one."""
    light, dark = re.findall(r":root \{(.*?)\}", STYLE, re.DOTALL)
    colours = [dict(re.findall(r"--(\w+): (#\w+);", block)) for block in (light, dark)]
    return {"light": colours[0], "dark": colours[0] | colours[1]}


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
        ("text", "page", AA_TEXT),
        ("text", "card", AA_TEXT),
        ("text", "code", AA_TEXT),
        ("text", "tint", AA_TEXT),
        ("faint", "page", AA_TEXT),
        ("faint", "card", AA_TEXT),
        ("accent", "card", AA_TEXT),
        ("accent", "code", AA_GRAPHICS),
        ("accent", "tint", AA_GRAPHICS),
    ],
)
def test_colours_have_the_contrast_that_everybody_can_read(scheme: str, front: str, back: str, least: float) -> None:
    colours = palettes()[scheme]
    assert contrast(colours[front], colours[back]) >= least


def test_the_measure_of_contrast_is_right_where_it_is_known() -> None:
    assert contrast("#000", "#fff") == pytest.approx(21)
    assert contrast("#767676", "#ffffff") == pytest.approx(4.54, abs=0.01)


def test_every_colour_of_the_style_is_one_of_the_scheme() -> None:
    rules = re.sub(r":root \{.*?\}", "", STYLE, flags=re.DOTALL)
    assert not re.search(r"#[0-9a-f]{3,8}\b|rgb|hsl", rules)
    names = set(re.findall(r"var\(--(\w+)\)", rules))
    assert names == set(palettes()["light"])


def test_S24_nothing_on_the_page_needs_what_its_policy_forbids(page: Page) -> None:
    for tag, attributes in page.elements:
        assert tag not in ("script", "style", "iframe", "object", "base")
        assert not any(name == "style" or name.startswith("on") for name in attributes)
        for name in ("href", "src"):
            assert not re.match(r"https?:|//|javascript:", attributes.get(name) or "")
    assert not re.search(r"@import|https?:|//", STYLE)


def test_what_the_page_calls_by_id_is_there_once_and_regions_have_names(page: Page) -> None:
    ids = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
    assert len(ids) == len(set(ids))
    for tag, attributes in page.elements:
        if "aria-labelledby" in attributes:
            assert attributes["aria-labelledby"] in ids
        if tag == "pre":  # it scrolls, so the keyboard must reach it and a screen reader must name it
            assert attributes["tabindex"] == "0"
            assert attributes["role"] == "region"
            assert "aria-labelledby" in attributes


def test_headings_do_not_skip_a_level(page: Page) -> None:
    levels = [int(tag[1]) for tag, _ in page.elements if re.fullmatch(r"h[1-6]", tag)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(later <= earlier + 1 for earlier, later in pairwise(levels))


def test_the_page_tells_of_the_demo_only_while_there_is_one() -> None:
    assert "simulator" in render(demo=True)
    assert "simulator" not in render(demo=False)


def test_the_page_follows_the_prefix_and_escapes_what_it_is_given() -> None:
    text = render(base_url="http://localhost:5005/x/v1?<script>", prefix="/x")
    assert 'href="/x/openapi.json"' in text
    assert "<script>" not in text


def test_files_that_the_page_names_exist(page: Page) -> None:
    named = {attributes["href"] for tag, attributes in page.elements if tag == "link"}
    named |= {f"/static/{name}" for name in re.findall(r'url\("([^"]+)"\)', STYLE)}
    assert named == {"/static/icon.svg", "/static/style.css"}
    assert all((TEMPLATES / str(name).lstrip("/")).is_file() for name in named)
