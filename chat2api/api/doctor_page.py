"""The doctor for the operator: a button for each check, what was found last with what to do, and all checks in a row."""

from dataclasses import dataclass

from quart import Blueprint, redirect, render_template, request
from quart.typing import ResponseReturnValue

from chat2api.api.context import current_runtime
from chat2api.errors import NotFoundError
from chat2api.gateway.doctor import Check, Doctor, Examined
from chat2api.gateway.jobs import Job, JobItem, JobStatus
from chat2api.runtime import Runtime

blueprint = Blueprint("doctor_page", __name__)
examining = Blueprint("examining", __name__)
"""What the page's buttons do."""

PATH = "/tokens/checkup"

_GROUPS = ("way", "account")


@dataclass(frozen=True, slots=True)
class CheckRow:
    """A check as the page shows it. `kind` names its words, `about` what it is of, "" where there is only one."""

    name: str
    kind: str
    about: str
    last: Examined | None


@blueprint.get(PATH)
async def doctor_page() -> str:
    """All checks with what was found last; with `job`, how far the examination of all is."""
    runtime = current_runtime()
    rows = [_row(check, runtime.doctor) for check in runtime.doctor.checks()]
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


def _row(check: Check, doctor: Doctor) -> CheckRow:
    group, _, about = check.name.partition("-")
    if group in _GROUPS and about:
        return CheckRow(check.name, group, check.subject.removeprefix("account "), doctor.latest.get(check.name))
    return CheckRow(check.name, check.name.replace("-", "_"), "", doctor.latest.get(check.name))


def _path() -> str:
    prefix = current_runtime().config.api_prefix
    return (f"/{prefix}" if prefix else "") + PATH
