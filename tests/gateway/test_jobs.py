"""Jobs: progress that can be followed, ends that are told, and bounds."""

import asyncio
from collections.abc import AsyncIterator, Coroutine
from typing import Any

import pytest

from chat2api.errors import NotFoundError, RateLimitedError, StorageError
from chat2api.gateway.jobs import MAX_KEPT, MAX_RUNNING, Job, JobItem, Jobs
from tests.clocks import FakeClock


class Tasks:
    """Keeps what was spawned."""

    def __init__(self) -> None:
        self.all: list[asyncio.Task[None]] = []

    def __call__(self, work: Coroutine[Any, Any, None], name: str) -> "asyncio.Task[None]":
        task = asyncio.get_running_loop().create_task(work, name=name)
        self.all.append(task)
        return task


@pytest.fixture
async def tasks() -> AsyncIterator[Tasks]:
    made = Tasks()
    yield made
    for task in made.all:
        task.cancel()
    await asyncio.gather(*made.all, return_exceptions=True)


@pytest.fixture
def jobs(tasks: Tasks) -> Jobs:
    return Jobs(FakeClock(), tasks)


async def test_a_follower_hears_each_part_once_and_the_end(jobs: Jobs) -> None:
    go = asyncio.Event()

    async def work(job: Job) -> None:
        job.add(JobItem("a", True))
        await go.wait()
        job.add(JobItem("b", False, "why"))
        job.add(JobItem("c", True))

    job = jobs.start("test", 3, work)
    assert jobs.get(job.id) is job
    heard = []
    statuses = []
    async for status, news in job.follow():
        heard += news
        statuses.append(status)
        if status.done == 1:
            go.set()
    assert [item.name for item in heard] == ["a", "b", "c"]
    assert (statuses[0].state, statuses[0].done, statuses[0].total) == ("running", 0, 3)
    assert (statuses[-1].state, statuses[-1].done, statuses[-1].failed) == ("done", 3, 1)
    late = [(status.state, len(news)) async for status, news in job.follow()]
    assert late == [("done", 3)], "who comes late hears all at once"


async def test_work_may_tell_numbers_only(jobs: Jobs, tasks: Tasks) -> None:
    async def work(job: Job) -> None:
        job.progress(50, 120)
        job.progress(120, 120)

    job = jobs.start("import", 0, work)
    await tasks.all[0]
    assert (job.status.done, job.status.total, job.status.state) == (120, 120, "done")


@pytest.mark.parametrize(
    ("error", "words"), [(StorageError("The disk is full."), "The disk is full."), (ValueError("canary"), "the log")]
)
async def test_a_failure_is_told_without_what_only_the_log_may_know(
    jobs: Jobs, tasks: Tasks, error: Exception, words: str
) -> None:
    async def work(job: Job) -> None:
        raise error

    job = jobs.start("test", 1, work)
    await tasks.all[0]
    assert job.status.state == "failed"
    assert words in (job.status.error or "")
    assert "canary" not in (job.status.error or "")


async def test_a_stopped_server_ends_its_jobs(jobs: Jobs, tasks: Tasks) -> None:
    async def work(job: Job) -> None:
        await asyncio.Event().wait()

    job = jobs.start("test", 1, work)
    follower = job.follow()
    assert (await anext(follower))[0].state == "running"
    tasks.all[0].cancel()
    assert [status.state async for status, _ in follower] == ["cancelled"]


async def test_a_quiet_job_is_told_again(jobs: Jobs) -> None:
    async def work(job: Job) -> None:
        await asyncio.Event().wait()

    follower = jobs.start("test", 1, work).follow(every=0.001)
    assert [(await anext(follower))[0].state for _ in range(3)] == ["running"] * 3


async def test_running_and_kept_jobs_are_bounded(jobs: Jobs, tasks: Tasks) -> None:
    go = asyncio.Event()

    async def wait(job: Job) -> None:
        await go.wait()

    running = [jobs.start("test", 1, wait) for _ in range(MAX_RUNNING)]
    with pytest.raises(RateLimitedError, match="jobs are running"):
        jobs.start("test", 1, wait)
    go.set()
    await asyncio.gather(*tasks.all)
    for _ in range(MAX_KEPT + 1):
        jobs.start("test", 1, wait)
        await tasks.all[-1]
    with pytest.raises(NotFoundError):
        jobs.get(running[0].id)
