"""POST /v1/chat/completions."""

from quart import Blueprint, Response

from chat2api.api.body import read_json
from chat2api.api.context import current_caller, current_runtime, on_request_end
from chat2api.api.relay import AnswerRelay
from chat2api.api.streaming import stream_answer, whole_answer
from chat2api.gateway.provider import AnswerFacts
from chat2api.protocol.openai.chat import parse_chat_request

blueprint = Blueprint("chat", __name__)


@blueprint.post("/v1/chat/completions")
async def create_chat_completion() -> Response:
    """Answer a chat completion, streamed or whole."""
    runtime = current_runtime()
    caller = current_caller()
    chat_request = parse_chat_request(await read_json())
    facts = AnswerFacts()
    sources = [runtime.provider.chat(caller, chat_request, facts) for _ in range(chat_request.n)]
    relay = AnswerRelay(sources, runtime.spawn)
    on_request_end(relay.aclose)
    with runtime.following(relay):
        if chat_request.stream:
            return await stream_answer(relay, chat_request, facts)
        return await whole_answer(relay, chat_request, facts)
