"""The operator's page for new accounts: paste or choose a file, look at what it would do, then save it as a job."""

from collections import Counter

from quart import Blueprint, redirect, render_template, request
from quart.typing import ResponseReturnValue

from chat2api.api.accounts_page import root
from chat2api.api.context import current_runtime, current_visitor, record_action
from chat2api.errors import NotFoundError

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
    runtime = current_runtime()
    text, error = await _read()
    if error is not None:
        return await render_template("upload.html", error=error), 400
    entries = await runtime.care.preview(text)
    counts = Counter(entry.verdict for entry in entries)
    return await render_template(
        "upload_preview.html",
        entries=entries[:MOST_ENTRIES],
        more=max(0, len(entries) - MOST_ENTRIES),
        counts=counts,
        paste=runtime.pastes.hold(_owner(), text) if counts["new"] or counts["known"] else None,
        now=runtime.clock.now(),
    )


@blueprint.post("/save")
async def save() -> ResponseReturnValue:
    """Save what was looked at; the way leads to the job's page."""
    runtime = current_runtime()
    paste_id = (await request.form).get("paste", "")
    try:
        text = runtime.pastes.take(_owner(), paste_id)
    except NotFoundError:
        return await render_template("upload.html", error="upload.gone"), 404
    job = runtime.care.start_save(text)
    await record_action("accounts.import", job.id)
    return redirect(f"{root()}/progress/{job.id}", 303)


@blueprint.post("/cancel")
async def cancel() -> ResponseReturnValue:
    """Forget what was pasted."""
    current_runtime().pastes.drop(_owner(), (await request.form).get("paste", ""))
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


def _owner() -> str:
    """Give a word for the sign-in that asks; nobody else's pages can name its pastes."""
    visitor = current_visitor()
    assert visitor is not None  # the access class admits operators only
    return visitor.csrf or visitor.who
