"""A server without accounts, with a route of each access class, for all tests that ask for `page_house`."""

from collections.abc import AsyncIterator
from typing import Any, cast

import pytest
import pytest_asyncio
from quart import Quart

from chat2api import launch
from chat2api.app import create_app
from chat2api.keys.guesses import Guesses
from tests.api.pages_house import FakeKeys, Person, SettingsChange, add_probe_routes
from tests.e2e.harness import House, HouseClock, open_house


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def page_house(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[House]:
    patch = pytest.MonkeyPatch()
    real = create_app

    def with_probes(*args: Any, **options: Any) -> Quart:
        app = real(*args, **options)
        add_probe_routes(app)
        return app

    patch.setattr(launch, "create_app", with_probes)
    try:
        async with open_house(tmp_path_factory.mktemp("admission") / "data", clock=HouseClock()) as house:
            yield house
    finally:
        patch.undo()


@pytest_asyncio.fixture(loop_scope="module")
async def settings(page_house: House, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[SettingsChange]:
    page_house.runtime.guesses = Guesses(page_house.runtime.clock)
    monkeypatch.setattr(page_house.runtime, "keys", FakeKeys(), raising=False)
    change = SettingsChange(page_house)
    yield change
    change.undo()
    page_house.runtime.password = None


@pytest_asyncio.fixture(loop_scope="module")
async def person(page_house: House, settings: SettingsChange) -> AsyncIterator[Person]:
    async with Person(page_house.base) as person:
        yield person


@pytest.fixture
def keys(page_house: House, settings: SettingsChange) -> FakeKeys:
    return cast(FakeKeys, page_house.runtime.keys)
