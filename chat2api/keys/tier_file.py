"""The file of tiers, read: every mistake in it is found at once and told with its line and field.

TOML; each table is a tier and its name the tier's. `docs/tiers.example.toml` shows all there is. A limit that is not
to be must be said in so many words (`unlimited`), and a misspelt name is a mistake, not something passed over.
"""

import re
import tomllib
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import cast

from chat2api.errors import ConfigError
from chat2api.keys.digests import find_digest, secret_digest
from chat2api.keys.issue import has_key_prefix
from chat2api.keys.terms import MAX_LIMIT, UNLIMITED
from chat2api.keys.tiers import PROVIDERS, ProviderName, Tier, TierModel
from chat2api.keys.toml_lines import TomlLines, TomlPath
from chat2api.protocol.openai.rules import SYSTEM_RULES, Rules, SystemRule
from chat2api.sentences import Phrases, Sentence
from chat2api.storage.keys import KeyLimits

MAX_FILE = 64 * 1024
"""Largest file, in bytes."""
MAX_TIERS, MAX_MODELS, MAX_BASES = 50, 200, 10
MAX_BASE, MAX_NOTICE, MAX_MODEL_NAME, MAX_SHARED_KEY = 128, 2000, 100, 200
MIN_SHARED_KEY = 4

PERSON_DEFAULTS = KeyLimits(requests_per_minute=10, requests_at_once=2)
"""What each person may where the file says nothing."""

_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,31}")
_SEGMENT = re.compile(r"[A-Za-z0-9._~-]+")
_FIELDS = (
    "base", "shared_key", "notice", "provider", "system", "text_only", "max_answer_tokens", "per_person", "models",
)  # fmt: skip
_PERSON_FIELDS = (
    "requests_per_minute", "tokens_per_minute", "requests_at_once", "requests_per_day", "tokens_per_day",
)  # fmt: skip
_MODEL_FIELDS = ("requests_per_minute", "tokens_per_minute")
_SWITCHES = ("on", "off", "true", "false", "yes", "no", "none")
"""Words that PUBLIC_MODE could not tell from a tier's name."""

SAY = Phrases(
    "tiers_file",
    {
        "too_large": "the file is larger than {most} bytes",
        "too_deep": "it is nested too deeply",
        "not_toml": "this is not TOML: {what}",
        "not_toml_at_end": "this is not TOML: {what}, where the file ends",
        "not_utf8": "this is not UTF-8",
        "unreadable": "The tiers' file {path} cannot be read: {why}.",
        "not_public": "PUBLIC_MODE names the tier {name}, but there is none; there are: {names}.",
        "no_tier": "there is no tier in it; the example in the documents shows one",
        "too_many_tiers": "there are more than {most} tiers",
        "wrong_name": "a tier's name has up to 32 small letters, digits, '-' and '_', and is none of {names}",
        "no_base": 'expected a path such as "/free", or an array of them',
        "too_many_bases": "expected at most {most} paths",
        "wrong_base": "'{base}' is no path of letters, digits, '.', '_', '~' and '-' that begins with '/'",
        "base_v1": "'{base}': leave /v1 out, clients and the server add it",
        "base_taken": "'{base}' lies under /{first}, where the server has other routes",
        "base_twice": "'{base}' is a path of the tier {name} already",
        "no_models": "a tier names its models and their limits",
        "wrong_models": "expected a table of 1 to {most} models",
        "wrong_model": "a model's name has 1 to {most} printable characters",
        "dotted_model": 'a name with a dot stands in quotes, such as "gpt-3.5-turbo"',
        "no_limit": 'expected a whole number or "{unlimited}"; it is not there',
        "wrong_limit": 'expected a whole number from 1 to {most}, or "{unlimited}"',
        "wrong_key": "expected {least} to {most} ASCII characters without blanks and commas",
        "key_issued": "this is how issued keys begin; choose another",
        "key_operator": "this is an operator key (AUTHORIZATION), which opens far more than a tier",
        "key_twice": "another tier has the same key",
        "no_table": "expected a table",
        "no_field": "there is no such field here; there are {names}",
        "no_text": "expected a text",
        "too_long": "expected at most {most} characters",
        "unprintable": "expected printable characters",
        "no_word": "expected one of {words}",
        "no_flag": "expected true or false",
    },
)


@dataclass(frozen=True, slots=True, order=True)
class Problem:
    """One mistake: the line, counted from 1, the field by its path in dots, and what is wrong.

    The field is "" where it is not one field's mistake, the line 0 where it is none in the text.
    """

    line: int
    field: str
    text: str

    def __str__(self) -> str:
        """Give it as one line of text."""
        if not self.line:
            return self.text
        return f"line {self.line}, {self.field}: {self.text}" if self.field else f"line {self.line}: {self.text}"


class TiersError(ConfigError):
    """A file of tiers cannot be used; `problems` has at least one entry, and the message a line for each."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        """Make the error for these mistakes."""
        self.problems = tuple(sorted(problems))
        super().__init__("\n  ".join(["The tiers' file (TIERS_FILE) cannot be used:", *map(str, self.problems)]))


def read_tiers(text: str, *, taken: Collection[str] = (), keys: Collection[str] = ()) -> tuple[Tier, ...]:
    """Give the tiers of a file's text, in its order.

    `taken` are the first segments of paths that other routes have, `keys` the operator's own. Raises TiersError.
    """
    if len(text.encode("utf-8", "surrogatepass")) > MAX_FILE:
        raise TiersError([Problem(1, "", SAY("too_large", most=MAX_FILE))])
    try:
        content = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise TiersError([_syntax_problem(str(error), text)]) from None
    except RecursionError:
        raise TiersError([Problem(1, "", SAY("too_deep"))]) from None
    reader = _Reader(content, frozenset(taken), tuple(secret_digest(key) for key in keys))
    tiers = reader.read()
    if reader.problems:
        lines = TomlLines(text)
        raise TiersError([
            Problem(lines.line_of(path), ".".join(path), complaint) for path, complaint in reader.problems
        ])  # fmt: skip
    return tiers


def _syntax_problem(message: str, text: str) -> Problem:
    place = re.search(r" \(at line (\d+), column \d+\)$", message)
    if place is not None:
        return Problem(int(place[1]), "", SAY("not_toml", what=message[: place.start()]))
    what = message.removesuffix(" (at end of document)")
    return Problem(text.rstrip("\n").count("\n") + 1, "", SAY("not_toml_at_end", what=what))


class _Reader:
    """Reads what the parser made of the file and gathers what is wrong, by path."""

    def __init__(self, content: Mapping[str, object], taken: frozenset[str], keys: tuple[bytes, ...]) -> None:
        self._content = content
        self._taken = taken
        self._operator_keys = keys
        self._bases: dict[str, str] = {}
        self._shared: dict[str, bytes] = {}
        self.problems: list[tuple[TomlPath, Sentence]] = []

    def read(self) -> tuple[Tier, ...]:
        """Give all tiers; they count only if there is no problem."""
        if not self._content:
            self._complain((), SAY("no_tier"))
        if len(self._content) > MAX_TIERS:
            self._complain((), SAY("too_many_tiers", most=MAX_TIERS))
            return ()
        return tuple(
            self._tier(name, table)
            for name, value in self._content.items()
            if (table := self._table((name,), value, _FIELDS)) is not None
        )

    def _tier(self, name: str, table: Mapping[str, object]) -> Tier:
        if not _NAME.fullmatch(name) or name in _SWITCHES:
            self._complain((name,), SAY("wrong_name", names=", ".join(_SWITCHES)))
        return Tier(
            name=name,
            bases=self._read_bases(name, table),
            models=self._models(name, table),
            per_person=self._per_person(name, table),
            rules=Rules(
                system=cast(SystemRule, self._word((name, "system"), table, SYSTEM_RULES) or "allow"),
                text_only=self._flag((name, "text_only"), table),
                max_answer_tokens=self._limit((name, "max_answer_tokens"), table, None),
            ),
            notice=self._text((name, "notice"), table, MAX_NOTICE),
            provider=cast("ProviderName | None", self._word((name, "provider"), table, PROVIDERS)),
            shared_key=self._shared_key(name, table),
        )

    # Fields with a meaning

    def _read_bases(self, name: str, table: Mapping[str, object]) -> tuple[str, ...]:
        path = (name, "base")
        value = table.get("base")
        bases = [value] if isinstance(value, str) else value
        if not isinstance(bases, list) or not bases or not all(isinstance(base, str) for base in bases):
            self._complain(path, SAY("no_base"))
            return ()
        if len(bases) > MAX_BASES:
            self._complain(path, SAY("too_many_bases", most=MAX_BASES))
            return ()
        return tuple(base for base in bases if self._is_good_base(path, base))

    def _is_good_base(self, path: TomlPath, base: str) -> bool:
        segments = base.split("/")[1:]
        if (
            not base.startswith("/")
            or len(base) > MAX_BASE
            or not all(_SEGMENT.fullmatch(segment) and segment not in (".", "..") for segment in segments)
        ):
            return self._complain(path, SAY("wrong_base", base=_shortened(base)))
        if "v1" in segments:
            return self._complain(path, SAY("base_v1", base=_shortened(base)))
        if segments[0] in self._taken:
            return self._complain(path, SAY("base_taken", base=_shortened(base), first=segments[0]))
        if base in self._bases:
            return self._complain(path, SAY("base_twice", base=_shortened(base), name=self._bases[base]))
        self._bases[base] = path[0]
        return True

    def _models(self, name: str, table: Mapping[str, object]) -> tuple[TierModel, ...]:
        path = (name, "models")
        value = table.get("models")
        if value is None:
            self._complain(path, SAY("no_models"))
            return ()
        if not isinstance(value, dict) or not 0 < len(value) <= MAX_MODELS:
            self._complain(path, SAY("wrong_models", most=MAX_MODELS))
            return ()
        models = []
        for model, terms in value.items():
            if not (0 < len(model) <= MAX_MODEL_NAME and model.isascii() and model.isprintable() and model.strip()):
                self._complain((*path, model), SAY("wrong_model", most=MAX_MODEL_NAME))
            if isinstance(terms, dict) and terms and all(isinstance(inner, dict) for inner in terms.values()):
                self._complain((*path, model), SAY("dotted_model"))
                continue
            if (limits := self._table((*path, model), terms, _MODEL_FIELDS)) is None:
                continue
            for missing in (field for field in _MODEL_FIELDS if field not in limits):
                self._complain((*path, model, missing), SAY("no_limit", unlimited=UNLIMITED))
            read = {field: self._limit((*path, model, field), limits, None) for field in _MODEL_FIELDS}
            models.append(TierModel(model, KeyLimits(**read, requests_at_once=None)))
        return tuple(models)

    def _per_person(self, name: str, table: Mapping[str, object]) -> KeyLimits:
        path = (name, "per_person")
        limits = self._table(path, table.get("per_person", {}), _PERSON_FIELDS)
        if limits is None:
            return PERSON_DEFAULTS
        read = {
            field.name: self._limit((*path, field.name), limits, getattr(PERSON_DEFAULTS, field.name))
            for field in fields(KeyLimits)
        }
        return KeyLimits(**read)

    def _shared_key(self, name: str, table: Mapping[str, object]) -> str:
        path = (name, "shared_key")
        key = self._text(path, table, MAX_SHARED_KEY)
        if not key:
            return ""
        digest = secret_digest(key)
        if len(key) < MIN_SHARED_KEY or not key.isascii() or " " in key or "," in key or "\n" in key:
            self._complain(path, SAY("wrong_key", least=MIN_SHARED_KEY, most=MAX_SHARED_KEY))
        elif has_key_prefix(key):
            self._complain(path, SAY("key_issued"))
        elif find_digest(digest, self._operator_keys) is not None:
            self._complain(path, SAY("key_operator"))
        elif find_digest(digest, tuple(self._shared.values())) is not None:
            self._complain(path, SAY("key_twice"))
        self._shared[name] = digest
        return key

    # Kinds of values

    def _table(self, path: TomlPath, value: object, allowed: Sequence[str]) -> Mapping[str, object] | None:
        if not isinstance(value, dict):
            self._complain(path, SAY("no_table"))
            return None
        for name in value:
            if name not in allowed:
                self._complain((*path, name), SAY("no_field", names=", ".join(allowed)))
        return value

    def _text(self, path: TomlPath, table: Mapping[str, object], longest: int) -> str:
        def check(value: object) -> Sentence | None:
            if not isinstance(value, str):
                return SAY("no_text")
            if len(value) > longest:
                return SAY("too_long", most=longest)
            printable = all(character.isprintable() or character == "\n" for character in value)
            return None if printable else SAY("unprintable")

        return cast(str, self._checked(path, table, check, "")).strip()

    def _word(self, path: TomlPath, table: Mapping[str, object], words: Sequence[str]) -> str | None:
        expected = SAY("no_word", words=", ".join(f'"{word}"' for word in words))
        return cast("str | None", self._checked(path, table, lambda value: None if value in words else expected, None))

    def _flag(self, path: TomlPath, table: Mapping[str, object]) -> bool:
        expected = SAY("no_flag")
        return self._checked(path, table, lambda value: None if isinstance(value, bool) else expected, False) is True

    def _limit(self, path: TomlPath, table: Mapping[str, object], default: int | None) -> int | None:
        def check(value: object) -> Sentence | None:
            if value == UNLIMITED:
                return None
            if isinstance(value, bool) or not isinstance(value, int) or not 0 < value <= MAX_LIMIT:
                return SAY("wrong_limit", most=MAX_LIMIT, unlimited=UNLIMITED)
            return None

        value = self._checked(path, table, check, default)
        return value if isinstance(value, int) else None

    def _checked(
        self, path: TomlPath, table: Mapping[str, object], check: Callable[[object], Sentence | None], default: object
    ) -> object:
        """Give a field's value; the default for one that is not there, or about which there is a complaint."""
        if path[-1] not in table:
            return default
        value = table[path[-1]]
        if (complaint := check(value)) is not None:
            self._complain(path, complaint)
            return default
        return value

    def _complain(self, path: TomlPath, text: Sentence) -> bool:
        self.problems.append((path, text))
        return False


def _shortened(text: str) -> str:
    return text[:64] if text.isprintable() else "…"
