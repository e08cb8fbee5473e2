"""`chat2api/storage/sealing.py`."""

from pathlib import Path

import pytest

from chat2api.errors import StorageError
from chat2api.storage.sealing import (
    Keyring,
    Sealer,
    WrapSecret,
    create_key_file,
    read_key_file,
    setting_secret,
)


def test_S15_a_secret_opens_in_its_own_place_only() -> None:
    sealer = Sealer(Keyring.generate())
    sealed = sealer.seal("tokens", "acc_1/access", "sealed", "secret ✓")

    assert sealer.open("tokens", "acc_1/access", "sealed", 1, sealed) == "secret ✓"
    for place in (
        ("tokens", "acc_2/access", "sealed"),
        ("tokens", "acc_1/access", "other"),
        ("t", "acc_1/access", "s"),
    ):
        with pytest.raises(StorageError, match="does not belong"):
            sealer.open(*place, 1, sealed)


def test_S15_an_altered_or_cut_ciphertext_does_not_open() -> None:
    sealer = Sealer(Keyring.generate())
    sealed = sealer.seal("t", "r", "c", "secret")

    for index in range(len(sealed)):
        altered = sealed[:index] + bytes([sealed[index] ^ 1]) + sealed[index + 1 :]
        with pytest.raises(StorageError):
            sealer.open("t", "r", "c", 1, altered)
        with pytest.raises(StorageError):
            sealer.open("t", "r", "c", 1, sealed[:index])


def test_S15_no_two_ciphertexts_of_a_secret_are_alike() -> None:
    sealer = Sealer(Keyring.generate())

    assert len({sealer.seal("t", "r", "c", "same")[:12] for _ in range(1000)}) == 1000


def test_S16_a_key_version_that_is_not_here_is_refused() -> None:
    ring = Keyring.generate()
    sealed = Sealer(ring.with_new_key()).seal("t", "r", "c", "secret")

    with pytest.raises(StorageError, match="version 2"):
        Sealer(ring).open("t", "r", "c", 2, sealed)


def test_S16_a_new_key_seals_and_the_old_one_still_opens() -> None:
    old = Sealer(Keyring.generate())
    sealed = old.seal("t", "r", "c", "secret")
    new = Sealer(old.keyring.with_new_key())

    assert new.version == 2
    assert new.open("t", "r", "c", 1, sealed) == "secret"
    assert new.digest("p", "x") == old.digest("p", "x")
    assert set(new.keyring.without_old_keys().data_keys) == {2}


@pytest.mark.parametrize("secret", [setting_secret("a word"), WrapSecret("file", b"k" * 32)])
def test_S15_keys_are_stored_wrapped_and_open_with_the_same_secret_only(secret: WrapSecret) -> None:
    ring = Keyring.generate().with_new_key()
    rows = ring.wrap(secret)

    assert Keyring.unwrap(rows, secret) == ring
    stored = b"".join(row.wrapped + row.salt for row in rows)
    assert not any(key in stored for key in [*ring.data_keys.values(), ring.pepper])
    with pytest.raises(StorageError, match="cannot be opened"):
        Keyring.unwrap(rows, WrapSecret(secret.source, b"another"))


def test_keys_that_change_places_do_not_open() -> None:
    secret = WrapSecret("file", b"k" * 32)
    rows = Keyring.generate().wrap(secret)
    swapped = [type(rows[0])(rows[0].name, 1, "file", rows[1].salt, rows[1].wrapped), rows[1]]

    with pytest.raises(StorageError):
        Keyring.unwrap(swapped, secret)
    with pytest.raises(StorageError, match="lacks its keys"):
        Keyring.unwrap(rows[:1], secret)


def test_S17_keys_and_secrets_do_not_print() -> None:
    ring = Keyring({1: b"canary-key"}, b"canary-pepper")

    assert "canary" not in repr(ring) + repr(setting_secret("canary"))


def test_S19_the_key_file_is_private_and_made_so(tmp_path: Path) -> None:
    path = tmp_path / "records.key"
    assert read_key_file(path) is None
    made = create_key_file(path)
    assert path.stat().st_mode & 0o777 == 0o600
    path.chmod(0o644)

    assert read_key_file(path) == made
    assert path.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("content", [b"", b"not base64!", b"c2hvcnQ="])
def test_a_damaged_key_file_is_refused_and_left(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "records.key"
    path.write_bytes(content)

    with pytest.raises(StorageError, match="damaged"):
        read_key_file(path)

    assert path.read_bytes() == content


def test_a_key_file_that_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="cannot be written"):
        create_key_file(tmp_path / "missing" / "records.key")
