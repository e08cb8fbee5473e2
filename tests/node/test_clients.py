"""The clients from npm: pinned to the byte, named by documents, and installed once for each lock."""

import json
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.node.clients import FOLDER, INSTALLED, LOCK

ROOT = FOLDER.parent.parent
PACKAGES = json.loads(LOCK.read_text(encoding="utf-8"))["packages"]
WANTED: dict[str, str] = json.loads((FOLDER / "package.json").read_text(encoding="utf-8"))["dependencies"]


def test_every_package_is_pinned_by_its_digest_and_by_no_address() -> None:
    assert PACKAGES[""]["dependencies"] == WANTED
    assert all(version[0].isdigit() for version in WANTED.values())
    for name, package in PACKAGES.items():
        if not name:  # the folder itself
            continue
        assert package["integrity"].startswith("sha512-"), name
        assert "resolved" not in package, name


@pytest.mark.parametrize("page", ["docs/compatibility.md", "docs/compatibility.zh-CN.md"])
def test_the_documents_name_the_versions_that_the_suite_runs(page: str) -> None:
    text = (ROOT / page).read_text(encoding="utf-8")
    readme = (ROOT / page.replace("docs/compatibility", "README")).read_text(encoding="utf-8")
    assert WANTED["openai"].rpartition(".")[0] in readme
    assert f"| {WANTED['openai']} | " in text
    between = " with " if page == "docs/compatibility.md" else " 配合 "
    assert f"| {WANTED['ai']}{between}{WANTED['@ai-sdk/openai']} | " in text


NPM = """#!/bin/sh
echo "$@" >> "$0.calls"
mkdir -p "$3/node_modules"
"""


@pytest.mark.skipif(shutil.which("make") is None, reason="no make here")
def test_they_are_installed_again_only_when_the_lock_has_changed(tmp_path: Path) -> None:
    folder, npm = tmp_path / "node", tmp_path / "npm"
    folder.mkdir()
    npm.write_text(NPM)
    npm.chmod(0o755)
    (folder / "package-lock.json").write_text("one")
    calls = []
    for content in ("one", "one", "two", "two"):
        (folder / "package-lock.json").write_text(content)
        environ = {"PATH": f"{tmp_path}:/usr/bin:/bin"}
        subprocess.run(["make", "-s", "node", f"NODE={folder}"], cwd=ROOT, env=environ, check=True, timeout=30)
        assert (folder / INSTALLED.relative_to(FOLDER)).read_text() == content
        calls.append(len((tmp_path / "npm.calls").read_text().splitlines()))
    assert calls == [1, 1, 2, 2]


@pytest.mark.skipif(shutil.which("make") is None, reason="no make here")
def test_without_npm_the_suite_goes_on_and_says_so(tmp_path: Path) -> None:
    (tmp_path / "package-lock.json").write_text("one")
    for name in ("sh", "cmp", "echo"):
        (tmp_path / name).symlink_to(shutil.which(name) or "")
    done = subprocess.run(
        [shutil.which("make") or "", "-s", "node", f"NODE={tmp_path}"], cwd=ROOT, env={"PATH": str(tmp_path)},
        capture_output=True, text=True, timeout=30,
    )  # fmt: skip
    assert done.returncode == 0
    assert "skipped" in done.stdout
    assert "apt-get install -y nodejs npm" in done.stdout
