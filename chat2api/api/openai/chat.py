"""POST /v1/chat/completions, and the same by POST /v1 and POST /."""

from dataclasses import replace
from functools import partial

from quart import Blueprint, Response

from chat2api.api.body import JsonBody, read_body
from chat2api.api.charging import begin_answer, open_charge
from chat2api.api.context import current_caller, current_runtime, tried_first
from chat2api.api.entry import hold_to_tier
from chat2api.api.openai.forward import Forwarding, forward
from chat2api.api.openai.objects import key_of
from chat2api.api.relay import size_of_events
from chat2api.api.streaming import Answer, stream_answer, whole_answer
from chat2api.errors import AllAccountsCoolingError, NoAccountError
from chat2api.gateway.attempts import affinity_of
from chat2api.gateway.provider import Caller
from chat2api.gateway.routing import ProviderName, Route
from chat2api.protocol.openai.chat import parse_chat_request, read_model
from chat2api.protocol.openai.forwarded import prepare_body
from chat2api.protocol.openai.references import references
from chat2api.protocol.prompt import Message, TextPart

blueprint = Blueprint("chat", __name__)


@blueprint.post("/v1/chat/completions")
@blueprint.post("/v1")
@blueprint.post("/")
async def create_chat_completion() -> Response:
    """Answer a chat completion, streamed or whole, by whoever serves its model."""
    caller = current_caller()
    body = await read_body()
    body = body.changed(hold_to_tier(caller, body.value))
    route = await current_runtime().routing.route(caller, read_model(body.value))
    if route.fallback is None:
        return await _answer(route.provider, caller, body, route)
    try:
        async with tried_first():
            return await _answer(route.provider, caller, body, route)
    except (NoAccountError, AllAccountsCoolingError):
        return await _answer(route.fallback, caller, body, route)


async def _answer(provider: ProviderName, caller: Caller, body: JsonBody, route: Route) -> Response:
    return await (_forward(caller, body, route) if provider == "openai" else _converse(caller, body, route))


async def _forward(caller: Caller, body: JsonBody, route: Route) -> Response:
    """Answer by an API key: the body goes there as it came."""
    forwarded = prepare_body(body.data, body.value, model=route.model if route.named else None, is_chat=True)
    key = await key_of(caller, references(body.value))
    charge = await open_charge(
        (Message("user", (TextPart(forwarded.text),)),),
        model=route.model,
        max_tokens=forwarded.max_tokens,
        choices=forwarded.choices,
        more_tokens=forwarded.tokens,
    )
    forwarding = Forwarding(
        "POST",
        ("chat", "completions"),
        route.model,
        body=forwarded.data,
        stream=forwarded.stream,
        asked_usage=forwarded.asked_usage,
        plain_body=forwarded.plain,
        kind="chat",
        affinity=f"{caller.owner}\0{forwarded.user}" if forwarded.user else affinity_of(caller),
        key=key,
    )
    return await forward(forwarding, charge)


async def _converse(caller: Caller, body: JsonBody, route: Route) -> Response:
    """Answer by a web account."""
    runtime = current_runtime()
    chat_request = parse_chat_request(body.exact())
    if chat_request.model != route.model:
        chat_request = replace(chat_request, model=route.model)
    provider = runtime.provider
    charge = await open_charge(
        chat_request.messages, model=chat_request.model, max_tokens=chat_request.max_tokens, choices=chat_request.n
    )
    source = partial(provider.chat, caller, chat_request, charge.facts)
    relay = begin_answer(charge, source, size_of_events, choices=chat_request.n, told=chat_request.stream)
    answer = Answer(
        request=chat_request,
        relay=relay,
        charge=charge,
        reply_model=partial(provider.reply_model, chat_request.model),
        tell_conversation=provider.keeps_history(chat_request),
    )
    return await (stream_answer(answer) if chat_request.stream else whole_answer(answer))
