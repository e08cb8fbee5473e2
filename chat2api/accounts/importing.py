"""What an operator pastes or uploads: found, judged against what is known, and saved.

Tokens come in many wrappings: one a line, `token,account-id`, header and cookie lines as a browser's network page shows
them, JSON exports of other programs, the web session's JSON, recordings of a browser's traffic. All of them are
searched for tokens of a known form; nothing else of them is kept, and no answer repeats a token.
"""

import asyncio
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from chat2api.accounts.tokens import (
    SESSION_SEPARATOR,
    Credential,
    UnusableTokenError,
    is_workspace,
    session_cookie,
    split_workspace,
    tell_kind,
    to_credential,
    to_new_account,
)
from chat2api.sentences import Phrases, Sentence
from chat2api.storage.records import Records
from chat2api.storage.values import AccountKind, Added, Known, NewAccount

MAX_DEPTH = 64
"""How deep JSON is searched."""

LONG_TRIES = 20
"""How many damaged values are looked for beyond their line: each look may read all of the text."""

MAX_PROBLEMS = 1000
"""Unreadable lines after which the rest is left: somebody took the wrong file."""

SAVED_AT_ONCE = 50
"""How many accounts are saved between two words on the progress."""

SAY = Phrases(
    "preview",
    {
        "new": "A new account.",
        "expired": "This AccessToken has ended. Get a new one, or use a RefreshToken.",
        "known": "This is account {label}, which takes over what is new in it.",
        "removed": "This is account {label}, which was removed and comes back.",
        "repeated": "The same account as on line {line}.",
        "field": "A field {name} holds no token of a known form.",
        "json": "This JSON is damaged or holds no token of a known form.",
        "too_much": "Too much cannot be read; what follows was not looked at.",
    },
)
"""What a preview says of a line."""

_SESSION_COOKIE = "__Secure-next-auth.session-token"
_ACCESS_FIELDS = ("access_token", "accessToken", "token")
_RENEWABLE_FIELDS = ("refresh_token", "refreshToken", "rt", "session_token", "sessionToken", _SESSION_COOKIE)
_WORKSPACE_FIELDS = ("account_id", "accountId", "chatgpt_account_id", "team_id", "chatgpt-account-id")
_TELLING_FIELDS = frozenset((*_ACCESS_FIELDS, *_RENEWABLE_FIELDS)) - {"token", "rt"}
"""Fields in which nothing but a token is expected, so that anything else is worth a word."""

_BEARER = re.compile(r"(?:authorization\s*:\s*)?bearer\s+(\S+)", re.IGNORECASE)
_COOKIES = re.compile(rf"(?:cookie\s*:\s*)?(.*{re.escape(_SESSION_COOKIE)}.*)", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class ImportProblem:
    """A line that could not be used. The message never repeats the line."""

    line: int
    message: Sentence


@dataclass(frozen=True, slots=True)
class Import:
    """What an import text holds."""

    credentials: tuple[Credential, ...]
    problems: tuple[ImportProblem, ...]


@dataclass(frozen=True, slots=True)
class ImportEntry:
    """One finding of a preview, in the order of the lines (JSON: the line on which its value begins).

    new: an account that is not here yet. known: it is `label`, and saving gives it these tokens. expired: an AccessToken
    that has ended and cannot be renewed; saving leaves it out. unreadable: `text` says why. `kind`, `label`, `email`
    (masked), `plan` and `workspace_id` are None where nothing is known.
    """

    line: int
    verdict: Literal["new", "known", "expired", "unreadable"]
    text: Sentence
    kind: AccountKind | None = None
    label: str | None = None
    email: str | None = None
    plan: str | None = None
    workspace_id: str | None = None
    expires_at: float | None = None


@dataclass(frozen=True, slots=True)
class Saved:
    """What became of an import: one Added for each account saved, and what was left out."""

    added: tuple[Added, ...]
    expired: int
    problems: tuple[ImportProblem, ...]


def parse_import(text: str) -> Import:
    """Read pasted or uploaded text: one token a line with `#` comments, `token,account-id`, or JSON.

    JSON is searched for token fields at any depth; tokens of one object belong to one account. Several JSON values,
    one after the other, work too. The same token twice counts once.
    """
    credentials: list[Credential] = []
    problems: list[ImportProblem] = []
    lines = text.splitlines(keepends=True)
    decoder = json.JSONDecoder()
    number, tries = 0, LONG_TRIES
    while number < len(lines):
        line = lines[number].strip("\ufeff \t\r\n\"',")
        number += 1
        if not line or line.startswith("#"):
            continue
        if len(problems) >= MAX_PROBLEMS:
            problems.append(ImportProblem(number, SAY("too_much")))
            break
        if line.startswith(("{", "[")):
            first = number
            value, number = _read_json(decoder, lines, number - 1, beyond_line=tries > 0)
            tries -= value is None
            search = _Search(first)
            search.value(value)
            credentials += search.found
            problems += search.problems()
            continue
        try:
            credentials.append(_read_line(line, number))
        except UnusableTokenError as error:
            problems.append(ImportProblem(number, error.sentence))
    return Import(tuple(_without_repeats(credentials)), tuple(problems))


async def preview_import(text: str, records: Records, now: float) -> tuple[ImportEntry, ...]:
    """Say what saving this text would do, line by line; nothing is changed."""
    found, new = await asyncio.to_thread(_read, text)
    entries = [ImportEntry(problem.line, "unreadable", problem.message) for problem in found.problems]
    seen: dict[str, int] = {}
    for credential, one, known in zip(found.credentials, new, await records.known_accounts(new), strict=True):
        entries.append(_judge(credential, one, known, seen, now))
    return tuple(sorted(entries, key=lambda entry: entry.line))


async def save_import(
    text: str, records: Records, now: float, *, on_progress: Callable[[int, int], None] | None = None
) -> Saved:
    """Save the accounts of a text, but for AccessTokens that have ended. `on_progress` is told (done, total)."""
    found, every = await asyncio.to_thread(_read, text)
    new = [one for one in every if not _has_ended(one, now)]
    added: list[Added] = []
    for start in range(0, len(new), SAVED_AT_ONCE):
        added += await records.add_accounts(new[start : start + SAVED_AT_ONCE], now)
        if on_progress is not None:
            on_progress(len(added), len(new))
    return Saved(tuple(added), len(every) - len(new), found.problems)


def _read(text: str) -> tuple[Import, list[NewAccount]]:
    """Read an import and what its tokens tell: a second's work for a long one, so not for the event loop's thread."""
    found = parse_import(text)
    return found, [to_new_account(credential) for credential in found.credentials]


def _judge(credential: Credential, new: NewAccount, known: Known, seen: dict[str, int], now: float) -> ImportEntry:
    account = known.account
    verdict: Literal["new", "known", "expired"] = "new"
    text = SAY("new")
    label = account.label if account is not None else known.label
    if _has_ended(new, now):
        verdict, text = "expired", SAY("expired")
    elif account is not None:
        verdict = "known"
        text = SAY("known", label=label)
        if account.deleted_at is not None:
            text = SAY("removed", label=label)
    elif known.merge_key in seen:
        verdict, text = "known", SAY("repeated", line=seen[known.merge_key])
    if known.merge_key is not None and verdict != "expired":
        seen.setdefault(known.merge_key, credential.line)
    return ImportEntry(
        credential.line,
        verdict,
        text,
        credential.kind,
        label,
        new.identity.email or (account.email if account is not None else None),
        new.identity.plan or (account.plan if account is not None else None),
        new.workspace_id or new.identity.home_workspace_id,
        new.expires_at,
    )


def _has_ended(new: NewAccount, now: float) -> bool:
    return new.secrets.renewable is None and new.expires_at is not None and new.expires_at <= now


def _read_line(line: str, number: int) -> Credential:
    """Read a token, or a header or cookie line that holds one; UnusableTokenError when there is none."""
    bearer = _BEARER.fullmatch(line)
    if bearer is not None:
        line = bearer[1]
    elif (cookies := _COOKIES.fullmatch(line)) is not None:
        token = _session_of(_read_cookies(cookies[1]))
        if token is not None:
            return to_credential(token, line=number)
    return to_credential(*split_workspace(line), line=number)


def _read_json(decoder: json.JSONDecoder, lines: Sequence[str], index: int, *, beyond_line: bool) -> tuple[object, int]:
    """Give the JSON value that begins on that line, and the index of the line after it; None for a damaged one."""
    try:
        return decoder.decode(lines[index].strip("\ufeff \t\r\n,")), index + 1
    except (json.JSONDecodeError, RecursionError):
        if not beyond_line:
            return None, index + 1
        rest = "".join(lines[index:]).lstrip("\ufeff \t\r\n")
    try:
        value, end = decoder.raw_decode(rest)
    except (json.JSONDecodeError, RecursionError):
        return None, index + 1
    return value, index + len(rest[:end].splitlines())


class _Search:
    """Looks through one JSON value and collects its credentials, in the order in which they stand."""

    def __init__(self, line: int) -> None:
        self.found: list[Credential] = []
        self._line = line
        self._odd_fields: dict[str, None] = {}

    def problems(self) -> Iterator[ImportProblem]:
        """Give what is worth a word: fields with something else in them, or nothing at all."""
        for name in self._odd_fields:
            yield ImportProblem(self._line, SAY("field", name=name))
        if not self.found and not self._odd_fields:
            yield ImportProblem(self._line, SAY("json"))

    def value(self, value: object, depth: int = 0) -> None:
        """Search a decoded value."""
        if depth > MAX_DEPTH:
            return
        if isinstance(value, str):
            self._text(value, depth)
        elif isinstance(value, list):
            pairs = _named_values(value)
            if pairs:
                self._object(pairs)
            for item in value:
                self.value(item, depth + 1)
        elif isinstance(value, dict):
            # A recorded request's headers and cookies are one object: they belong to one account.
            together = {**_named_values(value.get("cookies")), **_named_values(value.get("headers"))}
            self._object({**together, **value})
            for name, item in value.items():
                if isinstance(item, dict | list):
                    # 2024's refresh_map.json has the RefreshToken as the name of the entry.
                    if tell_kind(name) == "refresh":
                        self.found.append(to_credential(name, line=self._line))
                    elif not (together and name in ("cookies", "headers")):
                        self.value(item, depth + 1)
                elif name == "text" and isinstance(item, str) and item.lstrip()[:1] in ("{", "["):
                    self._embedded(item, depth)

    def _text(self, text: str, depth: int) -> None:
        """Take a list's plain token or `token,account-id`; a device id only from a list of nothing else."""
        try:
            credential = to_credential(*split_workspace(text), line=self._line)
        except ValueError:
            return
        if credential.kind != "device" or depth <= 1:
            self.found.append(credential)

    def _embedded(self, text: str, depth: int) -> None:
        """Search a recorded answer, which is a text that holds JSON."""
        try:
            value = json.loads(text)
        except (json.JSONDecodeError, RecursionError):
            return
        odd = dict(self._odd_fields)
        self.value(value, depth + 1)
        self._odd_fields = odd  # what the website says in fields of such names is not the operator's mistake

    def _object(self, value: Mapping[str, object]) -> None:
        workspace = _first_text(value, _WORKSPACE_FIELDS)
        if workspace is not None and not is_workspace(workspace):
            workspace = None
        access = renewable = None
        kind: AccountKind = "access"
        session = _session_of(value)
        for token in (*(_text(value.get(name)) for name in _RENEWABLE_FIELDS), session):
            told = tell_kind(token) if token else None
            if token and told in ("refresh", "session"):
                kind, renewable = ("refresh", token) if told == "refresh" else ("session", session_cookie(token))
                break
        for name in _ACCESS_FIELDS:
            token = _text(value.get(name))
            told = tell_kind(token) if token else None
            if token and told == "access":
                access = token
                break
            if token and told is not None and renewable is None:
                try:
                    self.found.append(to_credential(token, workspace, line=self._line))
                except ValueError:
                    continue
                return
        if access is not None or renewable is not None:
            self.found.append(Credential(self._line, kind, access=access, renewable=renewable, workspace_id=workspace))
            return
        for name in _TELLING_FIELDS & value.keys():
            if _text(value[name]) is not None:
                self._odd_fields[name] = None


def _named_values(value: object) -> dict[str, object]:
    """Give what a list of {"name", "value"} says of tokens: cookies as browsers export them, recorded headers."""
    found: dict[str, object] = {}
    if not isinstance(value, list):
        return found
    for item in value:
        if not isinstance(item, dict):
            continue
        name, text = _text(item.get("name")), _text(item.get("value"))
        if name is None or text is None:
            continue
        lower = name.lower()
        if name.startswith(_SESSION_COOKIE):
            found[name] = text
        elif lower == "authorization" and (bearer := _BEARER.fullmatch(text)) is not None:
            found["token"], workspace = split_workspace(bearer[1])
            if workspace is not None:
                found["account_id"] = workspace
        elif lower == "cookie":
            found |= _read_cookies(text)
        elif lower == "chatgpt-account-id":
            found["account_id"] = text
    return found


def _read_cookies(text: str) -> dict[str, str]:
    """Give the session's cookies of a `name=value; name=value` line."""
    pairs = (part.strip().partition("=") for part in text.split(";"))
    return {name: value for name, _, value in pairs if name.startswith(_SESSION_COOKIE) and value}


def _session_of(cookies: Mapping[str, object]) -> str | None:
    """Give the session token that cookies hold, its chunks joined in their order."""
    whole = _text(cookies.get(_SESSION_COOKIE))
    if whole is not None:
        return whole
    chunks: list[str] = []
    while (chunk := _text(cookies.get(f"{_SESSION_COOKIE}.{len(chunks)}"))) is not None:
        chunks.append(chunk)
    return SESSION_SEPARATOR.join(chunks) or None


def _without_repeats(credentials: Sequence[Credential]) -> Iterator[Credential]:
    """Leave out what stands there twice, and an AccessToken alone that stands elsewhere with what renews it."""
    renewed = {(one.access, one.workspace_id) for one in credentials if one.access and one.renewable}
    seen: set[tuple[str | None, str | None]] = set()
    for credential in credentials:
        if credential.renewable is None and (credential.access, credential.workspace_id) in renewed:
            continue
        key = (credential.renewable or credential.access or credential.device_id, credential.workspace_id)
        if key not in seen:
            seen.add(key)
            yield credential


def _text(value: object) -> str | None:
    return value if isinstance(value, str) and value else None


def _first_text(values: Mapping[str, object], names: tuple[str, ...]) -> str | None:
    return next((text for name in names if (text := _text(values.get(name)))), None)
