"""The operator's page for new accounts: paste or choose a file, look at what it would do, then save it as a job."""

from collections import Counter

from quart import Blueprint, redirect, render_template, request
from quart.typing import ResponseReturnValue

from chat2api.api.accounts_page import root
from chat2api.api.context import current_runtime, paste_owner, record_action
from chat2api.errors import NotFoundError, RateLimitedError

blueprint = Blueprint("upload_page", __name__, url_prefix="/tokens/add")

MOST_ENTRIES = 1000
"""Lines of a preview that are shown; all are counted, and all are saved."""


@blueprint.get("")
async def upload_page() -> str:
    """The box for tokens."""
    return await render_template("upload.html", error=None)


@blueprint.post("")
async def preview() -> ResponseReturnValue:
    """Show what saving would do, line by line, and keep the text here until it is saved."""
    text, error = await _read()
    if error is not None:
        return await render_template("upload.html", error=error), 400
    return await _preview(text)


async def _preview(text: str, *, busy: bool = False) -> str:
    """Show the preview; `busy` says that saving has to wait for other jobs."""
    runtime = current_runtime()
    entries = await runtime.care.preview(text)
    counts = Counter(entry.verdict for entry in entries)
    return await render_template(
        "upload_preview.html",
        entries=entries[:MOST_ENTRIES],
        more=max(0, len(entries) - MOST_ENTRIES),
        counts=counts,
        paste=runtime.pastes.hold(paste_owner(), text) if counts["new"] or counts["known"] else None,
        now=runtime.clock.now(),
        busy=busy,
    )


@blueprint.post("/save")
async def save() -> ResponseReturnValue:
    """Save what was looked at; the way leads to the job's page."""
    runtime = current_runtime()
    paste_id = (await request.form).get("paste", "")
    try:
        text = runtime.pastes.take(paste_owner(), paste_id)
    except NotFoundError:
        return await render_template("upload.html", error="upload.gone"), 404
    try:
        job = runtime.care.start_save(text)
    except RateLimitedError:
        return await _preview(text, busy=True), 429  # the text is kept for another ten minutes
    await record_action("accounts.import", job.id)
    return redirect(f"{root()}/progress/{job.id}", 303)


@blueprint.post("/cancel")
async def cancel() -> ResponseReturnValue:
    """Forget what was pasted."""
    current_runtime().pastes.drop(paste_owner(), (await request.form).get("paste", ""))
    return redirect(f"{root()}/add", 303)


async def _read() -> tuple[str, str | None]:
    """Give what was pasted and chosen as one text, or the name of what is wrong with it."""
    form, files = await request.form, await request.files
    parts = [form.get("text", "")]
    for file in files.getlist("file"):
        try:
            parts.append(file.read().decode("utf-8-sig"))
        except UnicodeDecodeError:
            return "", "upload.not_text"
    text = "\n".join(part for part in parts if part.strip())
    return text, None if text else "upload.empty"
