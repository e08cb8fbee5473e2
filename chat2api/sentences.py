"""Sentences of ours that pages can say in their reader's language.

Everywhere else a `Sentence` is the English text that it is: in logs, in JSON, on the command line. It also remembers which
text of the catalogues says the same, and what is filled in there.
"""

from collections.abc import Mapping


class Sentence(str):
    """An English sentence with the name under which the catalogues have it.

    `values` are what is filled in; those that are sentences themselves are said in the reader's language too. None stands
    for an error's own words: the catalogues say less than these, so that pages show both.
    """

    __slots__ = ("name", "values")

    name: str
    values: Mapping[str, object] | None

    def __new__(cls, english: str, name: str, values: Mapping[str, object] | None) -> "Sentence":
        """Make a sentence."""
        made = super().__new__(cls, english)
        made.name = name
        made.values = values
        return made

    def __getnewargs__(self) -> tuple[str, str, Mapping[str, object] | None]:  # type: ignore[override]  # copies need all
        return str(self), self.name, self.values


class Phrases:
    """The sentences of one section of the catalogues, in English. The section of `en.toml` says the very same."""

    def __init__(self, section: str, phrases: Mapping[str, str]) -> None:
        """Have these sentences, by the last part of their names; `{names}` in them are filled in when they are said."""
        self.section = section
        self.phrases = phrases

    def __call__(self, key: str, /, **values: object) -> Sentence:
        """Say one. KeyError for an unknown one."""
        return Sentence(self.phrases[key].format_map(values), f"{self.section}.{key}", values)

    def __contains__(self, key: object) -> bool:
        return key in self.phrases


def words_of_error(message: str, code: str | None) -> Sentence:
    """Give an error's message as a sentence: pages in other languages say first what its code means."""
    return Sentence(message, f"reason.{code or 'internal_error'}", None)
