"""The doctor's page: each check by its button, all of them as a job."""

import re
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from chat2api.api.doctor_page import PATH
from chat2api.simulator.app import Simulator
from chat2api.simulator.options import SimulatorOptions
from tests.api.pages_house import Person
from tests.e2e.harness import House, HouseClock, open_house, until

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def house(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[House]:
    async with Simulator(SimulatorOptions(accounts=1, delay=0.0)) as sim:
        token = sim.control.accounts[0].access_token
        folder = tmp_path_factory.mktemp("doctor") / "data"
        async with open_house(folder, sim, tokens=[token], clock=HouseClock()) as house:
            yield house


@pytest_asyncio.fixture(loop_scope="module")
async def person(house: House) -> AsyncIterator[Person]:
    house.runtime.doctor.latest.clear()
    async with Person(house.base) as person:
        await person.sign_in()
        await person.get(PATH)
        yield person


async def test_each_check_has_a_button_and_shows_what_it_found(house: House, person: Person) -> None:
    names = [check.name for check in house.runtime.doctor.checks()]
    before = (await person.get(PATH)).text
    assert re.findall(r'name="check" value="([^"]+)"', before) == ["all", *names]
    assert before.count("Not checked yet.") == len(names)
    for name in names:
        answer = await person.post(PATH, {"check": name})
        assert (answer.status_code, answer.headers["location"]) == (303, f"{PATH}#{name}")
    after = (await person.get(PATH)).text
    assert "Not checked yet." not in after
    assert f"All {len(names)} checks are well." in after
    assert "signed in, 8 models offered" in after
    assert house.in_flight == 0


async def test_a_finding_comes_with_what_to_do_about_it(house: House, person: Person) -> None:
    await house.runtime.records.set_meta("restored", "1")
    try:
        await person.post(PATH, {"check": "store"})
    finally:
        await house.runtime.records.confirm_restored()
    page = (await person.get(PATH)).text
    chinese = (await person.get(PATH, **{"Accept-Language": "zh-CN"})).text
    assert "导入最新的令牌" in chinese
    assert "they are an older copy" in page
    assert "chat2api tokens confirm-restored" in page
    assert "1 with a finding" in page


async def test_all_checks_run_as_a_job_whose_progress_is_shown(house: House, person: Person) -> None:
    answer = await person.post(PATH, {"check": "all"})
    address = answer.headers["location"]
    assert answer.status_code == 303
    job = house.runtime.jobs.get(address.partition("job=")[2])
    await until(lambda: job.is_over, "the checks did not end")
    assert (job.status.state, job.status.failed) == ("done", 0)
    assert "Running all checks" in (await person.get(f"/tokens/progress/{job.id}")).text
    page = (await person.get(address)).text
    assert f"All {job.status.total} checks are well." in page
    assert "data-job" not in page
    assert (await person.get(f"{PATH}?job=job_of_yesterday")).status_code == 200


async def test_an_unknown_check_is_refused(person: Person) -> None:
    assert (await person.post(PATH, {"check": "nothing"})).status_code == 404
    assert (await person.post(PATH)).status_code == 404


async def test_S23_nothing_is_examined_without_the_token_of_the_page(house: House, person: Person) -> None:
    assert (await person.post(PATH, {"check": "disk", "csrf": "x"})).status_code == 403
    async with Person(house.base) as nobody:
        assert (await nobody.get(PATH)).status_code == 303
        assert (await nobody.post(PATH, {"check": "disk"})).status_code == 401
    assert house.runtime.doctor.latest == {}
