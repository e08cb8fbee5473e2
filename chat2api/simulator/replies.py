"""What the simulated model says: small, deterministic, and about what was asked."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import overload

_LISTS = {
    "river": ("Nile", "Amazon", "Danube", "Mekong", "Volga", "Rhine", "Ganges", "Loire", "Yukon", "Zambezi"),
    "city": ("Lisbon", "Nairobi", "Osaka", "Quito", "Tallinn", "Perth", "Montreal", "Hanoi", "Turin", "Accra"),
    "color": ("red", "blue", "green", "amber", "violet", "teal", "ochre", "white", "indigo", "coral"),
    "animal": ("otter", "heron", "lynx", "badger", "tapir", "gecko", "ibex", "puffin", "bison", "newt"),
    "planet": ("Mercury", "Venus", "Earth", "Mars", "Jupiter", "Saturn", "Uranus", "Neptune"),
}
_SPELLINGS = {"colour": "color", "cities": "city"}
_NUMBERS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")

_NAME = re.compile(rf"\b(?:name|list)\s+(\d+|{'|'.join(_NUMBERS)})\s+(?:\w+\s+)?(\w+)", re.IGNORECASE)
_ECHO = re.compile(r"^\s*(?:please\s+)?(?:say|repeat|echo)(?:\s+after me)?\s*[:,]?\s+(.+)$", re.IGNORECASE | re.DOTALL)
_COUNT = re.compile(r"\b(?:how many words|count the words)\b[^:\n]*[:\n]?\s*(.*)", re.IGNORECASE | re.DOTALL)
_RECALL = re.compile(r"\bwhat (?:did|have) (?:i|I) (?:say|said|ask|asked|write|written)\b", re.IGNORECASE)
_SUM = re.compile(r"(-?\d{1,9})\s*([-+*x×])\s*(-?\d{1,9})")
_PIECES = re.compile(r"\s*\S+|\s+$")


@dataclass(frozen=True, slots=True)
class NumberedWords(Sequence[str]):
    """Pieces for load: `word1 `, `word2 ` and so on from `first` to `last`, made when they are asked for."""

    first: int
    last: int

    def __len__(self) -> int:
        """Give how many there are."""
        return max(0, self.last - self.first + 1)

    def __iter__(self) -> Iterator[str]:
        """Give them in order."""
        return (f"word{number} " for number in range(self.first, self.last + 1))

    @overload
    def __getitem__(self, index: int) -> str: ...

    @overload
    def __getitem__(self, index: slice) -> "NumberedWords": ...

    def __getitem__(self, index: int | slice) -> "str | NumberedWords":
        """Give one word, or a run of words; slices have no step. Raises IndexError."""
        numbers = range(self.first, self.last + 1)[index]
        if isinstance(numbers, range):
            return NumberedWords(numbers.start, numbers.stop - 1)
        return f"word{numbers} "


def cut_words(text: str) -> list[str]:
    """Cut a text into pieces of one word each, blanks in front; joined they are the text again."""
    return _PIECES.findall(text)


def compose_reply(prompts: Sequence[str], pictures: int = 0) -> str:
    """Give the answer to the last of the user's messages; `pictures` were sent with it."""
    prompt = prompts[-1].strip() if prompts else ""
    for rule in (_name_things, _count_words, _add_up, _echo):
        if (answer := rule(prompt)) is not None:
            return answer
    if _RECALL.search(prompt) and len(prompts) > 1:
        earlier = "\n".join(f"{number}. {_quote(text)}" for number, text in enumerate(prompts[:-1], 1))
        return f"Before this you wrote:\n\n{earlier}"
    return _demo_answer(prompt, pictures)


def compose_title(prompt: str) -> str:
    """Give a chat title of at most five words."""
    words = re.findall(r"\w+", prompt)[:5]
    return " ".join(words).capitalize() if words else "New chat"


def _name_things(prompt: str) -> str | None:
    match = _NAME.search(prompt)
    if match is None:
        return None
    count = int(match[1]) if match[1].isdigit() else _NUMBERS.index(match[1].lower())
    kind = match[2].lower()
    things = _LISTS.get(_SPELLINGS.get(kind, kind).removesuffix("s"))
    things = things or _LISTS.get(_SPELLINGS.get(kind.removesuffix("s"), ""))
    if things is None or not 0 < count <= len(things):
        return None
    return ", ".join(things[:count]) + "."


def _count_words(prompt: str) -> str | None:
    match = _COUNT.search(prompt)
    if match is None or not match[1].strip():
        return None
    count = len(match[1].split())
    return f"There {'is 1 word' if count == 1 else f'are {count} words'} in it."


def _add_up(prompt: str) -> str | None:
    match = _SUM.search(prompt)
    if match is None:
        return None
    left, right = int(match[1]), int(match[3])
    result = {"+": left + right, "-": left - right}.get(match[2], left * right)
    return f"{match[1]} {match[2]} {match[3]} = {result}"


def _echo(prompt: str) -> str | None:
    match = _ECHO.match(prompt)
    return match[1].strip() if match is not None else None


def _demo_answer(prompt: str, pictures: int) -> str:
    seen = f" and {pictures} picture{'s' if pictures > 1 else ''}" if pictures else ""
    return (
        f"Hello! You are talking to the **built-in simulator**, so no account was used and nothing left your machine. "
        f"I received this{seen}:\n\n"
        f"> {_quote(prompt)}\n\n"
        f"That was {_plural(len(prompt.split()), 'word')} and {_plural(len(prompt), 'character')}. "
        "A few things to try:\n\n"
        "- `Name three rivers.`\n"
        "- `How many words: the quick brown fox`\n"
        "- `Say: it works`\n\n"
        "When you are ready, add a real account and ask the same question again."
    )


def _plural(count: int, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def _quote(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= 200 else line[:199] + "…"
