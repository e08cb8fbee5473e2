"""The doctor for the operator: a button for each check, what was found last with what to do, and all checks in a row."""

from collections.abc import Mapping
from dataclasses import dataclass

from quart import Blueprint, redirect, render_template, request
from quart.typing import ResponseReturnValue

from chat2api.accounts.views import advice_for
from chat2api.api.context import current_runtime
from chat2api.errors import NotFoundError
from chat2api.gateway.doctor import REMEDIES, Check, Doctor, Examined
from chat2api.gateway.jobs import Job, JobItem, JobStatus
from chat2api.runtime import Runtime

blueprint = Blueprint("doctor_page", __name__)
examining = Blueprint("examining", __name__)
"""What the page's buttons do."""

PATH = "/tokens/checkup"

_GROUPS = ("way", "account")
_REMEDY_OF = {sentence: word for word, sentence in REMEDIES.items()}


@dataclass(frozen=True, slots=True)
class CheckRow:
    """A check as the page shows it.

    `kind` names its words, `about` what it is of, "" where there is only one. `remedy` names the text that says what to
    do; where it is "" or has no words, the doctor's own sentence must do.
    """

    name: str
    kind: str
    about: str
    last: Examined | None
    remedy: str


@blueprint.get(PATH)
async def doctor_page() -> str:
    """All checks with what was found last; with `job`, how far the examination of all is."""
    runtime = current_runtime()
    rows = _rows(runtime)
    bad = sum(row.last is not None and not row.last.finding.ok for row in rows)
    seen = sum(row.last is not None for row in rows)
    return await render_template("doctor.html", rows=rows, bad=bad, seen=seen, job=_job(runtime), path_here=_path())


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
    return redirect(f"{_path()}#{name}", 303)


async def _examine_all(doctor: Doctor, names: list[str], job: Job) -> None:
    for name in names:
        try:
            finding = await doctor.run(name)
        except NotFoundError:
            job.add(JobItem(name, False, "It was removed meanwhile."))
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
    reasons = {view.account.label: view.reason for view in runtime.pool.views() if view.advice}
    return [_row(check, runtime.doctor.latest.get(check.name), reasons) for check in runtime.doctor.checks()]


def _row(check: Check, last: Examined | None, reasons: Mapping[str, str | None]) -> CheckRow:
    remedy = _REMEDY_OF.get(last.finding.advice, "") if last is not None else ""
    group, _, about = check.name.partition("-")
    if group not in _GROUPS or not about:
        return CheckRow(check.name, check.name.replace("-", "_"), "", last, remedy and f"remedy.{remedy}")
    reason = reasons.get(about) if group == "account" else None
    if last is not None and reason is not None and last.finding.advice == advice_for(reason):
        return CheckRow(check.name, group, about, last, f"advice.{reason}")
    return CheckRow(check.name, group, check.subject.removeprefix("account "), last, remedy and f"remedy.{remedy}")


def _path() -> str:
    prefix = current_runtime().config.api_prefix
    return (f"/{prefix}" if prefix else "") + PATH
