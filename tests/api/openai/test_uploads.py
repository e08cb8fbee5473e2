"""Forms with files through the server: they arrive as they were, are held to their caller's rights, and are never held whole."""

import asyncio
import random
from collections.abc import AsyncIterator

import openai
import pytest

from chat2api.simulator import openai_api
from chat2api.simulator.faults import Fault
from chat2api.storage.keys import KeyLimits, NewKey
from chat2api.upstream.uploads import KEPT, LIMIT, Upload
from tests.api.openai.forwarding import OPERATOR, Forwarding, open_forwarding
from tests.e2e.harness import until

pytestmark = pytest.mark.asyncio(loop_scope="module")

SOUND = random.Random(5).randbytes(300_000)
KIND = {"Content-Type": "multipart/form-data; boundary=XX"}


def part(name: str, value: bytes, file: str = "") -> bytes:
    told = f'; filename="{file}"' if file else ""
    return f'--XX\r\nContent-Disposition: form-data; name="{name}"{told}\r\n\r\n'.encode() + value + b"\r\n"


async def test_a_sound_is_written_down(client: openai.AsyncOpenAI, forwarding: Forwarding) -> None:
    made = await client.audio.transcriptions.create(model="whisper-1", file=("a.mp3", SOUND))
    assert made.text == "Nile, Amazon, Danube."
    assert SOUND in forwarding.api.control.requests[-1].request.body
    body = part("model", b"whisper-1") + part("file", SOUND, "a") + part("response_format", b"text") + b"--XX--\r\n"
    plain = await forwarding.http.post("/v1/audio/translations", content=body, headers=KIND)
    assert (plain.text, plain.headers["content-type"]) == ("Nile, Amazon, Danube.\n", "text/plain; charset=utf-8")


async def test_a_sound_may_be_written_down_as_a_stream(client: openai.AsyncOpenAI) -> None:
    stream = await client.audio.transcriptions.create(model="gpt-4o-transcribe", file=("a.mp3", SOUND), stream=True)
    assert [event.type async for event in stream][-1] == "transcript.text.done"


async def test_pictures_are_changed_and_counted(client: openai.AsyncOpenAI, forwarding: Forwarding) -> None:
    assert (await client.images.edit(image=("a.png", b"png"), prompt="x", model="gpt-image-1")).data
    varied = await forwarding.http.post(
        "/v1/images/variations", content=part("image", b"png", "a.png") + b"--XX--\r\n", headers=KIND
    )
    assert varied.status_code == 200
    rows = (await forwarding.http.get("/v1/usage")).json()["models"]
    assert {row["model"]: row["images"] for row in rows}["gpt-image-1"] == 1


@pytest.mark.parametrize("first", ["n", "image"])
async def test_all_pictures_that_are_asked_for_are_counted(forwarding: Forwarding, first: str) -> None:
    async def counted() -> int:
        rows = (await forwarding.http.get("/v1/usage")).json()["models"]
        return next((row["images"] for row in rows if row["model"] == "gpt-image-1"), 0)

    before = await counted()
    n, image = part("n", b"3"), part("image", SOUND * 3, "a.png")
    body = part("model", b"gpt-image-1") + (n + image if first == "n" else image + n) + b"--XX--\r\n"
    made = await forwarding.http.post("/v1/images/edits", content=body, headers=KIND)
    assert len(made.json()["data"]) == 3
    assert await counted() - before == 3


async def test_R8_pictures_in_a_form_are_reserved_for_before_they_are_made(forwarding: Forwarding) -> None:
    headers = await forwarding.issue(limits=KeyLimits(tokens_per_minute=3000)) | KIND

    async def edit(*fields: bytes) -> int:
        content = b"".join(fields) + part("image", b"png", "a.png") + b"--XX--\r\n"
        return (await forwarding.http.post("/v1/images/edits", content=content, headers=headers)).status_code

    model = part("model", b"gpt-image-1")
    assert await edit(model, part("n", b"3")) == 429
    assert await edit(model, part("quality", b"high")) == 429
    assert await edit(model, part("n", b"2")) == 200
    assert await edit(part("n", b"10")) == 200  # dall-e-2 bills no tokens


async def test_files_are_kept_listed_read_and_removed_by_the_one_who_made_them(
    client: openai.AsyncOpenAI, forwarding: Forwarding
) -> None:
    made = [await client.files.create(file=(f"{n}.bin", SOUND[n:]), purpose="user_data") for n in range(6)]
    assert len({record.account for record in forwarding.api.control.requests_to("file_upload")}) > 1
    assert {one.id async for one in client.files.list()} == {one.id for one in made}
    assert len((await client.files.list(limit=2)).data) == 2
    assert [one async for one in client.files.list(purpose="batch")] == []
    for number, one in enumerate(made):
        assert (await client.files.retrieve(one.id)).bytes == len(SOUND) - number
        assert (await client.files.content(one.id)).content == SOUND[number:]
    async with forwarding.house.client((await forwarding.issue(models=["*"]))["Authorization"][7:]) as other:
        assert [one async for one in other.files.list()] == []
        for attempt in (
            other.files.retrieve(made[0].id),
            other.files.delete(made[0].id),
            other.files.content(made[0].id),
        ):
            with pytest.raises(openai.NotFoundError):
                await attempt
    for one in made:
        assert (await client.files.delete(one.id)).deleted
    assert [one async for one in client.files.list()] == []


async def test_a_list_of_files_tells_what_is_known_and_that_some_is_missing(
    client: openai.AsyncOpenAI, forwarding: Forwarding, caplog: pytest.LogCaptureFixture
) -> None:
    made = [await client.files.create(file=("a.bin", b"x"), purpose="user_data") for _ in range(6)]
    by_key: dict[str, set[str]] = {}
    for one, record in zip(made, forwarding.api.control.requests_to("file_upload"), strict=True):
        by_key.setdefault(str(record.account), set()).add(one.id)
    assert len(by_key) > 1
    failing, *others = by_key
    whole = await forwarding.http.get("/v1/files")
    assert "x-chat2api-incomplete" not in whole.headers
    assert {one["id"] for one in whole.json()["data"]} == {one.id for one in made}
    forwarding.api.control.fail("files", openai_api.fault(openai_api.error(404, "No.")), account=failing, times=None)
    part_of = await forwarding.http.get("/v1/files")
    assert (part_of.status_code, part_of.headers["x-chat2api-incomplete"]) == (200, "true")
    assert {one["id"] for one in part_of.json()["data"]} == set().union(*(by_key[key] for key in others))
    assert "are missing in a list" in caplog.text
    for end in others:
        forwarding.api.control.fail("files", openai_api.fault(openai_api.error(404, "No.")), account=end, times=None)
    assert (await forwarding.http.get("/v1/files")).status_code >= 400
    forwarding.fresh()
    for one in made:
        await client.files.delete(one.id)


async def test_files_of_different_keys_are_not_used_together(
    client: openai.AsyncOpenAI, forwarding: Forwarding
) -> None:
    made = [await client.files.create(file=("a.bin", b"x"), purpose="user_data") for _ in range(8)]
    content = [{"type": "input_file", "file_id": one.id} for one in made]
    answer = await forwarding.http.post(
        "/v1/responses", json={"model": "gpt-4.1", "input": [{"role": "user", "content": content}]}
    )
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "objects_of_different_keys")
    for one in made:
        alone = [{"role": "user", "content": [{"type": "input_file", "file_id": one.id}]}]
        assert (
            await forwarding.http.post("/v1/responses", json={"model": "gpt-4.1", "input": alone})
        ).status_code == 200


@pytest.mark.parametrize("first", ["model", "file"])
@pytest.mark.parametrize("sized", [True, False])
async def test_a_form_arrives_byte_for_byte_whatever_its_order_and_framing(
    forwarding: Forwarding, first: str, sized: bool
) -> None:
    model, file = part("model", b"whisper-1"), part("file", SOUND * 3, "a.mp3")
    body = b"preamble\r\n" + (model + file if first == "model" else file + model) + b"--XX--\r\nepilogue"

    async def pieces() -> AsyncIterator[bytes]:
        for at in range(0, len(body), 50_000):
            yield body[at : at + 50_000]

    answer = await forwarding.http.post("/v1/audio/transcriptions", content=body if sized else pieces(), headers=KIND)
    assert (answer.status_code, answer.json()["text"]) == (200, "Nile, Amazon, Danube.")
    sent = forwarding.api.control.requests[-1].request
    assert sent.body == body
    assert (sent.header("content-length") == str(len(body))) is sized
    assert sent.header("content-type") == KIND["Content-Type"]


@pytest.mark.parametrize("file", [b"short", SOUND * 3])
@pytest.mark.parametrize("sized", [True, False])
async def test_a_form_may_name_the_provider_in_its_model(forwarding: Forwarding, file: bytes, sized: bool) -> None:
    rest = part("file", b"openai/" + file, "a.mp3") + part("language", b"openai/en") + b"--XX--\r\n"
    body = b"preamble\r\n" + part("prompt", b"openai/") + part("model", b"openai/whisper-1") + rest

    async def pieces() -> AsyncIterator[bytes]:
        for at in range(0, len(body), 50):
            yield body[at : at + 50]
            if at > 10_000:
                yield body[at + 50 :]
                return

    headers = await forwarding.issue(models=["whisper-1"]) | KIND
    answer = await forwarding.http.post(
        "/v1/audio/transcriptions", content=body if sized else pieces(), headers=headers
    )
    assert (answer.status_code, answer.json()["text"]) == (200, "Nile, Amazon, Danube.")
    sent = forwarding.api.control.requests[-1].request
    assert sent.body == b"preamble\r\n" + part("prompt", b"openai/") + part("model", b"whisper-1") + rest
    assert (sent.header("content-length") == str(len(sent.body))) is sized
    rows = (await forwarding.http.get("/v1/usage")).json()["models"]
    assert "openai/whisper-1" not in {row["model"] for row in rows}


@pytest.mark.parametrize("first", ["model", "file"])
async def test_a_model_that_the_key_has_not_reaches_nobody_wherever_it_stands(
    forwarding: Forwarding, first: str
) -> None:
    headers = await forwarding.issue(models=["gpt-4.1"]) | KIND
    model, file = part("model", b"whisper-1"), part("file", SOUND * 3, "a.mp3")
    body = (model + file if first == "model" else file + model) + b"--XX--\r\n"
    answer = await forwarding.http.post("/v1/audio/transcriptions", content=body, headers=headers)
    assert (answer.status_code, answer.json()["error"]["code"]) == (404, "model_not_found")
    assert forwarding.api.control.requests == [], "no whole request has arrived"
    allowed = await forwarding.http.post(
        "/v1/audio/transcriptions", content=body, headers=await forwarding.issue(models=["whisper-*"]) | KIND
    )
    assert allowed.status_code == 200


@pytest.mark.parametrize("first", ["model", "file"])
async def test_S39_a_type_that_says_more_is_sent_on_as_what_was_read(forwarding: Forwarding, first: str) -> None:
    model, file = part("model", b"whisper-1"), part("file", SOUND, "a.mp3")
    body = (model + file if first == "model" else file + model) + b"--XX--\r\n"
    odd = {b"Content-Type": "multipart/form-data; charset=utf-8; boundary=XX; x=caf\xe9".encode("latin-1")}
    answer = await forwarding.http.post("/v1/audio/transcriptions", content=body, headers=odd)
    assert answer.status_code == 200
    assert forwarding.api.control.requests[-1].request.header("content-type") == KIND["Content-Type"]


async def test_in_a_tier_the_model_that_is_charged_comes_before_a_long_file(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    folder = tmp_path_factory.mktemp("tier")
    tiers = folder / "tiers.toml"
    tiers.write_text(
        '[makers]\nbase = "/makers"\n[makers.models]\nwhisper-1 = { requests_per_minute = 1, tokens_per_minute = "unlimited" }\n'
    )
    async with open_forwarding(folder, TIERS_FILE=str(tiers)) as makers:
        issued = await makers.house.runtime.keys.issue(NewKey("a maker", None, tier="makers"))
        headers = {"Authorization": f"Bearer {issued.secret}"} | KIND
        model, file = part("model", b"whisper-1"), part("file", SOUND * 3, "a.mp3")
        url = "/makers/v1/audio/transcriptions"
        late = await makers.http.post(url, content=file + model + b"--XX--\r\n", headers=headers)
        assert (late.status_code, late.json()["error"]["param"]) == (400, "model")
        for status in (200, 429):
            answer = await makers.http.post(url, content=model + file + b"--XX--\r\n", headers=headers)
            assert answer.status_code == status


@pytest.mark.parametrize(
    ("body", "kind", "status"),
    [
        (b"{}", "application/json", 415),
        (part("model", b"whisper-1"), "multipart/form-data; boundary=XX; boundary=YY", 415),
        (part("model", b"whisper-1") + part("model", b"tts-1", "") + b"--XX--\r\n", KIND["Content-Type"], 400),
        (part("file", b"x", "a"), KIND["Content-Type"], 400),
        (part("file", b"x", "a") + b"--XX--\r\n", KIND["Content-Type"], 400),
        (part("model", b"whisper-1") * 2 + b"--XX--\r\n", KIND["Content-Type"], 400),
        (part("model", b"chatgpt/whisper-1") + b"--XX--\r\n", KIND["Content-Type"], 404),
        (part("file", SOUND * 3, "a") + part("model", b"openai/whisper-1") + b"--XX--\r\n", KIND["Content-Type"], 400),
        (b"nothing", KIND["Content-Type"], 400),
        (b"", KIND["Content-Type"], 400),
    ],
)
async def test_a_wrong_form_reaches_nobody(forwarding: Forwarding, body: bytes, kind: str, status: int) -> None:
    answer = await forwarding.http.post("/v1/audio/transcriptions", content=body, headers={"Content-Type": kind})
    assert (answer.status_code, answer.json()["error"]["type"]) == (status, "invalid_request_error")
    assert forwarding.api.control.requests == []


async def test_R3_a_short_form_goes_on_to_the_next_key_and_a_long_one_does_not(
    client: openai.AsyncOpenAI, forwarding: Forwarding
) -> None:
    forwarding.api.control.fail("transcriptions", openai_api.limited(time="1s"))
    assert (await client.audio.transcriptions.create(model="whisper-1", file=("a", SOUND))).text
    assert len(forwarding.api.control.requests_to("transcriptions")) == 2
    forwarding.fresh()
    forwarding.api.control.fail("transcriptions", Fault("answer", status=500))
    with pytest.raises(openai.InternalServerError):
        await client.audio.transcriptions.create(model="whisper-1", file=("a", SOUND * 10))
    assert len(forwarding.api.control.requests_to("transcriptions")) == 1


async def test_S37_a_hundred_megabytes_pass_with_little_held(
    forwarding: Forwarding, monkeypatch: pytest.MonkeyPatch
) -> None:
    size = 100 * 1024 * 1024 - 4096
    most = 0
    real = Upload.put

    async def watched(self: Upload, data: bytes) -> bool:
        nonlocal most
        done = await real(self, data)
        most = max(most, len(self._start) + self._waiting)
        return done

    monkeypatch.setattr(Upload, "put", watched)
    block = b"a" * 65536

    async def pieces() -> AsyncIterator[bytes]:
        yield part("purpose", b"user_data") + part("file", b"", "a")[:-2]
        for _ in range(size // len(block)):
            yield block
        yield b"\r\n--XX--\r\n"

    answer = await forwarding.http.post("/v1/files", content=pieces(), headers=KIND, timeout=90)
    assert (answer.status_code, answer.json()["bytes"]) == (200, size // len(block) * len(block))
    assert most <= KEPT + LIMIT + 256 * 1024
    await forwarding.http.delete(f"/v1/files/{answer.json()['id']}")


async def test_S37_more_than_that_is_a_413(forwarding: Forwarding) -> None:
    host, port = forwarding.house.base.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    head = f"POST /v1/files HTTP/1.1\r\nHost: {host}\r\nAuthorization: {OPERATOR['Authorization']}\r\n"
    head += f"Content-Type: {KIND['Content-Type']}\r\nContent-Length: {100 * 1024 * 1024 + 1}\r\n\r\n"
    writer.write(head.encode() + b"a" * 1000)
    assert (await reader.readline()).startswith(b"HTTP/1.1 413 ")
    writer.close()
    await writer.wait_closed()
    assert forwarding.api.control.requests == []


async def test_R10_a_caller_who_leaves_in_the_middle_ends_the_call(forwarding: Forwarding) -> None:
    begun = asyncio.Event()

    async def pieces() -> AsyncIterator[bytes]:
        yield part("model", b"whisper-1") + part("file", SOUND * 4, "a")[:-2]
        begun.set()
        await asyncio.sleep(60)
        yield b"never"

    runtime = forwarding.house.runtime
    asking = asyncio.ensure_future(forwarding.http.post("/v1/audio/transcriptions", content=pieces(), headers=KIND))
    await begun.wait()
    await until(lambda: len(runtime.answers) == 1, "the call has not begun")
    asking.cancel()
    await asyncio.gather(asking, return_exceptions=True)
    await until(lambda: not runtime.answers, "the call still runs")
    await until(lambda: not runtime.openai.pool.statistics().in_flight, "its key is not free")
    assert forwarding.api.control.requests == []


async def test_an_answer_that_comes_before_the_end_of_the_form_is_given_at_once(forwarding: Forwarding) -> None:
    wrong = {"Authorization": "Bearer sk-somebody-elses", **KIND}
    body = part("model", b"whisper-1") + part("file", SOUND * 20, "a") + b"--XX--\r\n"
    answer = await forwarding.http.post("/v1/audio/transcriptions", content=body, headers=wrong)
    assert (answer.status_code, answer.json()["error"]["code"]) == (401, "invalid_api_key")
