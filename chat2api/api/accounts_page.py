"""The operator's pages for accounts: the list with what is done to many, each account, and what was removed."""

from collections import Counter
from typing import get_args
from urllib.parse import urlencode

from quart import Blueprint, current_app, redirect, render_template, request
from quart.typing import ResponseReturnValue

from chat2api.accounts.listing import ACCOUNTS, list_accounts
from chat2api.api.context import current_runtime, record_action
from chat2api.api.lists import AskedList
from chat2api.api.shell import shell_of
from chat2api.errors import InvalidRequestError
from chat2api.gateway.account_care import BULK_ACTIONS, RENEWABLE, BulkAction
from chat2api.gateway.doctor import Finding
from chat2api.runtime import Runtime
from chat2api.storage.usage import day_of

blueprint = Blueprint("accounts_page", __name__, url_prefix="/tokens")

NOTICES = ("deleted", "disabled", "enabled", "changed", "restored", "nothing", "unselected")
"""What a page says was done when an address with `did` leads to it; nothing else can be put into its mouth."""
MOST_ITEMS = 1000
"""Parts of a job, or removed accounts, that a page shows."""
ACTIONS = ("test", "refresh", "disable", "enable", "delete", "change")


@blueprint.get("")
async def index() -> str:
    """The accounts that match what is searched, a page of them."""
    runtime = current_runtime()
    asked = AskedList(ACCOUNTS, "group")
    found = list_accounts(runtime.pool.views(), group=asked.asked["group"] or None, **asked.options)
    return await render_template(
        "accounts.html",
        actions=BULK_ACTIONS,
        today=await _requests_today(runtime),
        now=runtime.clock.now(),
        failing=len(runtime.care.failed_labels()),
        **asked.values(ACCOUNTS, found),
        **_notice(),
    )


@blueprint.get("/account/<account_id>")
async def account_page(account_id: str) -> str:
    """One account, all that is known of it but its tokens."""
    return await _account_page(account_id)


@blueprint.post("/account/<account_id>/<action>")
async def act(account_id: str, action: str) -> ResponseReturnValue:
    """Do one thing with one account."""
    runtime = current_runtime()
    care, editor, form = runtime.care, runtime.editor, await request.form
    label = care.view(account_id).account.label
    here = f"/account/{account_id}"
    match action:
        case "test" | "refresh":
            finding = await (care.test(account_id) if action == "test" else care.renew(account_id))
            await record_action(f"account.{action}", label)
            return await _account_page(account_id, finding, action)
        case "disable" | "enable":
            await (editor.enable(account_id) if action == "enable" else editor.disable(account_id))
            await record_action(f"account.{action}", label)
            return _to(here, did=f"{action}d")
        case "delete":
            if form.get("sure") != "yes":
                return await _confirm("accounts.ask_delete", f"{here}/delete", back=here, n=label)
            await editor.delete([account_id])
            await record_action("account.delete", label)
            return _to("", did="deleted", n=1, id=account_id)
        case "change":
            groups = [name for name in form.get("groups", "").replace("，", ",").split(",") if name.strip()]
            await editor.set_groups(account_id, groups)
            await editor.set_note(account_id, form.get("note", "").replace("\r\n", "\n").strip())
            await record_action("account.change", f"{label}: note, groups")
            return _to(here, did="changed")
    raise InvalidRequestError(f"The action is one of {', '.join(ACTIONS)}.", param="action")


@blueprint.post("/selected")
async def act_on_many() -> ResponseReturnValue:
    """Start a job for the accounts that were ticked, or for all that the search found."""
    runtime, form = current_runtime(), await request.form
    action = next((known for known in get_args(BulkAction) if known == form.get("action")), None)
    if action is None:
        raise InvalidRequestError(f"The action is one of {', '.join(BULK_ACTIONS)}.", param="action")
    if form.get("all") == "yes":
        found = list_accounts(
            runtime.pool.views(),
            search=form.get("search", "").strip(),
            state=form.get("state") or None,
            group=form.get("group") or None,
            per_page=None,
        )
        ids = [view.account.id for view in found.rows]
    else:
        ids = form.getlist("id") or [part for part in form.get("ids", "").split(",") if part]
    if not ids:
        return _to("", did="unselected")
    if action == "delete" and form.get("sure") != "yes":
        fields = {"action": action, "ids": ",".join(ids)}  # these and no others, whatever is added meanwhile
        return await _confirm("accounts.ask_delete_many", "/selected", fields=fields, n=len(ids))
    # Somebody else may have removed some of them since the page was shown.
    job = runtime.care.start_bulk(action, [one for one in ids if runtime.pool.view(one) is not None])
    await record_action(f"accounts.{action}", f"{job.status.total} account(s)")
    return _to(f"/progress/{job.id}")


@blueprint.get("/progress/<job_id>")
async def progress(job_id: str) -> str:
    """How far a job is; the page asks again by itself until the job has ended."""
    job = current_runtime().jobs.get(job_id)
    items = sorted(job.items, key=lambda item: item.ok)[:MOST_ITEMS]
    outcomes = Counter(item.text for item in job.items if item.ok) if job.kind == "import" else {}
    return await render_template("job.html", job=job.status, items=items, outcomes=outcomes, more=len(job.items))


@blueprint.get("/failed")
async def failed() -> str:
    """The accounts that do not work until the operator acts."""
    runtime = current_runtime()
    views = [view for view in runtime.pool.views() if view.account.state in ("needs_sign_in", "in_doubt")]
    return await render_template(
        "accounts_failed.html", views=views[:MOST_ITEMS], count=len(views), now=runtime.clock.now()
    )


@blueprint.get("/removed")
async def removed() -> str:
    """What was removed in the last day and can be brought back."""
    runtime = current_runtime()
    accounts = await runtime.editor.deleted()
    return await render_template(
        "accounts_removed.html",
        accounts=accounts[:MOST_ITEMS],
        count=len(accounts),
        now=runtime.clock.now(),
        **_notice(),
    )


@blueprint.post("/removed")
async def bring_back() -> ResponseReturnValue:
    """Bring back one removed account, or all."""
    form = await request.form
    ids = [form["id"]] if form.get("id") else None
    count = await current_runtime().editor.undo_delete(ids)
    await record_action("accounts.undo", f"{count} account(s)")
    return _to("" if ids is None else "/removed", did="restored" if count else "nothing", n=count)


@blueprint.post("/empty")
async def empty() -> ResponseReturnValue:
    """Remove all accounts, once that is confirmed."""
    runtime = current_runtime()
    if (await request.form).get("sure") != "yes":
        return await _confirm("accounts.ask_clear", "/empty", n=runtime.pool.statistics().total)
    count = await runtime.editor.delete(None)
    await record_action("accounts.clear", f"{count} account(s)")
    return _to("/removed", did="deleted", n=count)


async def _account_page(account_id: str, finding: Finding | None = None, action: str = "") -> str:
    runtime = current_runtime()
    view = runtime.care.view(account_id)
    return await render_template(
        "account.html",
        view=view,
        account=view.account,
        finding=finding,
        action=action,
        renewable=view.account.kind in RENEWABLE,
        requests=(await _requests_today(runtime)).get(view.account.label, 0),
        now=runtime.clock.now(),
        **_notice(),
    )


async def _requests_today(runtime: Runtime) -> Counter[str]:
    """Give today's requests by the label of the account that served them."""
    await runtime.ledger.flush()
    today = day_of(runtime.clock.now())
    sums: Counter[str] = Counter()
    for row in await runtime.records.usage.rows(since=today, until=today):
        sums[row.account] += row.requests
    return sums


async def _confirm(
    question: str, action: str, *, fields: dict[str, str] | None = None, back: str = "", n: object
) -> str:
    text = shell_of(current_app).language().get(question, n=n)
    return await render_template(
        "confirm.html", question=text, action=root() + action, fields=fields or {}, back=root() + back
    )


def _notice() -> dict[str, object]:
    did = request.args.get("did", "")
    return {
        "did": did if did in NOTICES else None,
        "did_n": _whole(request.args.get("n", "")) or 0,
        "did_id": request.args.get("id", ""),
    }


def _to(path: str, **query: object) -> ResponseReturnValue:
    return redirect(f"{root()}{path}?{urlencode(query)}" if query else root() + path, 303)


def root() -> str:
    """Give the path of the list, under which all these pages stand."""
    prefix = current_runtime().config.api_prefix
    return f"/{prefix}/tokens" if prefix else "/tokens"


def _whole(text: str) -> int | None:
    return int(text) if text.isascii() and text.isdigit() and len(text) <= 9 else None
