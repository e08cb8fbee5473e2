"""The doctor for the operator: a button for each check, what was found last with what to do, and all checks in a row."""

from dataclasses import dataclass
from urllib.parse import urlencode

from quart import Blueprint, redirect, render_template, request
from quart.typing import ResponseReturnValue

from chat2api.api.context import current_runtime
from chat2api.errors import NotFoundError
from chat2api.gateway.doctor import Check, Doctor, Examined
from chat2api.gateway.jobs import Job, JobItem, JobStatus
from chat2api.runtime import Runtime
from chat2api.sentences import Phrases

blueprint = Blueprint("doctor_page", __name__)
examining = Blueprint("examining", __name__)
"""What the page's buttons do."""

PATH = "/tokens/checkup"

PER_PAGE = 50
"""Accounts on one page; those with a finding come first."""

SAY = Phrases("examination", {"gone": "It was removed meanwhile."})

_GROUPS = {
    **dict.fromkeys(("way", "chatgpt", "sign-in-free"), "ways"),
    **dict.fromkeys(("api", "key"), "api"),
    **dict.fromkeys(("account", "accounts"), "accounts"),
}
"""The group of the page in which checks stand, by the first part of their names; the others are about the server."""


@dataclass(frozen=True, slots=True)
class CheckRow:
    """A check as the page shows it.

    `kind` names its words, `group` its place on the page, `about` what it is of, "" where there is only one. `account_id`
    is that of the account it is of.
    """

    name: str
    kind: str
    group: str
    about: str
    last: Examined | None
    account_id: str | None = None

    @property
    def bad(self) -> bool:
        """Whether something was found."""
        return self.last is not None and not self.last.finding.ok


@blueprint.get(PATH)
async def doctor_page() -> str:
    """All checks with what was found last; `page` is that of the accounts, `job` tells how far the examination of all is."""
    runtime = current_runtime()
    rows = _rows(runtime)
    accounts = [row for row in rows if row.group == "accounts"]
    pages = max(1, -(-len(accounts) // PER_PAGE))
    page = min(pages, max(1, request.args.get("page", 1, type=int)))
    return await render_template(
        "doctor.html",
        groups=[
            ("server", [row for row in rows if row.group == "server"]),
            ("ways", [row for row in rows if row.group == "ways"]),
            ("api", [row for row in rows if row.group == "api"]),
            ("accounts", accounts[(page - 1) * PER_PAGE : page * PER_PAGE]),
        ],
        all=len(rows),
        bad=sum(row.bad for row in rows),
        seen=sum(row.last is not None for row in rows),
        job=_job(runtime),
        path_here=_path(),
        page=page,
        pages=pages,
        link=lambda page: f"?{urlencode({'page': page})}#accounts",
    )


@examining.post(PATH)
async def examine() -> ResponseReturnValue:
    """Run the check that the field `check` names, or all of them one after the other."""
    runtime = current_runtime()
    name = (await request.form).get("check", "")
    if name == "all":
        names = [check.name for check in runtime.doctor.checks()]
        job = runtime.jobs.start("doctor", len(names), lambda job: _examine_all(runtime.doctor, names, job))
        return redirect(f"{_path()}?job={job.id}", 303)
    await runtime.doctor.run(name)
    page = _page_of(name, _rows(runtime))
    return redirect(f"{_path()}{f'?page={page}' if page > 1 else ''}#{name}", 303)


async def _examine_all(doctor: Doctor, names: list[str], job: Job) -> None:
    for name in names:
        try:
            finding = await doctor.run(name)
        except NotFoundError:
            job.add(JobItem(name, False, SAY("gone")))
        else:
            job.add(JobItem(finding.subject, finding.ok, finding.text))


def _job(runtime: Runtime) -> JobStatus | None:
    wanted = request.args.get("job")
    if wanted is None:
        return None
    try:
        return runtime.jobs.get(wanted).status
    except NotFoundError:
        return None  # an old address; what was found is shown all the same


def _rows(runtime: Runtime) -> list[CheckRow]:
    """Give the checks in their order, but accounts with a finding before the others."""
    ids = {view.account.label: view.account.id for view in runtime.pool.views()}
    rows = [_row(check, runtime.doctor.latest.get(check.name), ids) for check in runtime.doctor.checks()]
    return sorted(rows, key=lambda row: row.group == "accounts" and not row.bad)


def _row(check: Check, last: Examined | None, ids: dict[str, str]) -> CheckRow:
    group, _, about = check.name.partition("-")
    if group not in ("way", "account", "api", "key") or not about:
        return CheckRow(check.name, check.name.replace("-", "_"), _GROUPS.get(check.name, "server"), "", last)
    if group in ("way", "api", "key"):
        shown = check.name if group == "key" else check.subject
        return CheckRow(check.name, group, _GROUPS[group], shown, last)
    return CheckRow(check.name, group, _GROUPS[group], about, last, ids.get(about))


def _page_of(name: str, rows: list[CheckRow]) -> int:
    accounts = [row.name for row in rows if row.group == "accounts"]
    return 1 + accounts.index(name) // PER_PAGE if name in accounts else 1


def _path() -> str:
    prefix = current_runtime().config.api_prefix
    return (f"/{prefix}" if prefix else "") + PATH
