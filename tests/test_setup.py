"""The installation: native code where there is a compiler, and no failure where there is none."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
VARIANTS = "from chat2api.protocol.chatgpt import proof_of_work as p; print(*p.variants()); print(p.__file__)"


def install(where: Path, compiler: str) -> tuple[list[str], list[str]]:
    """Install a copy of the tree as `pip install -e` does; give the variants that it can run, and its binaries.

    The copy matters: a build folder that lies about makes pip take an older binary.
    """
    source = where / "source"
    shutil.copytree(ROOT / "chat2api", source / "chat2api", ignore=shutil.ignore_patterns("*.so", "__pycache__"))
    for name in ("setup.py", "pyproject.toml", "version.txt", "requirements.in", "README.md", "LICENSE"):
        if (ROOT / name).exists():
            shutil.copy(ROOT / name, source)
    environ = {**os.environ, "CC": compiler, "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
    # --ignore-installed: without it pip would remove the installation that runs this test.
    pip = [sys.executable, "-m", "pip", "install", "-q", "--no-index", "--no-deps", "--no-build-isolation"]
    place = ["--ignore-installed", "--prefix", str(where / "prefix"), "--no-warn-script-location"]
    subprocess.run([*pip, *place, "-e", str(source)], check=True, env=environ, timeout=100)
    environ["PYTHONPATH"] = str(source)
    told = subprocess.run(
        [sys.executable, "-c", VARIANTS], check=True, env=environ, timeout=30, cwd=where, stdout=subprocess.PIPE
    )
    variants, module = told.stdout.decode().splitlines()
    assert Path(module).is_relative_to(source)
    return variants.split(), [path.name for path in source.rglob("_pow*.so")]


def test_without_a_compiler_the_installation_succeeds_and_python_searches(tmp_path: Path) -> None:
    variants, binaries = install(tmp_path, "/bin/false")

    assert variants == ["python"]
    assert binaries == []


@pytest.mark.skipif(shutil.which("cc") is None and shutil.which("gcc") is None, reason="no compiler here")
def test_with_a_compiler_one_binary_in_place_serves_every_later_python(tmp_path: Path) -> None:
    variants, binaries = install(tmp_path, shutil.which("cc") or "gcc")

    assert variants[-2:] == ["scalar", "python"]
    assert binaries == ["_pow.abi3.so"]
