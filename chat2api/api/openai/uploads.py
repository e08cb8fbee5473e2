"""Forms with files, forwarded while they come: transcriptions, translations, edits of pictures, files.

A form is sent on as its bytes arrive, so that no more of it is held than `upstream/uploads.py` says. Its model may come behind
its file. What a caller may ask for is checked as soon as the model is known, and the form's last bytes go out only after
that: without them no server acts on it.
"""

from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass

from quart import Blueprint, Response, request

from chat2api.api.charging import check_model, open_charge
from chat2api.api.context import current_caller, current_runtime
from chat2api.api.openai.forward import Forwarding, forward
from chat2api.errors import InvalidRequestError
from chat2api.gateway.attempts import affinity_of
from chat2api.gateway.provider import Caller
from chat2api.protocol.openai.forms import FormReader, read_boundary, write_type
from chat2api.protocol.openai.forwarded import expected_picture_tokens, read_count
from chat2api.protocol.prompt import Message, TextPart
from chat2api.storage.api_objects import ObjectKind
from chat2api.upstream.uploads import Upload

blueprint = Blueprint("uploads", __name__)

MODEL_WITHIN = 256 * 1024
"""Bytes of a form that are waited for its model's name before the call begins."""


@dataclass(frozen=True, slots=True)
class FormOperation:
    """One operation. `model` is what the API takes where a form names none; None where it must, or where there is none."""

    path: tuple[str, ...]
    model: str | None = None
    has_model: bool = True
    makes: ObjectKind | None = None
    is_picture: bool = False
    longest: int | None = 1
    """Tokens of the longest answer, None for a text of any length."""


@blueprint.post("/v1/audio/transcriptions")
async def transcribe() -> Response:
    """Forward a sound to be written down."""
    return await _forward_form(FormOperation(("audio", "transcriptions"), longest=None))


@blueprint.post("/v1/audio/translations")
async def translate() -> Response:
    """Forward a sound to be written down in English."""
    return await _forward_form(FormOperation(("audio", "translations"), longest=None))


@blueprint.post("/v1/images/edits")
async def edit_image() -> Response:
    """Forward a picture to be changed."""
    return await _forward_form(FormOperation(("images", "edits"), model="dall-e-2", is_picture=True))


@blueprint.post("/v1/images/variations")
async def vary_image() -> Response:
    """Forward a picture to be varied."""
    return await _forward_form(FormOperation(("images", "variations"), model="dall-e-2", is_picture=True))


@blueprint.post("/v1/files")
async def upload_file() -> Response:
    """Forward a file to be kept."""
    return await _forward_form(FormOperation(("files",), has_model=False, makes="file"))


async def _forward_form(operation: FormOperation) -> Response:
    caller = current_caller()
    boundary = read_boundary(request.headers.get("Content-Type"))
    await current_runtime().routing.route_to_keys(caller, "upload")
    length = request.content_length
    form = _Form(FormReader(boundary), Upload(length), aiter(request.body), operation, caller)
    await form.begin()
    if caller.tier is not None and form.undecided:
        raise InvalidRequestError("In this tier the form names its model before its files.", param="model")
    model = form.model or operation.model or "upload"
    fields = form.fields
    longest = operation.longest
    if operation.is_picture:
        longest = expected_picture_tokens(model, fields.get("quality"), fields.get("size"))
    charge = await open_charge(
        (Message("user", (TextPart(fields.get("prompt", "")),)),),
        model=model,
        max_tokens=longest,
        choices=form.pictures or 1,
        check=False,  # the form itself sees to it
    )
    forwarding = Forwarding(
        "POST",
        operation.path,
        model,
        content_type=write_type(boundary),
        upload=form.upload,
        feed=form.feed,
        makes=operation.makes,
        count_images=lambda: form.pictures,
        affinity=affinity_of(caller),
    )
    return await forward(forwarding, charge)


class _Form:
    """One form on its way."""

    def __init__(
        self, reader: FormReader, upload: Upload, body: AsyncIterator[bytes], operation: FormOperation, caller: Caller
    ) -> None:
        self._reader = reader
        self._body = body
        self._operation = operation
        self._caller = caller
        self._model: str | None = None
        self._begun = False
        self.upload = upload

    @property
    def model(self) -> str | None:
        """The model's name at the API, once it has come."""
        return self._model

    @property
    def fields(self) -> Mapping[str, str]:
        """The fields that have come."""
        return self._reader.fields

    @property
    def pictures(self) -> int:
        """How many pictures are asked for, as far as that has come."""
        return read_count(self.fields.get("n")) if self._operation.is_picture else 0

    @property
    def undecided(self) -> bool:
        """Whether a model may still come."""
        return self._operation.has_model and self.model is None and not self._reader.ended

    async def begin(self) -> None:
        """Take the form's beginning, up to its model if that comes soon. Raises what is wrong with it."""
        begun = b""
        while self._operation.has_model and self.model is None and len(begun) < MODEL_WITHIN:
            if (data := await self._next()) is None:
                self._check_end()
                break
            begun += data
        if self.model is not None and (shorter := len(self.fields["model"].encode()) - len(self.model.encode())):
            at = self._reader.places["model"]
            begun = begun[:at] + begun[at + shorter :]
            if self.upload.length is not None:
                self.upload.length -= shorter
        self._begun = True
        await self.upload.put(begun)

    async def feed(self) -> None:
        """Bring the rest, its last piece only when all is known to be well."""
        held = b""
        while (data := await self._next()) is not None:
            if held and not await self.upload.put(held):
                return
            held = data
        self._check_end()
        if await self.upload.put(held):
            self.upload.end()

    async def _next(self) -> bytes | None:
        data = await anext(self._body, None)
        if data is not None:
            self._reader.feed(data)
            if "model" in self._reader.files:
                raise InvalidRequestError("The form names its model by a file.", param="model", code="malformed_form")
            if self._model is None and (named := self.fields.get("model")) is not None:
                await self._find_model(named)
        return data

    async def _find_model(self, named: str) -> None:
        route = await current_runtime().routing.route_to_keys(self._caller, named)
        if route.named and self._begun:
            raise InvalidRequestError(
                "A form that names its model's provider names it before its files: leave out `openai/`, or put `model` first.",
                param="model",
            )
        check_model(self._caller, route.model)
        self._model = route.model

    def _check_end(self) -> None:
        if not self._reader.ended:
            raise InvalidRequestError("The form ended before its last part did.", code="malformed_form")
        if self._operation.has_model and self.model is None:
            if self._operation.model is None:
                raise InvalidRequestError("The form names no model.", param="model", code="missing_required_parameter")
            check_model(self._caller, self._operation.model)
