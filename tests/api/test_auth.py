"""Who may call what: the whole table, through the real server, with nothing of the caller's believed that should not be."""

import itertools
import json
import random
import re
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest
import pytest_asyncio
from quart import Quart

from chat2api.api.auth import access_class, check_access_classes
from chat2api.app import create_app
from chat2api.config import Config
from chat2api.errors import StorageError
from chat2api.keys.guesses import Guesses
from chat2api.keys.issue import make_key
from chat2api.keys.operator import OperatorKeys
from chat2api.simulator.app import Simulator
from chat2api.storage.keys import NewKey
from tests.api.pages_house import Person, SettingsChange
from tests.e2e.harness import OPERATOR_KEY, House, open_house

pytestmark = pytest.mark.asyncio(loop_scope="module")

CHAT = "/v1/chat/completions"
BODY = {"model": "auto", "messages": [{"role": "user", "content": "Name three rivers."}]}
OPERATOR = {"Authorization": f"Bearer {OPERATOR_KEY}"}

EXPECTED_CLASSES = {
    "/": "login",
    "/openapi.json": "open",
    "/healthz": "open",
    "/readyz": "open",
    "/static/<path:filename>": "open",
    "/login": "login",
    "/auth/login": "open",
    "/logout": "signed_in",
    "/preferences": "login",
    "/usage": "person",
    "/usage/data": "person",
    "/usage/renew": "person",
    "/local-users": "page",
    "/local-users/<key_id>": "page",
    "/local-users/<key_id>/password": "page",
    "/local-users/<key_id>/remove": "page",
    "/issued-keys": "page",
    "/issued-keys/new": "page",
    "/issued-keys/stop": "page",
    "/issued-keys/<key_id>": "page",
    "/issued-keys/<key_id>/rotate": "page",
    "/issued-keys/<key_id>/revoke": "page",
    "/v1/chat/completions": "api",
    "/v1": "api",
    "/v1/responses": "api",
    "/v1/responses/compact": "api",
    "/v1/responses/input_tokens": "api",
    "/v1/responses/<identifier>": "api",
    "/v1/responses/<identifier>/cancel": "api",
    "/v1/responses/<identifier>/input_items": "api",
    "/v1/completions": "api",
    "/v1/embeddings": "api",
    "/v1/moderations": "api",
    "/v1/images/generations": "api",
    "/v1/audio/speech": "api",
    "/v1/audio/transcriptions": "api",
    "/v1/audio/translations": "api",
    "/v1/images/edits": "api",
    "/v1/images/variations": "api",
    "/v1/files": "api",
    "/v1/files/<identifier>": "api",
    "/v1/files/<identifier>/content": "api",
    "/v1/models": "api",
    "/v1/models/<path:model>": "api",
    "/v1/usage": "api",
    "/dashboard/billing/subscription": "api",
    "/v1/dashboard/billing/subscription": "api",
    "/dashboard/billing/usage": "api",
    "/v1/dashboard/billing/usage": "api",
    "/keys": "admin",
    "/keys/stop": "admin",
    "/keys/invites": "admin",
    "/keys/invites/<invitation_id>": "admin",
    "/users": "admin",
    "/users/<key_id>": "admin",
    "/invite/<token>": "login",
    "/keys/<key_id>": "admin",
    "/keys/<key_id>/rotate": "admin",
    "/metrics": "admin",
    "/tokens/preview": "admin",
    "/tokens/upload": "admin",
    "/tokens/clear": "admin",
    "/tokens/error": "admin",
    "/tokens/undo": "admin",
    "/tokens/deleted": "admin",
    "/tokens/confirm-restored": "admin",
    "/tokens/accounts": "admin",
    "/tokens/accounts/bulk": "admin",
    "/tokens/accounts/<account_id>": "admin",
    "/tokens/accounts/<account_id>/test": "admin",
    "/tokens/accounts/<account_id>/refresh": "admin",
    "/tokens/accounts/<account_id>/disable": "admin",
    "/tokens/accounts/<account_id>/enable": "admin",
    "/tokens/jobs/<job_id>": "admin",
    "/tokens/doctor": "admin",
    "/tokens/doctor/<check>": "admin",
    "/tokens/overview": "page",
    "/tokens/checkup": "page",
    "/tokens/journal": "page",
    "/tokens": "page",
    "/tokens/account/<account_id>": "page",
    "/tokens/account/<account_id>/<action>": "page",
    "/tokens/selected": "page",
    "/tokens/progress/<job_id>": "page",
    "/tokens/failed": "page",
    "/tokens/removed": "page",
    "/tokens/empty": "page",
    "/tokens/tiers": "page",
    "/tokens/tiers/invite": "page",
    "/tokens/tiers/revoke": "page",
    "/tokens/add": "page",
    "/tokens/add/save": "page",
    "/tokens/add/cancel": "page",
}
for _place in ("", "/backend-api", "/chatgpt/backend-api"):
    EXPECTED_CLASSES |= {
        f"{_place}/conversation": "site",
        f"{_place}/conversations": "site",
        f"{_place}/conversation/<conversation_id>": "site",
        f"{_place}/conversation/gen_title/<conversation_id>": "site",
        f"{_place}/conversation/message_feedback": "site",
        f"{_place}/files/<file>/download": "site",
        f"{_place}/files/download/<file>": "site",
        f"{_place}/conversation/<conversation_id>/attachment/<file>/download": "site",
        f"{_place}/conversation/<conversation_id>/interpreter/download": "site",
        f"{_place}/models": "site",
        f"{_place}/accounts/check": "site",
        f"{_place}/accounts/check/v4-2023-04-27": "site",
    }
_API = [path for path, kind in EXPECTED_CLASSES.items() if kind == "api"]
EXPECTED_CLASSES |= {place + path: "api" for place in ("/imitate", "/platform") for path in ("/", *_API)}
"""The access table of the routes that exist."""

FOUND_NOWHERE = {("GET", f"{place}/conversation/c") for place in ("", "/backend-api", "/chatgpt/backend-api")}
"""Calls about a conversation that nobody has, which are routes all the same."""


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def sim() -> AsyncIterator[Simulator]:
    async with Simulator() as simulator:
        yield simulator


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def house(sim: Simulator, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[House]:
    folder = tmp_path_factory.mktemp("access")
    async with open_house(folder / "data", sim, tokens=[sim.control.accounts[0].access_token]) as house:
        yield house


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def http(house: House) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=house.base, timeout=30) as client:
        yield client


@pytest_asyncio.fixture(loop_scope="module")
async def settings(house: House) -> AsyncIterator[SettingsChange]:
    """Change settings of the running server for one test; they are read at each request."""
    change = SettingsChange(house)
    yield change
    change.undo()


@pytest.fixture(autouse=True)
def no_guesses(house: House) -> None:
    """Let each test make its wrong guesses anew."""
    house.runtime.guesses = Guesses(house.runtime.clock)


# The table


@pytest.mark.parametrize("prefix", ["", "x/y"])
async def test_M1_every_route_of_the_app_has_the_access_class_of_the_table(prefix: str) -> None:
    app = create_app(Config(api_prefix=prefix))
    start = f"/{prefix}" if prefix else ""
    found = {
        _methods(rule.methods, rule.rule == f"{start}/") + rule.rule: access_class(app, rule.endpoint)
        for rule in app.url_map.iter_rules()
    }
    expected = {start + rule: kind for rule, kind in EXPECTED_CLASSES.items()} | {f"POST {start}/": "api"}
    if prefix:
        expected |= {"/healthz": "open", "/readyz": "open"}
    assert {rule.rstrip("/") or "/": kind for rule, kind in found.items()} == {
        rule.rstrip("/") or "/": kind for rule, kind in expected.items()
    }


def _methods(methods: set[str] | None, is_start: bool) -> str:
    """Tell the start page's path from the call at the same path."""
    return "POST " if is_start and "POST" in (methods or ()) else ""


async def test_M2_an_app_with_an_undeclared_route_does_not_start() -> None:
    app = Quart("bare")
    app.add_url_rule("/open", "forgotten", lambda: "")
    with pytest.raises(RuntimeError, match="forgotten"):
        check_access_classes(app)


@pytest.mark.parametrize("path", ["/", "/openapi.json", "/healthz", "/readyz", "/static/style.css"])
async def test_M1_open_routes_answer_everybody(http: httpx.AsyncClient, path: str) -> None:
    for headers in ({}, OPERATOR, {"Authorization": "Bearer wrong"}):
        assert (await http.get(path, headers=headers)).status_code == 200


@pytest.mark.parametrize("path", ["/v1/models", "/v1/models/auto", "/v1/usage", "/dashboard/billing/usage"])
async def test_M1_api_routes_answer_only_good_keys(
    house: House, http: httpx.AsyncClient, settings: SettingsChange, path: str
) -> None:
    settings(anonymous="off")
    assert (await http.get(path, headers=OPERATOR)).status_code == 200
    issued = await house.runtime.keys.issue(NewKey("somebody", None))
    assert (await http.get(path, headers={"Authorization": f"Bearer {issued.secret}"})).status_code == 200
    await house.runtime.keys.revoke(issued.key.id)
    wrong = ["wrong", "sk-c2a-unknown", make_key(), issued.secret]
    for headers in ({}, *({"Authorization": f"Bearer {key}"} for key in wrong)):
        answer = await http.get(path, headers=headers)
        assert answer.status_code == 401
        assert answer.json()["error"]["code"] == "invalid_api_key"


async def test_M1_site_routes_answer_only_good_tokens_and_say_no_in_their_own_form(
    house: House, http: httpx.AsyncClient, settings: SettingsChange, sim: Simulator
) -> None:
    settings(anonymous="off")
    paths = [path.replace("<conversation_id>", "c") for path, kind in EXPECTED_CLASSES.items() if kind == "site"]
    async with Person(house.base) as person:
        await person.sign_in()
        cookie = {"Cookie": f"chat2api={person.cookies['chat2api']}"}
    sim.control.reset()
    for path in paths:
        for method in ("GET", "POST", "PATCH"):
            allowed = (await http.request(method, path, headers=OPERATOR, json={})).status_code
            if allowed == 404 and (method, path) not in FOUND_NOWHERE:
                continue
            assert allowed in (200, 404, 422), f"{method} {path}: {allowed}"
            for headers, status in (({}, 403), (cookie, 403), ({"Authorization": "Bearer wrong"}, 401)):
                answer = await http.request(method, path, headers=headers, json={})
                assert answer.status_code == status, f"{method} {path}"
                assert list(answer.json()) == ["errorMessage"]
                assert "access-control-allow-origin" not in answer.headers
                house.runtime.guesses = Guesses(house.runtime.clock)


async def test_M1_admin_routes_answer_the_operator_alone(house: House, http: httpx.AsyncClient, sim: Simulator) -> None:
    admin = [re.sub(r"<(\w)\w*>", r"\1", path) for path, kind in EXPECTED_CLASSES.items() if kind == "admin"]
    own = {"Authorization": f"Bearer {sim.control.add_account().access_token}"}
    issued = await house.runtime.keys.issue(NewKey("somebody", None))
    person = {"Authorization": f"Bearer {issued.secret}"}
    for path in admin:
        for method in ("GET", "POST", "PATCH", "DELETE"):
            allowed = (await http.request(method, path, headers=OPERATOR, json={"x": 1})).status_code
            if allowed == 405:
                continue
            assert allowed in (200, 202, 400, 404), f"{method} {path}"
            for headers, status in (({}, 401), ({"Authorization": "Bearer wrong"}, 401), (own, 401), (person, 403)):
                answer = await http.request(method, path, headers=headers, json={"x": 1})
                assert answer.status_code == status, f"{method} {path}"
                assert "access-control-allow-origin" not in answer.headers
    assert house.runtime.pool.statistics().total == 1, "no unknown field cleared the pool"


# Closed by default

HOSTS = [("127.0.0.1",), ("0.0.0.0",), ("::1", "127.0.0.1")]
POLICIES = [("on", "loopback"), ("loopback", "loopback"), ("off", "off"), ("on", "on")]


@pytest.mark.parametrize(
    ("host", "policy", "trusted"), list(itertools.product(HOSTS, POLICIES, [(), ("127.0.0.0/8",)]))
)
async def test_S1_no_keyless_call_reaches_the_pool(
    http: httpx.AsyncClient,
    settings: SettingsChange,
    sim: Simulator,
    host: tuple[str, ...],
    policy: tuple[str, str],
    trusted: tuple[str, ...],
) -> None:
    own, anonymous = policy
    settings(host=host, own_tokens=own, anonymous=anonymous, trusted_proxies=trusted)
    sim.control.reset()
    answer = await http.post(CHAT, json=BODY)
    for recorded in sim.control.requests_to("conversation"):
        assert "authorization" not in {name.lower() for name, _ in recorded.request.headers}
    only_here = not trusted and "0.0.0.0" not in host
    allowed = anonymous == "on" or (anonymous == "loopback" and only_here)
    assert answer.status_code == (200 if allowed else 401)
    if not allowed:
        assert "ANONYMOUS" in answer.json()["error"]["message"]
        assert not sim.control.requests_to("conversation")


async def test_S1_a_proxy_that_only_public_origins_tells_of_opens_nothing(
    http: httpx.AsyncClient, settings: SettingsChange, sim: Simulator
) -> None:
    settings(public_origins=("https://chat.example.test",), own_tokens="loopback")
    sim.control.reset()
    own = {"Authorization": f"Bearer {sim.control.accounts[1].access_token}"}
    for headers in ({"Host": "chat.example.test"}, {"Host": "localhost"}, own):
        assert (await http.post(CHAT, json=BODY, headers=headers)).status_code == 401
    assert not sim.control.requests


async def test_S1_when_the_key_cannot_be_kept_everything_that_needs_it_is_shut(
    house: House, http: httpx.AsyncClient
) -> None:
    before = house.runtime.operator_keys
    house.runtime.operator_keys = OperatorKeys((), shut="The operator key cannot be written: DATA_DIR.")
    try:
        answer = await http.get("/v1/models", headers=OPERATOR)
        assert answer.status_code == StorageError.status
        assert "DATA_DIR" in answer.json()["error"]["message"]
        assert (await http.get("/readyz")).text == "degraded"
        assert (await http.post(CHAT, json=BODY)).status_code == 200, "the policies still work"
    finally:
        house.runtime.operator_keys = before


async def test_S1_a_generated_key_works_and_another_process_can_replace_it(sim: Simulator, tmp_path: Path) -> None:
    from chat2api.keys.operator import KEY_FILE, make_operator_key
    from chat2api.storage.sql_records import SqlRecords

    data = tmp_path / "data"
    async with (
        open_house(data, sim, tokens=[sim.control.accounts[0].access_token], AUTHORIZATION="") as house,
        httpx.AsyncClient(base_url=house.base, timeout=30) as client,
    ):
        first = (data / KEY_FILE).read_text().strip()
        assert (await client.get("/v1/models", headers={"Authorization": f"Bearer {first}"})).status_code == 200
        records = await SqlRecords.open(data)
        await make_operator_key(records, data)
        await records.aclose()
        second = (data / KEY_FILE).read_text().strip()
        for _ in range(100):
            answer = await client.get("/v1/models", headers={"Authorization": f"Bearer {second}"})
            if answer.status_code == 200:
                break
            await house.runtime.clock.sleep(0.05)
        assert answer.status_code == 200
        assert (await client.get("/v1/models", headers={"Authorization": f"Bearer {first}"})).status_code == 401


# The prefix


async def test_S3_with_a_prefix_bare_paths_are_closed_and_health_answers_both_ways(
    sim: Simulator, tmp_path: Path
) -> None:
    tokens = [sim.control.accounts[0].access_token]
    async with (
        open_house(tmp_path / "data", sim, tokens=tokens, API_PREFIX="my/api") as house,
        httpx.AsyncClient(base_url=house.base, timeout=30) as client,
    ):
        closed = {
            (await client.request(method, path, headers=headers)).content
            for method, path in [("GET", "/v1/models"), ("GET", "/openapi.json"), ("GET", "/no/such"), ("GET", "/")]
            for headers in ({}, OPERATOR)
        }
        assert len(closed) == 1, "all bare paths answer the same bytes"
        assert (await client.post(CHAT, json=BODY, headers=OPERATOR)).status_code == 404
        assert (await client.post(f"/my/api{CHAT}", json=BODY, headers=OPERATOR)).status_code == 200
        for path in ("/healthz", "/my/api/healthz", "/readyz", "/my/api/readyz"):
            assert (await client.get(path)).status_code == 200
        page = (await client.get("/my/api/")).text
        assert "/my/api/static/style.css" in page
        assert (await client.get("/my/api/static/style.css")).status_code == 200


# Nothing falls through, nothing is chosen by the caller


async def test_S4_random_paths_and_methods_never_reach_upstream(http: httpx.AsyncClient, sim: Simulator) -> None:
    chooser = random.Random(4)
    sim.control.reset()
    parts = [
        "v1",
        "chat",
        "completions",
        "models",
        "backend-api",
        "conversation",
        "..",
        "%2e%2e",
        "tokens",
        "@",
        "a b",
        "%00",
    ]
    for _ in range(150):
        path = "/" + "/".join(chooser.choice(parts) for _ in range(chooser.randint(1, 4)))
        method = chooser.choice(["GET", "PUT", "PATCH", "DELETE", "OPTIONS"])
        answer = await http.request(method, path, headers=chooser.choice([{}, OPERATOR]))
        assert answer.status_code < 500, (method, path)
    assert not sim.control.requests_to("conversation")
    assert not sim.control.requests_to("requirements")


HOSTILE_IDS = [
    "../../accounts", "a/b", "a?b=c", "a#b", "a%2fb", "@evil.test", "//evil.test", "\\evil.test", ".evil.test", "a;b",
    "a\r\nX: y", "a b", "", "é", "x" * 200, "..", "http://evil.test/", "a\x00b",
]  # fmt: skip


@pytest.mark.parametrize("hostile", HOSTILE_IDS)
@pytest.mark.parametrize("field", ["conversation_id", "parent_message_id", "ChatGPT-Account-ID"])
async def test_S6_ids_that_could_change_a_path_or_host_are_refused(
    http: httpx.AsyncClient, sim: Simulator, field: str, hostile: str
) -> None:
    sim.control.reset()
    answer = await http.post(CHAT, json=BODY | {field: hostile}, headers=OPERATOR)
    if hostile:
        assert answer.status_code in (400, 404), answer.text
        assert not sim.control.requests_to("conversation")
    for record in sim.control.requests:
        assert "evil" not in str(record.request)


# One credential, one meaning

WRONG_SPELLINGS: list[list[tuple[str, str]]] = [
    [("X-Api-Key", OPERATOR_KEY)],
    [("Api-Key", OPERATOR_KEY)],
    [("OpenAI-Api-Key", OPERATOR_KEY)],
    [("Proxy-Authorization", f"Bearer {OPERATOR_KEY}")],
    [("X-Authorization", f"Bearer {OPERATOR_KEY}")],
    [("Authorization ", f"Bearer {OPERATOR_KEY}")],
    [("Cookie", f"token={OPERATOR_KEY}")],
    [("Authorization", OPERATOR_KEY)],
    [("Authorization", f"Basic {OPERATOR_KEY}")],
    [("Authorization", f"Token {OPERATOR_KEY}")],
    [("Authorization", f"Bearer{OPERATOR_KEY}")],
    [("Authorization", f"Bearer: {OPERATOR_KEY}")],
    [("Authorization", f"Bearer Bearer {OPERATOR_KEY}")],
    [("Authorization", f'Bearer "{OPERATOR_KEY}"')],
    [("Authorization", f"Bearer {OPERATOR_KEY} x")],
    [("Authorization", f"Bearer x {OPERATOR_KEY}")],
    [("Authorization", f"Bearer {OPERATOR_KEY.upper()}")],
    [("Authorization", f"Bearer {OPERATOR_KEY[:-1]}")],
    [("Authorization", f"Bearer {OPERATOR_KEY}x")],
    [("Authorization", f"Bearer {OPERATOR_KEY};")],
    [("Authorization", f"Bearer x,{OPERATOR_KEY}")],
    [("Authorization", "Bearer")],
    [("Authorization", "Bearer ,")],
    [("Authorization", "Bearer *")],
    [("Authorization", "Bearer null")],
    [("Authorization", "Bearer undefined")],
    [("Authorization", "Bearer []")],
    [("Authorization", "Bearer ' OR 1=1 --")],
    [("Authorization", f"Bearer {OPERATOR_KEY}"), ("Authorization", f"Bearer {OPERATOR_KEY}")],
    [("Authorization", f"Bearer {OPERATOR_KEY}"), ("authorization", "Bearer x")],
]


@pytest.mark.parametrize("headers", WRONG_SPELLINGS)
async def test_S7_no_other_spelling_carries_a_key(
    http: httpx.AsyncClient, settings: SettingsChange, headers: list[tuple[str, str]]
) -> None:
    settings(anonymous="off")
    try:
        answer = await http.get("/v1/models", headers=headers)
    except httpx.LocalProtocolError:
        return  # no client can even send it
    assert answer.status_code in (400, 401)


async def test_S7_a_key_in_the_query_is_no_key(http: httpx.AsyncClient, settings: SettingsChange) -> None:
    settings(anonymous="off")
    for name in ("key", "api_key", "token", "access_token", "authorization"):
        assert (await http.get(f"/v1/models?{name}={OPERATOR_KEY}")).status_code == 401


@pytest.mark.parametrize("scheme", ["Bearer", "bearer", "BEARER"])
async def test_the_scheme_may_be_written_in_any_case(http: httpx.AsyncClient, scheme: str) -> None:
    assert (await http.get("/v1/models", headers={"Authorization": f"{scheme}  {OPERATOR_KEY}"})).status_code == 200


# Calls without a key


@pytest.mark.parametrize(
    "host",
    [
        "evil.test",
        "evil.test:5005",
        "127.0.0.1.evil.test",
        "localhost.evil.test",
        "chatgpt.com",
        "x",
    ],
)
async def test_S23_keyless_calls_are_refused_under_foreign_host_names(http: httpx.AsyncClient, host: str) -> None:
    answer = await http.post(CHAT, json=BODY, headers={"Host": host})
    assert answer.status_code == 421
    assert "PUBLIC_ORIGINS" in answer.json()["error"]["message"]
    assert host not in answer.text
    assert (await http.get("/v1/models", headers={"Host": host, **OPERATOR})).status_code == 200


async def test_S23_a_named_origin_is_answered_for(http: httpx.AsyncClient, settings: SettingsChange) -> None:
    settings(public_origins=("https://chat.example.test",), anonymous="on")
    assert (await http.post(CHAT, json=BODY, headers={"Host": "chat.example.test"})).status_code == 200


async def test_S25_a_keyless_call_from_a_foreign_page_is_refused(
    http: httpx.AsyncClient, settings: SettingsChange
) -> None:
    origin = {"Origin": "https://page.example.test"}
    refused = await http.post(CHAT, json=BODY, headers=origin)
    assert refused.status_code == 403
    assert "CORS_ORIGINS" in refused.json()["error"]["message"]
    assert "access-control-allow-origin" not in refused.headers
    settings(cors_origins=("https://page.example.test",))
    assert (await http.post(CHAT, json=BODY, headers=origin)).status_code == 200


async def test_S25_calls_with_a_key_are_open_to_every_page(http: httpx.AsyncClient) -> None:
    origin = {"Origin": "https://page.example.test"}
    preflight = await http.options(
        CHAT,
        headers=origin
        | {
            "Access-Control-Request-Method": "POST",
            "Access-Control-Request-Headers": "authorization, content-type, x-stainless-os",
        },
    )
    assert preflight.status_code == 204
    assert preflight.headers["access-control-allow-origin"] == "*"
    assert "x-stainless-os" in preflight.headers["access-control-allow-headers"]
    assert int(preflight.headers["access-control-max-age"]) >= 3600
    answer = await http.post(CHAT, json=BODY, headers=origin | OPERATOR)
    assert answer.headers["access-control-allow-origin"] == "*"
    assert "access-control-allow-credentials" not in answer.headers
    failed = await http.post(CHAT, json={}, headers=origin | OPERATOR)
    assert failed.status_code == 400
    assert failed.headers["access-control-allow-origin"] == "*", "a page must be able to read the error"


async def test_S25_without_authorization_a_preflight_opens_nothing(http: httpx.AsyncClient) -> None:
    headers = {
        "Origin": "https://page.example.test",
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": "content-type",
    }
    assert "access-control-allow-origin" not in (await http.options(CHAT, headers=headers)).headers
    for path in ("/", "/openapi.json", "/healthz"):
        answer = await http.get(path, headers={"Origin": "https://page.example.test", **OPERATOR})
        assert "access-control-allow-origin" not in answer.headers


@pytest.mark.parametrize("content_type", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data", ""])
async def test_S25_only_json_is_taken(http: httpx.AsyncClient, content_type: str) -> None:
    answer = await http.post(CHAT, content=json.dumps(BODY), headers=OPERATOR | {"Content-Type": content_type})
    assert answer.status_code == 415


async def test_own_tokens_are_governed_by_their_setting(
    http: httpx.AsyncClient, settings: SettingsChange, sim: Simulator
) -> None:
    headers = {"Authorization": f"Bearer {sim.control.accounts[1].access_token}"}
    assert (await http.post(CHAT, json=BODY, headers=headers)).status_code == 200
    settings(own_tokens="off")
    refused = await http.post(CHAT, json=BODY, headers=headers)
    assert refused.status_code == 401
    assert "OWN_TOKENS" in refused.json()["error"]["message"]
    settings(own_tokens="loopback", host=("0.0.0.0",))
    assert (await http.post(CHAT, json=BODY, headers=headers)).status_code == 401


@pytest.mark.parametrize(("policy", "allowed"), [("own_tokens", 30), ("anonymous", 10)])
async def test_calls_without_our_keys_are_limited_by_address(
    http: httpx.AsyncClient, settings: SettingsChange, sim: Simulator, policy: str, allowed: int
) -> None:
    settings(**{policy: "on", "trusted_proxies": ("127.0.0.1/32",)})
    headers = {"X-Forwarded-For": f"198.51.100.{allowed}"}
    if policy == "own_tokens":
        headers["Authorization"] = f"Bearer {sim.control.accounts[1].access_token}"
    statuses = [(await http.get("/v1/models", headers=headers)).status_code for _ in range(allowed + 1)]
    assert statuses == [200] * allowed + [429]
    refused = await http.get("/v1/models", headers=headers)
    assert 1 <= int(refused.headers["retry-after"]) <= 60
    other = await http.get("/v1/models", headers=headers | {"X-Forwarded-For": f"203.0.113.{allowed}"})
    assert other.status_code == 200


async def test_S14_forwarding_headers_of_strangers_are_not_believed(
    http: httpx.AsyncClient, settings: SettingsChange
) -> None:
    settings(trusted_proxies=("10.0.0.0/8",), anonymous="on")
    # Our own address is loopback whatever the header says, so nothing is counted and nothing is limited.
    statuses = {
        (await http.get("/v1/models", headers={"X-Forwarded-For": "198.51.100.99"})).status_code for _ in range(15)
    }
    assert statuses == {200}


async def test_S14_wrong_issued_keys_count_as_guesses_and_right_ones_work_all_the_same(
    house: House, http: httpx.AsyncClient, settings: SettingsChange
) -> None:
    issued = await house.runtime.keys.issue(NewKey("somebody", None))
    statuses = []
    for _ in range(12):
        answer = await http.get("/v1/models", headers={"Authorization": f"Bearer {make_key()}"})
        statuses.append(answer.status_code)
    assert statuses == [401] * 10 + [429] * 2
    assert 1 <= int(answer.headers["retry-after"]) <= 60
    assert (await http.get("/v1/models", headers={"Authorization": f"Bearer {issued.secret}"})).status_code == 200
    assert (await http.get("/v1/models", headers={"Authorization": "Bearer another"})).status_code == 429


# Sizes


async def test_S37_a_body_over_the_limit_is_refused(http: httpx.AsyncClient) -> None:
    large = {"model": "auto", "messages": [{"role": "user", "content": "x" * (20 * 1024 * 1024)}]}
    answer = await http.post(CHAT, json=large, headers=OPERATOR)
    assert answer.status_code == 413
    assert answer.json()["error"]["type"] == "invalid_request_error"


async def test_S37_depth_and_number_of_messages_are_bounded(http: httpx.AsyncClient) -> None:
    deep = '{"model":"auto","messages":[],"metadata":' + "[" * 100 + "]" * 100 + "}"
    answer = await http.post(CHAT, content=deep, headers=OPERATOR | {"Content-Type": "application/json"})
    assert (answer.status_code, "deep" in answer.json()["error"]["message"]) == (400, True)
    many = BODY | {"messages": [{"role": "user", "content": "x"}] * 2049}
    answer = await http.post(CHAT, json=many, headers=OPERATOR)
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "messages")


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"null", b'"x"', b"\xff\xfe", b'{"a":NaN}', b"{'a':1}"])
async def test_bad_json_is_a_clear_400(http: httpx.AsyncClient, body: bytes) -> None:
    answer = await http.post(CHAT, content=body, headers=OPERATOR | {"Content-Type": "application/json"})
    assert answer.status_code == 400
    assert answer.json()["error"]["message"]


async def test_S24_pages_carry_the_headers_that_keep_foreign_script_out(http: httpx.AsyncClient) -> None:
    answer = await http.get("/")
    policy = answer.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "'unsafe" not in policy
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["referrer-policy"] == "same-origin"
    assert answer.text.count("<script") == answer.text.count('<script src="/static/')
    assert " style=" not in answer.text
