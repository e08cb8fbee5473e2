"""What changes something must come from our own page, with the token of that sign-in."""

import pytest

from tests.api.pages_house import Person
from tests.e2e.harness import House

pytestmark = pytest.mark.asyncio(loop_scope="module")


async def test_S22_forms_of_other_sites_change_nothing(person: Person) -> None:
    await person.sign_in()
    token = person.token()
    own = person.origin
    port = own.rpartition(":")[2]
    foreign = [
        None, "null", "", "*", own + "/", own.upper(), f"{own}x", "http://evil.example.test", f"{own}.evil.example.test",
        f"http://127.0.0.1:{int(port) + 1}", "http://127.0.0.1", f"http://localhost:{port}", f"https://127.0.0.1:{port}",
        f"http://user@127.0.0.1:{port}", f"http://[::1]:{port}", f"http://127.1:{port}", f"file://127.0.0.1:{port}",
    ]  # fmt: skip
    for origin in foreign:
        answer = await person.post("/probe/admin", {"csrf": token}, origin=origin)
        assert answer.status_code == 403, origin
    for wrong in ("", "x", token[:-1], token + "0", token.upper(), person.cookies["chat2api"], "0" * 64, "null", "[]"):
        assert (await person.post("/probe/admin", {"csrf": wrong})).status_code == 403, wrong
    for method in ("PUT", "PATCH", "DELETE"):
        answer = await person.http.request(method, "/probe/admin", headers={"Origin": own, **person._cookie()})
        assert answer.status_code == 405
    good = await person.post("/probe/admin", {"csrf": "x"}, **{"X-CSRF-Token": token})
    assert good.status_code == 200, "the header counts as well, and before the form"


async def test_S22_a_token_of_one_sign_in_is_none_of_another(page_house: House, person: Person) -> None:
    await person.sign_in()
    async with Person(page_house.base) as other:
        await other.sign_in()
        assert (await person.post("/probe/admin", {"csrf": other.token()})).status_code == 403
