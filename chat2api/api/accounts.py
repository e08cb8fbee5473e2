"""The operator's REST for accounts, under /tokens: import, list, change, test, renew, remove and bring back.

Answers never hold a token. What many accounts take long for runs as a job, whose progress is told by GET
/tokens/jobs/{id}, as JSON or as an event stream.
"""

from collections.abc import AsyncIterator, Mapping
from dataclasses import asdict

import orjson
from quart import Blueprint, Response, request

from chat2api.accounts.importing import Saved
from chat2api.accounts.listing import list_accounts
from chat2api.accounts.views import AccountView
from chat2api.api.body import check_names, read_fields
from chat2api.api.context import current_runtime, record_action
from chat2api.api.csrf import CSRF_FIELD
from chat2api.api.lists import NAMES, list_object, list_options, read_query
from chat2api.errors import InvalidRequestError
from chat2api.gateway.account_care import BULK_ACTIONS
from chat2api.gateway.doctor import Finding
from chat2api.gateway.jobs import Job, JobItem, JobStatus
from chat2api.protocol.event_stream import encode_event
from chat2api.runtime import Runtime
from chat2api.storage.values import Account

blueprint = Blueprint("accounts", __name__, url_prefix="/tokens")

FORM_FIELDS = ("text", "file", CSRF_FIELD)

Json = dict[str, object]


# Imports, in the words of earlier servers of this kind


@blueprint.post("/preview")
async def preview() -> Json:
    """Say what an import would do, line by line; nothing is saved."""
    entries = await current_runtime().care.preview((await _read_import())[0])
    counts: dict[str, int] = {}
    for entry in entries:
        counts[entry.verdict] = counts.get(entry.verdict, 0) + 1
    return {"object": "list", "data": [asdict(entry) for entry in entries], "counts": counts}


@blueprint.post("/upload")
async def upload() -> tuple[Json, int]:
    """Save the accounts of a text; with `job`, 202 and a job that tells the progress."""
    text, as_job = await _read_import()
    care = current_runtime().care
    if as_job:
        job = care.start_save(text)
        await record_action("accounts.import", job.id)
        return {"job": _status(job.status)}, 202
    saved = await care.save(text)
    await record_action("accounts.import", f"{len(saved.added)} account(s)")
    return _success() | _saved(saved), 200


@blueprint.post("/clear")
async def clear() -> Json:
    """Remove all accounts; POST /tokens/undo brings them back for 24 hours."""
    await read_fields()
    removed = await current_runtime().editor.delete(None)
    await record_action("accounts.clear", f"{removed} account(s)")
    return _success() | {"removed": removed}


@blueprint.post("/error")
async def failed() -> Json:
    """Give the labels of the accounts that do not work until the operator acts."""
    await read_fields()
    return {"status": "success", "error_tokens": current_runtime().care.failed_labels()}


@blueprint.post("/undo")
async def undo() -> Json:
    """Bring back what was removed in the last 24 hours, all or the accounts of `ids`."""
    fields = await read_fields("ids")
    restored = await current_runtime().editor.undo_delete(_ids(fields))
    await record_action("accounts.undo", f"{restored} account(s)")
    return _success() | {"restored": restored}


@blueprint.get("/deleted")
async def deleted() -> Json:
    """List the accounts that can be brought back."""
    read_query()
    accounts = await current_runtime().editor.deleted()
    return {"object": "list", "data": [_facts(account) | {"deleted_at": account.deleted_at} for account in accounts]}


@blueprint.post("/confirm-restored")
async def confirm_restored() -> Json:
    """Take the operator's word that records which were brought back from a copy may renew tokens again."""
    await read_fields()
    records = current_runtime().records
    was = await records.restored()
    await records.confirm_restored()
    await record_action("store.confirm_restored", "")
    return {"status": "success", "was_restored": was}


# Accounts


@blueprint.get("/accounts")
async def index() -> Json:
    """List the accounts: `page`, `per_page`, `sort` (`-` in front turns it round), `search`, `state`, `group`."""
    query = read_query(*NAMES, "group")
    found = list_accounts(current_runtime().pool.views(), group=query.get("group") or None, **list_options(query))
    return list_object(found, [account_object(view) for view in found.rows])


@blueprint.get("/accounts/<account_id>")
async def show(account_id: str) -> Json:
    """One account."""
    read_query()
    return account_object(current_runtime().care.view(account_id))


@blueprint.patch("/accounts/<account_id>")
async def change(account_id: str) -> Json:
    """Change `note`, `groups` or `enabled`."""
    fields = await read_fields("note", "groups", "enabled")
    runtime = current_runtime()
    view = runtime.care.view(account_id)
    note, groups, enabled = fields.get("note"), fields.get("groups"), fields.get("enabled")
    # All are looked at before the first is stored.
    if "note" in fields and not isinstance(note, str):
        raise InvalidRequestError("A note is a text.", param="note")
    if "groups" in fields and not _is_names(groups):
        raise InvalidRequestError("Groups are a list of names.", param="groups")
    if "enabled" in fields and not isinstance(enabled, bool):
        raise InvalidRequestError("`enabled` is true or false.", param="enabled")
    if isinstance(note, str):
        await runtime.editor.set_note(account_id, note)
    if isinstance(groups, list):
        await runtime.editor.set_groups(account_id, groups)
    if isinstance(enabled, bool):
        await (runtime.editor.enable(account_id) if enabled else runtime.editor.disable(account_id))
    await record_action("account.change", f"{view.account.label}: {', '.join(fields)}")
    return account_object(runtime.care.view(account_id))


@blueprint.delete("/accounts/<account_id>")
async def remove(account_id: str) -> Json:
    """Remove one account; POST /tokens/undo brings it back for 24 hours."""
    await read_fields()
    runtime = current_runtime()
    label = runtime.care.view(account_id).account.label
    await runtime.editor.delete([account_id])
    await record_action("account.delete", label)
    return {"id": account_id, "deleted": True}


@blueprint.post("/accounts/<account_id>/test")
async def test(account_id: str) -> Json:
    """Use the account once at the backend and say what came of it."""
    return await _tell(account_id, "test", await _examined(account_id, "test"))


@blueprint.post("/accounts/<account_id>/refresh")
async def refresh(account_id: str) -> Json:
    """Renew the account's access token now."""
    return await _tell(account_id, "refresh", await _examined(account_id, "refresh"))


@blueprint.post("/accounts/<account_id>/disable")
async def disable(account_id: str) -> Json:
    """Set the account aside until it is enabled again."""
    await read_fields()
    await current_runtime().editor.disable(account_id)
    return await _tell(account_id, "disable", None)


@blueprint.post("/accounts/<account_id>/enable")
async def enable(account_id: str) -> Json:
    """Let the account serve again."""
    await read_fields()
    await current_runtime().editor.enable(account_id)
    return await _tell(account_id, "enable", None)


@blueprint.post("/accounts/bulk")
async def bulk() -> tuple[Json, int]:
    """Do one thing (`action`) with many accounts (`ids`, or `all`) as a job."""
    fields = await read_fields("action", "ids", "all")
    action = next((known for known in BULK_ACTIONS if known == fields.get("action")), None)
    if action is None:
        raise InvalidRequestError(f"`action` is one of {', '.join(BULK_ACTIONS)}.", param="action")
    if fields.get("all", False) not in (True, False) or (fields.get("all") is True) == ("ids" in fields):
        raise InvalidRequestError("Name the accounts in `ids`, or say `all`: true.", param="ids")
    job = current_runtime().care.start_bulk(action, _ids(fields))
    await record_action(f"accounts.{action}", f"{job.status.total} account(s)")
    return {"job": _status(job.status)}, 202


# Jobs


@blueprint.get("/jobs/<job_id>")
async def job_status(job_id: str) -> Json | Response:
    """A job's progress and items; as an event stream when the client accepts that."""
    read_query()
    job = current_runtime().jobs.get(job_id)
    if request.accept_mimetypes.best_match(["application/json", "text/event-stream"]) == "text/event-stream":
        return Response(_follow(job, current_runtime()), content_type="text/event-stream")
    return _status(job.status) | {"items": [asdict(item) for item in job.items]}


async def _follow(job: Job, runtime: Runtime) -> AsyncIterator[bytes]:
    async for status, news in job.follow(every=runtime.config.keep_alive_interval):
        yield _progress_event(status, news)
        if runtime.draining:
            return


def _progress_event(status: JobStatus, news: list[JobItem]) -> bytes:
    """Give an event with the status and the items that are new since the last one."""
    return encode_event(orjson.dumps(_status(status) | {"items": [asdict(item) for item in news]}))


# The doctor


@blueprint.get("/doctor")
async def checks() -> Json:
    """List what the doctor can examine."""
    read_query()
    found = current_runtime().doctor.checks()
    return {"object": "list", "data": [{"check": check.name, "subject": check.subject} for check in found]}


@blueprint.post("/doctor/<check>")
async def examine(check: str) -> Json:
    """Run one check."""
    await read_fields()
    return {"check": check} | asdict(await current_runtime().doctor.run(check))


# What requests hold


async def _read_import() -> tuple[str, bool]:
    """Give the text of an import and whether it shall run as a job, from a form or a JSON object."""
    if request.mimetype in ("application/x-www-form-urlencoded", "multipart/form-data"):
        form, files = await request.form, await request.files
        check_names([*form, *files], FORM_FIELDS)
        parts = [form["text"]] if "text" in form else []
        for file in files.getlist("file"):
            try:
                parts.append(file.read().decode("utf-8-sig"))
            except UnicodeDecodeError:
                raise InvalidRequestError("The file is not a text in UTF-8.", param="file") from None
        if not parts:
            raise InvalidRequestError("The form has neither `text` nor `file`.", param="text")
        return "\n".join(parts), False
    fields = await read_fields("text", "job")
    text, as_job = fields.get("text"), fields.get("job", False)
    if not isinstance(text, str):
        raise InvalidRequestError("`text` is the text to import.", param="text")
    if not isinstance(as_job, bool):
        raise InvalidRequestError("`job` is true or false.", param="job")
    return text, as_job


def _ids(fields: Mapping[str, object]) -> list[str] | None:
    ids = fields.get("ids")
    if "ids" in fields and not _is_names(ids):
        raise InvalidRequestError("`ids` is a list of account ids.", param="ids")
    return ids if isinstance(ids, list) else None


def _is_names(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(item, str) for item in value)


# What answers hold


def account_object(view: AccountView) -> Json:
    """Give an account as the interface shows it: all that is known of it but its tokens."""
    return _facts(view.account) | {
        "state": view.state,
        "reason": view.reason,
        "advice": view.advice,
        "until_at": view.until_at,
        "waits": [asdict(wait) for wait in view.waits],
        "in_flight": view.in_flight,
        "last_used_at": view.last_used_at,
        "last_error": view.last_error,
        "last_error_at": view.last_error_at,
        "last_error_advice": view.last_error_advice,
    }


def _facts(account: Account) -> Json:
    return {
        "id": account.id,
        "object": "account",
        "label": account.label,
        "kind": account.kind,
        "email": account.email,
        "plan": account.plan,
        "workspace_id": account.workspace,
        "note": account.note,
        "groups": list(account.groups),
        "models": list(account.models),
        "capabilities": list(account.capabilities),
        "added_at": account.added_at,
        "expires_at": account.expires_at,
        "enabled": account.state != "disabled",
    }


async def _examined(account_id: str, action: str) -> Finding:
    await read_fields()
    care = current_runtime().care
    return await (care.test(account_id) if action == "test" else care.renew(account_id))


async def _tell(account_id: str, action: str, finding: Finding | None) -> Json:
    """Give the account after an action on it, with what was found; the action is recorded."""
    view = current_runtime().care.view(account_id)
    await record_action(f"account.{action}", view.account.label)
    answer: Json = {"account": account_object(view)}
    if finding is not None:
        answer["result"] = {"ok": finding.ok, "text": finding.text, "advice": finding.advice}
    return answer


def _success() -> Json:
    return {"status": "success", "tokens_count": current_runtime().pool.statistics().total}


def _saved(saved: Saved) -> Json:
    outcomes = [one.outcome for one in saved.added]
    return {
        "added": outcomes.count("added"),
        "merged": outcomes.count("merged"),
        "unchanged": outcomes.count("unchanged"),
        "expired": saved.expired,
        "problems": [asdict(problem) for problem in saved.problems],
        "accounts": [{"id": one.account.id, "label": one.account.label, "outcome": one.outcome} for one in saved.added],
    }


def _status(status: JobStatus) -> Json:
    return {"object": "job", **asdict(status)}
