"""What is kept of API keys: waits until they are past, refusals until the key is accepted."""

from chat2api.storage.api_keys import KeyRest
from chat2api.storage.records import Records
from chat2api.storage.sql_api_keys import KEPT_SECONDS

NOW = 1_700_000_000.0
WAIT = KeyRest("digest-1", "gpt-4.1", NOW, True, "stated_limit")
REFUSED = KeyRest("digest-1", "", None, True, "upstream_account")


async def test_what_is_stored_last_of_a_key_and_model_counts(records: Records) -> None:
    later = KeyRest("digest-1", "gpt-4.1", NOW + 9, False, "guessed_limit", 2)
    other = KeyRest("digest-2", "gpt-4.1", NOW, True, "stated_limit")
    await records.api_keys.put([WAIT, other])
    await records.api_keys.put([later])
    await records.api_keys.put([])
    assert await records.api_keys.of(["digest-1", "digest-2"]) == [later, other]
    assert await records.api_keys.of(["digest-2"]) == [other]
    assert await records.api_keys.of([]) == []


async def test_a_key_that_is_accepted_keeps_its_waits(records: Records) -> None:
    await records.api_keys.put([WAIT, REFUSED])
    await records.api_keys.accept("digest-1")
    assert await records.api_keys.of(["digest-1"]) == [WAIT]


async def test_what_is_long_past_is_forgotten_and_a_refusal_is_not(records: Records) -> None:
    await records.api_keys.put([WAIT, REFUSED])
    await records.api_keys.sweep(NOW + KEPT_SECONDS)
    assert await records.api_keys.of(["digest-1"]) == [REFUSED, WAIT]
    await records.api_keys.sweep(NOW + KEPT_SECONDS + 1)
    assert await records.api_keys.of(["digest-1"]) == [REFUSED]
