"""POST /v1/chat/completions."""

from dataclasses import replace
from functools import partial

from quart import Blueprint, Response

from chat2api.api.body import read_json
from chat2api.api.charging import open_charge
from chat2api.api.context import current_caller, current_runtime, on_request_end
from chat2api.api.entry import hold_to_tier
from chat2api.api.relay import AnswerRelay, size_of_events
from chat2api.api.streaming import Answer, stream_answer, whole_answer
from chat2api.protocol.openai.chat import parse_chat_request, read_model

blueprint = Blueprint("chat", __name__)


@blueprint.post("/v1/chat/completions")
async def create_chat_completion() -> Response:
    """Answer a chat completion, streamed or whole."""
    runtime = current_runtime()
    caller = current_caller()
    body = hold_to_tier(caller, await read_json())
    route = await runtime.routing.route(caller, read_model(body))
    chat_request = replace(parse_chat_request(body), model=route.model)
    provider = runtime.provider
    charge = await open_charge(
        chat_request.messages, model=chat_request.model, max_tokens=chat_request.max_tokens, choices=chat_request.n
    )
    relay = AnswerRelay(
        partial(provider.chat, caller, chat_request, charge.facts),
        runtime.spawn,
        size_of_events,
        choices=chat_request.n,
    )
    runtime.answers[relay] = charge.key_id

    async def finish() -> None:
        runtime.answers.pop(relay, None)
        try:
            await relay.aclose()
        finally:
            await charge.settle(failed=relay.failed, told=chat_request.stream)

    on_request_end(finish)
    answer = Answer(
        request=chat_request,
        relay=relay,
        charge=charge,
        reply_model=partial(provider.reply_model, chat_request.model),
        tell_conversation=provider.keeps_history(chat_request),
    )
    return await (stream_answer(answer) if chat_request.stream else whole_answer(answer))
