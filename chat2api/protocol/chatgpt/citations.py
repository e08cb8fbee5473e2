"""The backend's markup inside text, made Markdown while the text is still arriving.

Theory of operation. Visible text carries three things that a caller cannot use as they are:

- citations since 2025: U+E200 kind U+E202 field … U+E201, with the targets in the message's metadata;
- citations of 2023 and 2024: 【n†source】, with the targets in `metadata.citations`, found by position;
- links to files of the code interpreter: `[name](sandbox:/mnt/data/…)`, which need one more call to be fetched.

Each may be cut anywhere between two deltas, and the target of a citation may come after its text. So text is held from
where markup may begin until it is closed, or clearly is none, or grows past a limit; a closed citation without a known
target waits, with what follows it, for the next change of the metadata or `HOLD` more characters. What cannot be
resolved is dropped, since private-use characters help nobody. Ordinary text passes with one search of one pattern.

Positions count code points of the raw text, markup included (seen in captures of 2024 and 2026; some exports of 2025
count from one, so a neighbour is accepted too).
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple
from urllib.parse import urlsplit

import orjson

from chat2api.protocol.chatgpt.patches import Json, text_of

OPEN, CLOSE, FIELD = "\ue200", "\ue201", "\ue202"
HOLD = 1024
"""Characters that may wait behind a citation whose target is not known yet."""
MAX_MARKUP = 16 * 1024
"""Characters after which an unclosed U+E200 is given up."""

_SPECIAL = re.compile("[\ue200-\ue20f【]|!?\\[|!\\Z|\\((?=sandbox:|s?a?n?d?b?o?x?\\Z)")
"""Where markup may begin; text without a match is plain."""

_BEGUN = re.compile("\ue200[a-z_]{0,40}(?:[\ue201\ue202{[]|\\Z)")
_REFERENCE = r"(?:\d{1,4}(?::\d{1,4})?|turn\d{1,3}[a-z_]{1,20}\d{1,4})"
_OLD = re.compile(rf"【(?:{_REFERENCE}†[^】\n]{{0,200}}|turn\d{{1,3}}[a-z_]{{1,20}}\d{{1,4}}|oaicite:\d{{1,4}})】")
_OLD_BEGUN = re.compile(
    r"【(?:\d{0,4}|\d{1,4}:\d{0,4}|t[urn]{0,3}\d{0,3}[a-z_]{0,20}\d{0,4}|o[aicte]{0,6}:?\d{0,4}"
    rf"|{_REFERENCE}†[^】\n]{{0,200}})\Z"
)
_IN_TARGET = r"[^()\n\ue200-\ue20f]"
_TARGET = rf"sandbox:(?:{_IN_TARGET}|\({_IN_TARGET}{{0,200}}\)){{1,1000}}"
"""A file's name may hold one pair of brackets: `report (1).xlsx`."""
_SANDBOX = re.compile(rf"(!?)\[([^\[\]\n\ue200-\ue20f]{{0,300}})\]\(({_TARGET})\)|()()\(({_TARGET})\)")
_SANDBOX_BEGUN = re.compile(rf"\(sandbox:(?:{_IN_TARGET}|\({_IN_TARGET}{{0,200}}\))*(?:\({_IN_TARGET}{{0,200}})?\Z")
_KIND = re.compile(r"([a-z_]+)([{[].*)", re.DOTALL)
_LABEL = re.compile(r"!?\[[^\[\]\n\ue200-\ue20f]{0,300}")
_SIGNS = re.compile("[\ue200-\ue20f]")
_REF = re.compile(r"turn(\d+)([a-z_]+)(\d+)")
_TRACKING = re.compile(r"([?&])utm_source=(?:chatgpt\.com|openai)(&|(?=#)|\Z)")
_IMAGE_NAME = re.compile(r"\.(?:png|jpe?g|gif|webp|bmp|svg)\Z", re.IGNORECASE)

_LINK_KINDS = frozenset({"cite", "url", "link", "link_title", "video", "navlist", "filecite", "businesses", "news"})


class SandboxLink(NamedTuple):
    """A link to a file of the code interpreter, in its place in the text."""

    pointer: str
    name: str
    is_image: bool


class Sources:
    """Targets of the citations of one message, read from its metadata when asked."""

    def __init__(self, elsewhere: Mapping[str, dict[str, Json]] | None = None) -> None:
        """Begin with nothing known; `elsewhere` holds the metadata of other messages that found something."""
        self.metadata: dict[str, Json] = {}
        self._elsewhere = {} if elsewhere is None else elsewhere

    def render(self, markup: str, start: int) -> str | None:
        """Give Markdown for a whole U+E200 … U+E201 that began at `start`; None while its target is not known."""
        fields = markup.strip(OPEN + CLOSE).split(FIELD)
        if len(fields) == 1 and (bare := _KIND.match(fields[0])):
            fields = [bare.group(1), bare.group(2)]
        kind = fields[0].strip()
        reference = self._reference(markup, start)
        if kind in ("entity", "product_entity"):
            return _alternative(reference) or _name_in_json(fields[-1])
        if kind not in _LINK_KINDS:
            # Pictures, maps, prices and widgets: nothing of them is text, unless the backend says how to put it.
            return _alternative(reference) or ""
        if kind == "navlist":
            links = _links_of(reference) or self._by_ids(fields[-1])
            return "".join(f"\n- [{label}]({url})" for label, url in links) + "\n" if links else None
        if kind in ("url", "link", "link_title", "video") and len(fields) > 2:
            return self._labelled(fields[1], fields[-1], reference)
        links = _links_of(reference) or self._by_ids(" ".join(fields[1:])) or _links_in(fields[1:])
        if links:
            return _in_brackets(links)
        if alternative := _alternative(reference):
            return alternative
        if reference is not None and (reference.get("status") == "done" or _is_hidden(reference, markup)):
            return ""
        return "" if kind == "filecite" else None

    def render_old(self, markup: str, start: int) -> str | None:
        """Give Markdown for a whole 【…】 that began at `start`; None while its target is not known."""
        if links := self._by_ids(markup):
            return _in_brackets(links)
        number = re.search(r"\d+", markup)
        by_number: Json = None
        for citation in _dicts(self.metadata.get("citations")):
            target = citation.get("metadata")
            if not isinstance(target, dict):
                continue
            begin = citation.get("start_ix")
            if isinstance(begin, int) and abs(begin - start) <= 1:
                return _target(target)
            extra = target.get("extra")
            if isinstance(extra, dict) and number and str(extra.get("cited_message_idx")) == number.group():
                by_number = target
        if links := _links_of(self._reference(markup, start)):
            return _in_brackets(links)
        return _target(by_number) if by_number is not None else None

    def _reference(self, markup: str, start: int) -> dict[str, Json] | None:
        near: dict[str, Json] | None = None
        for reference in _dicts(self.metadata.get("content_references")):
            if text_of(reference.get("matched_text")) == markup:
                if reference.get("start_idx") == start:
                    return reference
                near = near or reference
            elif near is None and reference.get("start_idx") == start and reference.get("type") != "hidden":
                near = reference
        return near

    def _by_ids(self, text: str) -> list[tuple[str, str]]:
        wanted = [(int(turn), kind, int(index)) for turn, kind, index in _REF.findall(text)]
        if not wanted:
            return []
        known: dict[tuple[Json, Json, Json], dict[str, Json]] = {}
        for entry in self._entries():
            for ref in [entry.get("ref_id"), *_dicts(entry.get("refs"))]:
                if isinstance(ref, dict):
                    key = (ref.get("turn_index"), ref.get("ref_type"), ref.get("ref_index"))
                    if all(isinstance(part, int | str) for part in key):
                        known.setdefault(key, entry)
        found = [known[key] for key in wanted if key in known]
        # Some of several may come later, but one link now is worth more than all of them too late.
        return _unique(link for entry in found if (link := _link(entry)))

    def _entries(self) -> Iterator[dict[str, Json]]:
        for metadata in (self.metadata, *self._elsewhere.values()):
            for group in _dicts(metadata.get("search_result_groups")):
                yield from _dicts(group.get("entries"))
        for reference in _dicts(self.metadata.get("content_references")):
            yield from _dicts(reference.get("items"))
            yield from _dicts(reference.get("sources"))

    def _labelled(self, label: str, target: str, reference: dict[str, Json] | None) -> str | None:
        links = _links_of(reference) or self._by_ids(target)
        url = links[0][1] if links else _clean_url(target.strip())
        if url is None:
            return None
        return f"[{_clean_label(label) or _host(url)}]({url})"


class CitationText:
    """Rewrites the text of one message as it arrives."""

    def __init__(self, sources: Sources, start: int = 0) -> None:
        """Begin at position `start` of the message's raw text."""
        self._sources = sources
        self._offset = start
        self._held = ""
        self._last = ""
        self._waits_for_source = False

    @property
    def is_idle(self) -> bool:
        """Whether nothing is held back."""
        return not self._held

    def pass_plain(self, text: str) -> bool:
        """Take text that needs no rewriting and give True: the caller passes it on as it is. Else do nothing."""
        if self._held or _SPECIAL.search(text) is not None:
            return False
        self._offset += len(text)
        self._last = text[-1:] or self._last
        return True

    def feed(self, text: str) -> list[str | SandboxLink]:
        """Give what can be told of the text by now, in order."""
        self._held += text
        if self._waits_for_source and len(self._held) <= HOLD:
            return []
        return self._advance(final=False)

    def retry(self) -> list[str | SandboxLink]:
        """Give what a change of the metadata sets free."""
        return self._advance(final=False) if self._waits_for_source else []

    def flush(self) -> list[str | SandboxLink]:
        """Give the rest: no more text follows for now."""
        return self._advance(final=True) if self._held else []

    def _advance(self, *, final: bool) -> list[str | SandboxLink]:
        out: list[str | SandboxLink] = []
        held, position = self._held, 0
        self._waits_for_source = False
        while True:
            found = _SPECIAL.search(held, position)
            if found is None:
                self._pass(out, held[position:])
                position = len(held)
                break
            self._pass(out, held[position : found.start()])
            position = found.start()
            length = self._markup(out, held, position, final=final)
            if length == 0:
                break
            position += length
        self._held = held[position:]
        return out

    def _pass(self, out: list[str | SandboxLink], text: str) -> None:
        if text:
            out.append(text)
            self._last = text[-1]
            self._offset += len(text)

    def _markup(self, out: list[str | SandboxLink], held: str, at: int, *, final: bool) -> int:
        """Deal with what begins at `at`; give how much of it was used up, 0 to hold it."""
        character = held[at]
        if character == OPEN:
            return self._reference(out, held, at, final=final)
        if character == "【":
            return self._old_reference(out, held, at, final=final)
        if character in "[!(":
            return self._sandbox_link(out, held, at, final=final)
        self._offset += 1
        return 1

    def _reference(self, out: list[str | SandboxLink], held: str, at: int, *, final: bool) -> int:
        begun = _BEGUN.match(held, at)
        following = held.find(OPEN, at + 1, at + MAX_MARKUP)
        limit = following if following >= 0 else min(len(held), at + MAX_MARKUP)
        end = held.find(CLOSE, at, limit) if begun else -1
        if end < 0:
            line_end = held.find("\n\n", at, limit)
            if begun and not final and line_end < 0 and limit == len(held) and limit - at < MAX_MARKUP:
                return 0
            # A stray sign goes alone; what did begin as markup and was cut says nothing and goes with it.
            length = (line_end if line_end >= 0 else limit) - at if begun and limit - at < MAX_MARKUP else 1
            self._offset += length
            return length
        markup = held[at : end + 1]
        return self._resolved(out, held, at, markup, self._sources.render(markup, self._offset), final=final)

    def _old_reference(self, out: list[str | SandboxLink], held: str, at: int, *, final: bool) -> int:
        if whole := _OLD.match(held, at):
            markup = whole.group()
            return self._resolved(out, held, at, markup, self._sources.render_old(markup, self._offset), final=final)
        if not final and len(held) - at < 220 and _OLD_BEGUN.match(held, at):
            return 0
        self._pass(out, "【")
        return 1

    def _resolved(
        self, out: list[str | SandboxLink], held: str, at: int, markup: str, rendered: str | None, *, final: bool
    ) -> int:
        if rendered is None and not final and len(held) - at <= HOLD:
            self._waits_for_source = True
            return 0
        if rendered:
            needs_blank = rendered.startswith("(") and self._last not in ("", " ", "\n", "(", "\u3000")
            out.append(f" {rendered}" if needs_blank else rendered)
            self._last = rendered[-1]
        self._offset += len(markup)
        return len(markup)

    def _sandbox_link(self, out: list[str | SandboxLink], held: str, at: int, *, final: bool) -> int:
        if whole := _SANDBOX.match(held, at):
            bang, label, pointer = whole.group(1), whole.group(2), whole.group(3) or whole.group(6)
            pointer = pointer.split(' "')[0].strip()
            name = label or pointer.rpartition("/")[2]
            out.append(SandboxLink(pointer, name, bool(bang) or _IMAGE_NAME.search(pointer) is not None))
            self._last = ")"
            self._offset += len(whole.group())
            return len(whole.group())
        if not final and _may_become_link(held[at : at + 1400]):
            return 0
        self._pass(out, held[at])
        return 1


def _may_become_link(text: str) -> bool:
    if text == "!":
        return True
    label = _LABEL.match(text)
    rest = text[label.end() :] if label else text
    if label:
        if not rest:
            return label.end() < 302
        if rest[0] != "]":
            return False
        rest = rest[1:]
    if "(sandbox:".startswith(rest):
        return True
    return len(rest) < 1010 and _SANDBOX_BEGUN.match(rest) is not None


def _is_hidden(reference: dict[str, Json], markup: str) -> bool:
    """Whether the backend knows the whole markup and shows nothing; while markup grows it counts as hidden too."""
    return reference.get("type") == "hidden" and text_of(reference.get("matched_text")) == markup


def _dicts(value: Json) -> list[dict[str, Json]]:
    return [item for item in value if type(item) is dict] if type(value) is list else []


def _clean_url(url: str) -> str | None:
    """Give the address fit for Markdown and without the tracking that the website adds; None for other schemes."""
    if not url.startswith(("https://", "http://")) or len(url) > 4096:
        return None
    url = _TRACKING.sub(lambda match: match.group(1) if match.group(2) else "", url)
    return url.replace(" ", "%20").replace("(", "%28").replace(")", "%29").replace("\n", "")


def _clean_label(label: str) -> str:
    return " ".join(_SIGNS.sub("", label).replace("[", "(").replace("]", ")").split())


def _link(item: dict[str, Json]) -> tuple[str, str] | None:
    url = _clean_url(text_of(item.get("url")))
    if url is None:
        return None
    label = text_of(item.get("attribution")) or text_of(item.get("title")) or _host(url)
    return _clean_label(label) or _host(url), url


def _host(url: str) -> str:
    try:
        return urlsplit(url).netloc.removeprefix("www.")
    except ValueError:
        return "link"


def _unique(links: Iterable[tuple[str, str]]) -> list[tuple[str, str]]:
    return list({url: (label, url) for label, url in links}.values())


def _links_of(reference: dict[str, Json] | None) -> list[tuple[str, str]]:
    if reference is None:
        return []
    found = []
    for item in _dicts(reference.get("items")) or _dicts(reference.get("fallback_items")) or [reference]:
        if link := _link(item):
            found.append(link)
        found.extend(link for site in _dicts(item.get("supporting_websites")) if (link := _link(site)))
    return _unique(found)


def _links_in(fields: list[str]) -> list[tuple[str, str]]:
    """Give the addresses that stand in the markup itself."""
    urls = [url for field in fields if (url := _clean_url(field.strip()))]
    return _unique((_host(url), url) for url in urls)


def _in_brackets(links: list[tuple[str, str]]) -> str:
    return "(" + ", ".join(f"[{label}]({url})" for label, url in links) + ")"


def _target(target: dict[str, Json]) -> str:
    link = _link({"url": target.get("url"), "title": text_of(target.get("title")) or text_of(target.get("name"))})
    return _in_brackets([link]) if link else ""


def _alternative(reference: dict[str, Json] | None) -> str:
    """Give the backend's own Markdown for a reference, as its website copies it to the clipboard."""
    text = text_of(reference.get("alt")) if reference else ""
    return _SIGNS.sub("", re.sub(r"[?&]utm_source=chatgpt\.com(?=[)&\s#]|\Z)", "", text)).strip()


def _name_in_json(text: str) -> str:
    """Give the name in `["software","Node.js","javascript runtime"]` or `["turn0product1","Name"]`."""
    try:
        values = orjson.loads(text)
    except orjson.JSONDecodeError:
        return ""
    names = [value for value in values if isinstance(value, str)] if isinstance(values, list) else []
    return _SIGNS.sub("", names[1]) if len(names) > 1 else ""
