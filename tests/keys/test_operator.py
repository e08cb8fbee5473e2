"""The operator's key: made once, kept as digest, shut when it cannot be kept."""

from pathlib import Path

import pytest

from chat2api.errors import StorageError
from chat2api.keys.operator import KEY_FILE, OperatorKeys, load_operator_key, make_operator_key


class Meta:
    def __init__(self) -> None:
        self.values: dict[str, str] = {}

    async def get_meta(self, name: str) -> str | None:
        return self.values.get(name)

    async def set_meta(self, name: str, value: str) -> None:
        self.values[name] = value


async def test_S1_the_first_start_makes_a_key_and_keeps_only_its_digest(tmp_path: Path) -> None:
    meta = Meta()
    keys = await load_operator_key(meta, tmp_path)
    file = tmp_path / KEY_FILE
    key = file.read_text().strip()
    assert keys.matches(key)
    assert file.stat().st_mode & 0o777 == 0o600
    assert key not in str(meta.values)
    assert len(key) != 45, "45 characters would look like a RefreshToken"


async def test_S1_later_starts_keep_the_key_even_when_its_file_is_gone(tmp_path: Path) -> None:
    meta = Meta()
    await load_operator_key(meta, tmp_path)
    key = (tmp_path / KEY_FILE).read_text().strip()
    (tmp_path / KEY_FILE).unlink()
    assert (await load_operator_key(meta, tmp_path)).matches(key)
    assert not (tmp_path / KEY_FILE).exists()


async def test_S1_without_a_writable_folder_everything_stays_shut(tmp_path: Path) -> None:
    meta = Meta()
    keys = await load_operator_key(meta, tmp_path / "missing")
    assert keys.shut is not None
    assert "DATA_DIR" in keys.shut
    assert meta.values == {}
    assert not keys.matches("")


async def test_a_new_key_replaces_the_old_one(tmp_path: Path) -> None:
    meta = Meta()
    await load_operator_key(meta, tmp_path)
    old = (tmp_path / KEY_FILE).read_text().strip()
    path = await make_operator_key(meta, tmp_path)
    keys = await load_operator_key(meta, tmp_path)
    assert keys.matches(path.read_text().strip())
    assert not keys.matches(old)


async def test_a_key_that_cannot_be_written_is_a_storage_error(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="DATA_DIR"):
        await make_operator_key(Meta(), tmp_path / "missing")


def test_configured_keys_match_exactly() -> None:
    keys = OperatorKeys.configured(["alpha-key", "beta-key"])
    assert keys.matches("beta-key")
    assert not keys.matches("beta-ke")
    assert not keys.matches("")
