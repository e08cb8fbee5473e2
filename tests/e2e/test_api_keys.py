"""What is known of API keys outlives a server that is killed."""

from pathlib import Path

import httpx
import pytest

from chat2api.simulator import openai_api
from chat2api.simulator.openai_api import ApiSimulator
from chat2api.simulator.options import SimulatorOptions
from tests.api.openai.forwarding import CHAT, OPERATOR, QUESTION
from tests.e2e.harness import OPERATOR_KEY
from tests.processes import running


@pytest.mark.alone
async def test_R7_R8_a_limited_and_a_refused_key_are_not_asked_after_kill_9(tmp_path: Path) -> None:
    async with ApiSimulator(SimulatorOptions(accounts=2)) as api:
        keys = list(api.keys)
        environ = {
            "PORT": "0",
            "AUTHORIZATION": OPERATOR_KEY,
            "OPENAI_BASE_URL": f"{api.url}/v1",
            "OPENAI_API_KEYS": ",".join(keys),
        }

        async def ask(base: str) -> httpx.Response:
            async with httpx.AsyncClient(base_url=base, headers=OPERATOR, timeout=30, trust_env=False) as http:
                return await http.post(CHAT, json=QUESTION)

        api.keys.remove(keys[0])
        api.control.fail("chat", openai_api.limited(time="1h"), account=keys[1][-4:], times=None)
        async with running("serve", cwd=tmp_path, environ=environ) as server:
            base = await server.find(r"listens on (\S+)")
            statuses = {(await ask(base)).status_code for _ in range(2)}
            assert statuses == {429}
            server.process.kill()
            await server.wait()
        asked = len(api.control.requests_to("chat"))
        assert asked == 2, "one was refused, one was limited"

        api.keys.append(keys[0])  # even a key that would serve again is not asked on its own
        api.control.reset()
        async with running("serve", cwd=tmp_path, environ=environ) as server:
            base = await server.find(r"listens on (\S+)")
            answer = await ask(base)
            assert answer.status_code == 429
            assert 3000 < int(answer.headers["retry-after"]) <= 3600
            assert api.control.requests == []
            await server.stop()
            assert "API keys: 2 (1 needs_sign_in, 1 ok)" in server.err
        stored = b"".join(path.read_bytes() for path in (tmp_path / "data").rglob("*") if path.is_file())
        assert not [key for key in keys if key.encode() in stored]
