"""The journal for the operator: who did what and when, of the last 90 days (G7)."""

from quart import Blueprint, render_template, request

from chat2api.api.context import current_runtime
from chat2api.errors import InvalidRequestError

blueprint = Blueprint("journal_page", __name__)

PER_PAGE = 50
MOST_PAGES = 10_000


@blueprint.get("/tokens/journal")
async def journal_page() -> str:
    """One page of what was done, the newest first; `page` counts from 1."""
    wanted = request.args.get("page", "1")
    page = int(wanted) if wanted.isascii() and wanted.isdigit() and len(wanted) < 9 else 0
    if not 1 <= page <= MOST_PAGES:
        raise InvalidRequestError("Pages are counted from 1.", param="page")
    # One more than is shown tells whether there is a page after this one.
    found = await current_runtime().records.actions.latest(PER_PAGE + 1, (page - 1) * PER_PAGE)
    return await render_template(
        "journal.html", actions=found[:PER_PAGE], page=page, has_older=len(found) > PER_PAGE, word=_word
    )


def _word(what: str) -> str:
    """Give the name under which the catalogues have what was done."""
    return what.replace(".", "_").replace(" ", "_")
