"""What can be seen in the repository without running it: no secrets, no dangerous calls, locked requirements."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
SOURCES = sorted((ROOT / "chat2api").rglob("*.py"))
TEXTS = (".py", ".c", ".h", ".md", ".txt", ".in", ".toml", ".yml", ".yaml", ".html", ".css", ".js", ".json", ".sse", "")

SECRETS = {
    "a signed token": rb"eyJ[\w-]{12,}\.eyJ[\w-]{30,}\.[\w-]{40,}",
    "an API key": rb"\bsk-(?:proj-)?[A-Za-z0-9]{40,}",
    "a refresh token": rb"\brt_[A-Za-z0-9]{2}[A-Za-z0-9_.-]{60,}",
    "a private key": rb"-----BEGIN (?:[A-Z]+ )?PRIVATE KEY-----\s+[A-Za-z0-9+/=]{40,}",
    "a host's token": rb"\b(?:ghp|gho|ghs|glpat|xox[abp])[_-][A-Za-z0-9_-]{20,}|\bAKIA[0-9A-Z]{16}\b",
}
"""What secrets of this field and of code hosts look like."""


def repository() -> Iterator[Path]:
    """Give the files that belong to the project: no environment, no caches, no data of a server that ran here."""
    left_out = {"build", "data", "output", "dist", "__pycache__"}
    for path in sorted(ROOT.rglob("*")):
        parts = path.relative_to(ROOT).parts
        hidden = any(part.startswith(".") and part not in (".ci", ".env.example", ".dockerignore") for part in parts)
        if parts[0] in left_out or "__pycache__" in parts or parts[0].endswith(".egg-info") or hidden:
            continue
        if path.is_file() and path.suffix in TEXTS:
            yield path


def secrets_in(data: bytes) -> list[str]:
    """Name the kinds of secrets that occur; what spells the alphabet was made up for a test."""
    return [
        kind
        for kind, pattern in SECRETS.items()
        if any(b"abcdefghij" not in found[0] for found in re.finditer(pattern, data))
    ]


def test_T6_the_repository_holds_no_secret() -> None:
    looked_at = list(repository())
    assert {ROOT / "README.md", ROOT / "chat2api" / "app.py", Path(__file__)} <= set(looked_at)
    assert {str(path): kinds for path in looked_at if (kinds := secrets_in(path.read_bytes()))} == {}


@pytest.mark.parametrize(
    "parts",
    [
        ("eyJhbGciOiJSUzI1NiJ9.eyJ", "a" * 40, ".", "b" * 43),
        ("sk-", "A1" * 24),
        ("rt_", "a1." * 30),
        ("-----BEGIN PRIVATE", " KEY-----\n", "MIIE" * 16),
        ("gh", "p_", "a" * 36),
    ],
)
def test_T6_a_secret_would_be_found(parts: tuple[str, ...]) -> None:
    assert len(secrets_in("".join(parts).encode())) == 1


def _calls(module: ast.AST) -> Iterator[tuple[str, ast.Call]]:
    """Give every call with the dotted name of what is called."""
    for node in ast.walk(module):
        if isinstance(node, ast.Call):
            yield ast.unparse(node.func), node


def _is_built(node: ast.expr) -> bool:
    """Whether a text is put together from parts, some of which are not written here."""
    if isinstance(node, ast.JoinedStr):
        return any(isinstance(part, ast.FormattedValue) for part in node.values)
    if isinstance(node, ast.BinOp):
        return not all(isinstance(side, ast.Constant) for side in (node.left, node.right))
    return isinstance(node, ast.Call) and ast.unparse(node.func).endswith((".format", ".join"))


def findings(source: str) -> list[str]:
    """Name the dangerous calls of a module, in order of their kind."""
    module, found = ast.parse(source), []
    for name, call in _calls(module):
        last = name.rpartition(".")[2]
        if name in ("os.system", "os.popen") or any(
            word.arg == "shell" and not (isinstance(word.value, ast.Constant) and word.value.value is False)
            for word in call.keywords
        ):
            found.append("shell")
        if name in ("eval", "exec", "compile", "__import__") or name.split(".")[0] in ("pickle", "marshal", "shelve"):
            found.append("code from data")
        if last in ("text", "execute", "executescript", "executemany", "exec_driver_sql") and call.args:
            found += ["SQL from parts"] * _is_built(call.args[0])
        if last in ("Markup", "render_template_string"):
            found.append("markup past the escaping")
    for function in ast.walk(module):
        if isinstance(function, ast.AsyncFunctionDef):
            found += ["blocking"] * sum(
                name in ("time.sleep", "socket.getaddrinfo", "subprocess.run", "urllib.request.urlopen")
                for name, _ in _calls(function)
            )
    return found


SQL_FROM_PARTS = {
    "storage/sqlite.py": "PRAGMA takes no bound parameters; what is put in is a number or a name of ours",
}
"""Modules that build statements, each with its reason."""


def test_T6_no_call_goes_round_the_rules() -> None:
    told = {}
    for path in SOURCES:
        name = path.relative_to(ROOT / "chat2api").as_posix()
        found = findings(path.read_text(encoding="utf-8"))
        if name in SQL_FROM_PARTS:
            assert "SQL from parts" in found, f"{name} needs no exception any more"
            found = [kind for kind in found if kind != "SQL from parts"]
        if found:
            told[name] = found
    assert told == {}


@pytest.mark.parametrize(
    ("source", "kind"),
    [
        ("os.system(command)", "shell"),
        ("subprocess.run(command, shell=True)", "shell"),
        ("subprocess.run(command, shell=wanted)", "shell"),
        ("pickle.loads(data)", "code from data"),
        ("eval(text)", "code from data"),
        ("db.execute(f'DELETE FROM t WHERE id = {id}')", "SQL from parts"),
        ("sqlalchemy.text('SELECT ' + column)", "SQL from parts"),
        ("db.execute('SELECT {}'.format(column))", "SQL from parts"),
        ("markupsafe.Markup(name)", "markup past the escaping"),
        ("async def f():\n    time.sleep(1)", "blocking"),
    ],
)
def test_T6_each_kind_of_dangerous_call_would_be_found(source: str, kind: str) -> None:
    assert findings(source) == [kind]
    assert findings("db.execute('SELECT 1')\nsubprocess.run(command, shell=False)") == []


def test_T6_templates_never_switch_the_escaping_off() -> None:
    templates = [path for path in (ROOT / "templates").rglob("*.html")]
    assert templates
    for path in templates:
        assert not re.search(r"\|\s*safe\b|autoescape\s+false|<script(?![^>]*\bsrc=)", path.read_text()), path.name


@pytest.mark.parametrize("name", ["requirements", "requirements-build", "requirements-dev"])
def test_S40_every_requirement_is_pinned_with_its_hashes(name: str) -> None:
    locked = (ROOT / f"{name}.txt").read_text().replace("\\\n", " ").splitlines()
    names = set()
    for line in locked:
        pinned = re.match(r"([\w.-]+)(?:\[[\w,]+\])?==[\w.+!]+ ", line)
        assert pinned, line[:80]
        assert re.findall(r"--hash=sha256:[0-9a-f]{64}\b", line), line[:80]
        names.add(_normal(pinned[1]))
    asked = re.findall(r"(?m)^([A-Za-z0-9][\w.-]*)", (ROOT / f"{name}.in").read_text())
    assert asked
    assert {_normal(one) for one in asked} <= names


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def test_S40_installations_insist_on_the_hashes_and_on_releases_of_a_certain_age() -> None:
    makefile, dockerfile = (ROOT / "Makefile").read_text(), (ROOT / "Dockerfile").read_text()
    for text in (makefile, dockerfile):
        installs = re.findall(r"pip install (?:[^\n&|]|\\\n)*-r [^\n&|]*", text)
        assert installs
        assert all("--require-hashes" in install for install in installs)
    assert '--exclude-newer "7 days"' in makefile


def test_S40_no_page_needs_anything_from_elsewhere() -> None:
    pages = [path for path in (ROOT / "templates").rglob("*") if path.suffix in (".html", ".css", ".js")]
    assert pages
    for path in pages:
        wanted = re.findall(
            r"""(?:\bsrc=|\burl\(|@import|\bimport\s|<link[^>]*href=)\s*["']?(?:https?:)?//""", path.read_text()
        )
        assert wanted == [], path.name
