"""All that pages say, in each language: one catalogue file a language, chosen for each request.

A text is named by section and key (`login.title`) and may hold `{names}` that are filled in when it is used. Templates hold
no sentence of their own, so that a page is never half translated.
"""

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from chat2api.sentences import Sentence

DEFAULT = "en"


@dataclass(frozen=True, slots=True)
class Catalogue:
    """The texts of one language. `tag` is its BCP 47 tag, `name` what its speakers call it."""

    tag: str
    name: str
    texts: Mapping[str, str]

    def get(self, name: str, /, **values: object) -> str:
        """Give a text with its names filled in. KeyError for an unknown one: that is a mistake in a template."""
        return self.texts[name].format_map(values) if values else self.texts[name]

    def say(self, text: str) -> str | None:
        """Give a sentence of ours in this language, as it is where it is plain text of English; None where it has no words."""
        if not isinstance(text, Sentence):
            return text if self.tag == DEFAULT else None
        if text.values is None and self.tag == DEFAULT:
            return text
        found = self.find(text.name)
        if found is None or not text.values:
            return found
        return found.format_map({name: self._filled(value) for name, value in text.values.items()})

    def _filled(self, value: object) -> object:
        return (self.say(value) or value) if isinstance(value, Sentence) else value

    def find(self, name: str) -> str | None:
        """Give a text that may not be there, such as the words for an error's code."""
        return self.texts.get(name)


def load_catalogues(folder: Path) -> dict[str, Catalogue]:
    """Read every `*.toml` of a folder; the file's name is the language's tag, its `name` stands at the top."""
    catalogues = {}
    for path in sorted(folder.glob("*.toml")):
        with path.open("rb") as file:
            content = tomllib.load(file)
        texts = {
            f"{section}.{key}": text
            for section, part in content.items()
            if section != "name"
            for key, text in part.items()
        }
        catalogues[path.stem] = Catalogue(path.stem, content["name"], texts)
    return catalogues


def choose_language(chosen: str | None, accepted: str, known: Mapping[str, object]) -> str:
    """Give the language of a request: what its sender chose before, else the best of Accept-Language, else English."""
    if chosen in known:
        return str(chosen)
    wishes: list[tuple[float, int, str]] = []
    for place, item in enumerate(accepted.split(",")[:20]):
        tag, _, parameter = item.strip().partition(";")
        try:
            weight = float(parameter.strip().removeprefix("q=")) if parameter else 1.0
        except ValueError:
            continue
        if tag and 0 < weight <= 1:
            wishes.append((-weight, place, tag.strip().lower()))
    for _, _, wish in sorted(wishes):
        for tag in known:
            # Simplified Chinese is what there is for any Chinese; a reader of the traditional script can read it too.
            if wish == tag.lower() or wish.partition("-")[0] == tag.lower().partition("-")[0]:
                return tag
    return DEFAULT
