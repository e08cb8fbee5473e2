"""Local users: one of each name, found by all processes, gone when removed."""

from chat2api.storage.records import Records
from chat2api.storage.users import LocalUser

NOW = 1_700_000_000.0


def user(name: str = "anna", at: float = NOW) -> LocalUser:
    return LocalUser(name, name.title(), f"digest-of-{name}", f"key_{name}", at, at)


async def test_a_user_is_there_until_removed(records: Records) -> None:
    assert await records.users.all() == (0, ())
    anna, bruno = user("anna", NOW + 1), user("bruno")
    assert await records.users.add(anna)
    assert await records.users.add(bruno)
    assert await records.users.all() == (2, (bruno, anna))
    assert await records.users.remove("anna") == anna
    assert await records.users.remove("anna") is None
    assert await records.users.all() == (3, (bruno,))


async def test_there_is_one_of_each_name(records: Records) -> None:
    assert await records.users.add(user())
    taken = LocalUser("anna", "Another", "other", "key_other", NOW, NOW)
    assert not await records.users.add(taken)
    assert await records.users.all() == (1, (user(),))


async def test_another_password_changes_nothing_else(records: Records) -> None:
    await records.users.add(user())
    changed = await records.users.set_password("anna", "another digest", NOW + 5)
    assert changed == LocalUser("anna", "Anna", "another digest", "key_anna", NOW, NOW + 5)
    assert await records.users.set_password("nobody", "digest", NOW) is None
    assert await records.users.revision() == 2


async def test_a_user_does_not_show_the_digest() -> None:
    assert "digest" not in repr(user())
