"""Every room of the house has its tests, in the same place of the tree."""

from pathlib import Path

ROOT = Path(__file__).parent.parent

ELSEWHERE = {
    "__main__": "two lines that tests/test_cli.py runs as a process",
    "protocol/events": "values without behaviour; every decoder's and encoder's test uses them",
    "gateway/provider": "values and a Protocol; tests/gateway/test_chatgpt.py uses them",
    "storage/records": "a Protocol; tests/storage/test_sql_records.py is its contract suite",
    "storage/keys": "values and a Protocol; tests/storage/test_sql_keys.py is its contract suite",
    "storage/usage": "values and a Protocol; tests/storage/test_sql_usage.py is its contract suite",
    "storage/users": "values and a Protocol; tests/storage/test_sql_users.py is its contract suite",
    "storage/values": "values without behaviour; the contract suite uses them",
}
"""Modules without a test file of their own name, each with its reason."""

BY_BEHAVIOUR = ("simulator/", "storage/migrations/", "storage/sql_")
"""Parts that are tested by what they do as a whole: tests/simulator, and the contract suite in tests/storage."""


def test_every_module_has_a_test_file_in_the_same_place() -> None:
    missing = []
    for module in sorted((ROOT / "chat2api").rglob("*.py")):
        name = module.relative_to(ROOT / "chat2api").with_suffix("").as_posix()
        if module.stem == "__init__" or name in ELSEWHERE or name.startswith(BY_BEHAVIOUR):
            continue
        folder, _, stem = name.rpartition("/")
        if not (ROOT / "tests" / folder / f"test_{stem}.py").is_file():
            missing.append(name)
    assert missing == []
