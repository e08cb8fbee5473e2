"""Citations of both styles and sandbox links, whole and cut."""

import itertools
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chat2api.protocol.chatgpt.citations import HOLD, CitationText, SandboxLink, Sources

S, C, F = "\ue200", "\ue201", "\ue202"
GROUPS = [
    {
        "entries": [
            {"url": "https://a.example/p?utm_source=chatgpt.com", "title": "Page A", "attribution": "Site A",
             "ref_id": {"turn_index": 0, "ref_type": "search", "ref_index": 1}},
            {"url": "https://b.example/x_(y)?k=1&utm_source=chatgpt.com#top", "title": "B [2]",
             "ref_id": {"turn_index": 2, "ref_type": "news", "ref_index": 0}},
            {"url": "javascript:alert(1)", "title": "Bad",
             "ref_id": {"turn_index": 0, "ref_type": "search", "ref_index": 9}},
        ]
    }
]  # fmt: skip


def rewriter(**metadata: Any) -> CitationText:
    sources = Sources()
    sources.metadata = metadata
    return CitationText(sources)


def render(text: str, *cuts: int, **metadata: Any) -> str:
    citations = rewriter(**metadata)
    places = [0, *sorted(cuts), len(text)]
    pieces = [piece for begin, end in itertools.pairwise(places) for piece in citations.feed(text[begin:end])]
    pieces += citations.flush()
    return "".join(
        piece if isinstance(piece, str) else f"<{piece.name}|{piece.pointer}|{piece.is_image}>" for piece in pieces
    )


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (f"A{S}cite{F}turn0search1{C}.", "A ([Site A](https://a.example/p))."),
        (f"A {S}cite{F}turn0search1{F}turn2news0{C}",
         "A ([Site A](https://a.example/p), [B (2)](https://b.example/x_%28y%29?k=1#top))"),
        (f"A{S}cite{F}turn0search1{F}turn0search1{C}", "A ([Site A](https://a.example/p))"),
        (f"A{S}cite{F}turn7search7{C}.", "A."),
        (f"A{S}cite{F}turn0search9{C}.", "A."),
        (f"A{S}cite{F}https://c.example/x{F}L1-L2{C}.", "A ([c.example](https://c.example/x))."),
        (f"A{S}cite{F}javascript:alert(1){C}.", "A."),
        (f"{S}entity{F}[\"software\",\"Node.js\",\"runtime\"]{C} runs", "Node.js runs"),
        (f"{S}product_entity{F}[\"turn0product1\",\"Lamp\"]{C}!", "Lamp!"),
        (f"{S}url{F}label{F}https://c.example/{C}", "[label](https://c.example/)"),
        (f"{S}link_title{F}label{F}turn0search1{C}", "[label](https://a.example/p)"),
        (f"{S}url{F}label{F}javascript:x{C}.", "."),
        (f"{S}video{F}Clip{F}turn0search1{C}", "[Clip](https://a.example/p)"),
        (f"See:{S}navlist{F}News{F}turn0search1,turn2news0{C}",
         "See:\n- [Site A](https://a.example/p)\n- [B (2)](https://b.example/x_%28y%29?k=1#top)\n"),
        (f"a{S}i{F}turn0image1{C}b{S}forecast{F}x{C}c{S}genui{F}{{}}{C}d{S}products{F}{{}}{C}e", "abcde"),
        (f"{S}entity[\"city\",\"Paris\"]{C} has {S}image_group{{\"query\":[\"a\"]}}{C}a river", "Paris has a river"),
        (f"a{S}filecite{F}turn0file0{F}L1-L3{C}b", "ab"),
        ("\ue203bold\ue204\ue206 and \ue201", "bold and "),
        (f"stray {S} sign", "stray  sign"),
        (f"two {S}ci{S}cite{F}turn0search1{C}", "two ci ([Site A](https://a.example/p))"),
        (f"cut {S}cite{F}turn0", "cut "),
        (f"never closed {S}cite{F}turn0\n\nThe rest stays.", "never closed \n\nThe rest stays."),
    ],
)  # fmt: skip
def test_private_use_markup_becomes_markdown(text: str, expected: str) -> None:
    assert render(text, search_result_groups=GROUPS) == expected


@pytest.mark.parametrize(
    ("reference", "expected"),
    [
        ({"items": [{"url": "https://a.example/", "title": "T"}]}, " ([T](https://a.example/))"),
        ({"items": [], "fallback_items": [{"url": "https://a.example/"}]}, " ([a.example](https://a.example/))"),
        ({"url": "https://a.example/", "title": "T", "type": "webpage"}, " ([T](https://a.example/))"),
        ({"alt": "([T](https://a.example/?utm_source=chatgpt.com))"}, " ([T](https://a.example/))"),
        ({"alt": "", "status": "done"}, ""),
    ],
)
def test_the_reference_of_the_very_text_is_the_target(reference: dict[str, Any], expected: str) -> None:
    markup = f"{S}cite{F}turn0search5{C}"

    assert render(f"A{markup}", content_references=[{"matched_text": markup, **reference}]) == f"A{expected}"


def test_a_reference_is_found_by_its_position_while_its_text_is_incomplete() -> None:
    reference = {"matched_text": S, "start_idx": 2, "type": "entity", "alt": "Node.js"}

    assert render(f"\U0001f600 {S}entity{F}broken{C}", content_references=[reference]) == "\U0001f600 Node.js"


@pytest.mark.parametrize(
    ("citation", "expected"),
    [
        ({"start_ix": 4, "metadata": {"url": "https://a.example/", "title": "T"}}, " ([T](https://a.example/))"),
        ({"start_ix": 5, "metadata": {"url": "https://a.example/", "title": "T"}}, " ([T](https://a.example/))"),
        ({"start_ix": 99, "metadata": {"url": "https://a.example/", "title": "T", "extra": {"cited_message_idx": 7}}},
         " ([T](https://a.example/))"),
        ({"start_ix": 4, "metadata": {"type": "file", "name": "a.pdf"}}, ""),
        ({"start_ix": 99, "metadata": {"url": "https://a.example/"}}, ""),
    ],
)  # fmt: skip
def test_old_citations_are_found_by_position_in_code_points(citation: dict[str, Any], expected: str) -> None:
    assert render("\U0001f600Nil【7†source】.", citations=[citation]) == f"\U0001f600Nil{expected}."


def test_an_old_citation_may_name_its_target() -> None:
    assert render("Nil【turn0search1】.", search_result_groups=GROUPS) == "Nil ([Site A](https://a.example/p))."
    assert render("Nil【turn9search1†L1-L2】.", search_result_groups=GROUPS) == "Nil."


@pytest.mark.parametrize(
    "text",
    [
        "【标题】内容",
        "【1】",
        "【turn 1】",
        "【turn0】",
        "【",
        "a 【x†y",
        "list [1] and (2)!",
        "a[i](j)",
        "[x](https://e.example/)",
    ],
)
def test_what_only_looks_like_markup_stays(text: str) -> None:
    assert render(text) == text


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("[Get it](sandbox:/mnt/data/a b.csv)", "<Get it|sandbox:/mnt/data/a b.csv|False>"),
        ("![Plot](sandbox:/mnt/data/p.bin)", "<Plot|sandbox:/mnt/data/p.bin|True>"),
        ("[Plot](sandbox:/mnt/data/p.PNG)", "<Plot|sandbox:/mnt/data/p.PNG|True>"),
        ("at (sandbox:/mnt/data/x.txt).", "at <x.txt|sandbox:/mnt/data/x.txt|False>."),
        ("[a [b]](sandbox:/mnt/data/x)", "[a [b]]<x|sandbox:/mnt/data/x|False>"),
        ("[open](sandbox:/mnt", "[open](sandbox:/mnt"),
        ("[r](sandbox:/mnt/data/r (1).csv)", "<r|sandbox:/mnt/data/r (1).csv|False>"),
        ("([r](sandbox:/mnt/data/r.csv))", "(<r|sandbox:/mnt/data/r.csv|False>)"),
        ("[r](sandbox:/mnt/data/r (1.csv)", "[r](sandbox:/mnt/data/r (1.csv)"),
    ],
)
def test_links_to_files_of_the_interpreter_become_pointers(text: str, expected: str) -> None:
    assert render(text) == expected


SAMPLES = (
    f"A {S}cite{F}turn0search1{C} and 【7†source】, ![Plot](sandbox:/mnt/data/p (1).png)! 【turn0search1】"
    f'[x][y](z) (sandy) {S}entity{F}["a","b"]{C}【标题】{S}navlist{F}N{F}turn2news0{C}[end'
)
OLD = [{"start_ix": SAMPLES.index("【7"), "metadata": {"url": "https://o.example/", "title": "Old"}}]


@pytest.mark.parametrize("cut", range(len(SAMPLES) + 1))
def test_T3_a_cut_anywhere_changes_nothing(cut: int) -> None:
    whole = render(SAMPLES, search_result_groups=GROUPS, citations=OLD)

    assert render(SAMPLES, cut, search_result_groups=GROUPS, citations=OLD) == whole
    assert "https://o.example/" in whole


@given(st.lists(st.sampled_from([S, C, F, "cite", "turn0search1", "【", "7", "†", "】", "[", "]", "(", "sandbox:", "/", ")", "!",
                                 "\n", "x" * 50, "oaicite:"])), st.lists(st.integers(0, 300)))  # fmt: skip
def test_T3_any_text_cut_anywhere_gives_the_same(parts: list[str], cuts: list[int]) -> None:
    text = "".join(parts)
    rendered = render(text, *(min(cut, len(text)) for cut in cuts), search_result_groups=GROUPS)

    assert rendered == render(text, search_result_groups=GROUPS)
    assert not any(sign in rendered for sign in (S, C, F))


def test_text_waits_for_a_target_that_comes_later() -> None:
    citations = rewriter()

    assert citations.feed(f"A{S}cite{F}turn0search1{C} and on") == ["A"]
    citations._sources.metadata = {"search_result_groups": GROUPS}
    assert citations.retry() == [" ([Site A](https://a.example/p))", " and on"]
    assert citations.is_idle


def test_a_target_that_does_not_come_is_waited_for_only_so_long() -> None:
    citations = rewriter()

    citations.feed(f"{S}cite{F}turn0search1{C}")
    pieces = citations.feed("x" * (HOLD + 1))

    assert pieces == ["x" * (HOLD + 1)]


def test_plain_text_that_passed_beside_counts_for_positions() -> None:
    citations = rewriter(citations=[{"start_ix": 5, "metadata": {"url": "https://a.example/", "title": "T"}}])

    assert citations.pass_plain("12345")
    assert not citations.pass_plain("【")

    assert citations.feed("【7†source】") == [" ([T](https://a.example/))"]


def test_a_pointer_keeps_its_place() -> None:
    assert rewriter().feed("a [n](sandbox:/mnt/data/f) b") == [
        "a ",
        SandboxLink("sandbox:/mnt/data/f", "n", False),
        " b",
    ]
