"""What an operator does with the pool's accounts beyond editing one: imports, live checks, renewals, many at once."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from chat2api.accounts.editing import AccountEditor
from chat2api.accounts.importing import ImportEntry, Saved, preview_import, save_import
from chat2api.accounts.pool import AccountPool
from chat2api.accounts.refresh import TokenKeeper
from chat2api.accounts.renewal import GAP_SECONDS
from chat2api.accounts.views import AccountView, advice_for, error_code
from chat2api.clock import Clock
from chat2api.errors import Chat2APIError, InvalidRequestError, NotFoundError
from chat2api.gateway.doctor import Doctor, Finding
from chat2api.gateway.jobs import Job, JobItem, Jobs
from chat2api.sentences import Phrases, Sentence, words_of_error
from chat2api.storage.records import Records

BulkAction = Literal["test", "refresh", "disable", "enable", "delete"]

BULK_ACTIONS: tuple[BulkAction, ...] = get_args(BulkAction)

MAX_BULK = 10_000
"""Accounts of one job."""

TESTS_AT_ONCE = 4
"""Live checks side by side: enough to be done soon, few enough not to be conspicuous."""

RENEWABLE = ("refresh", "session")
"""Kinds of accounts that have something to renew their access token with."""


SAY = Phrases(
    "job_text",
    {
        "line": "line {line}",
        "added": "added",
        "merged": "merged",
        "unchanged": "unchanged",
        "renewed": "its access token was renewed",
        "deleted": "removed; it can be brought back for 24 hours",
        "disabled": "set aside",
        "enabled": "may serve again",
        "and_advice": "{text} {advice}",
    },
)
"""What jobs say of accounts."""


@dataclass(frozen=True, slots=True)
class CareParts:
    """What the care of accounts works with: the pool's own parts."""

    records: Records
    pool: AccountPool
    editor: AccountEditor
    keeper: TokenKeeper
    doctor: Doctor
    jobs: Jobs
    clock: Clock


class AccountCare:
    """Works on the pool's accounts. Methods of one account raise NotFoundError for an id that the pool does not have."""

    def __init__(self, parts: CareParts) -> None:
        """Work with these parts."""
        self._parts = parts

    def view(self, account_id: str) -> AccountView:
        """Give one account as it is now."""
        view = self._parts.pool.view(account_id)
        if view is None:
            raise NotFoundError("There is no such account.", param="id", code="account_not_found")
        return view

    # Imports

    async def preview(self, text: str) -> tuple[ImportEntry, ...]:
        """Say what saving this text would do, line by line."""
        return await preview_import(text, self._parts.records, self._parts.clock.now())

    async def save(self, text: str, on_progress: Callable[[int, int], None] | None = None) -> Saved:
        """Save the accounts of a text; the pool uses them when this returns."""
        saved = await save_import(text, self._parts.records, self._parts.clock.now(), on_progress=on_progress)
        await self._parts.pool.reload()
        return saved

    def start_save(self, text: str) -> Job:
        """Save the accounts of a text as a job, whose items name the accounts and unreadable lines."""

        async def work(job: Job) -> None:
            saved = await self.save(text, job.progress)
            job.items += [JobItem(SAY("line", line=problem.line), False, problem.message) for problem in saved.problems]
            job.items += [JobItem(one.account.label, True, SAY(one.outcome)) for one in saved.added]

        return self._parts.jobs.start("import", 0, work)

    # One account

    async def test(self, account_id: str) -> Finding:
        """Use the account once, now, and say what came of it and what to do."""
        return await self._parts.doctor.examine_account(self.view(account_id))

    async def renew(self, account_id: str) -> Finding:
        """Renew the account's access token now. Raises InvalidRequestError for one that has nothing to renew it with."""
        view = self.view(account_id)
        account, subject = view.account, f"account {view.account.label}"
        if account.kind not in RENEWABLE:
            raise InvalidRequestError("This account has no RefreshToken, so there is nothing to renew.", param="id")
        try:
            await self._parts.keeper.renew(account)
        except Chat2APIError as error:
            return Finding(subject, False, _words(error), advice_for(error_code(error) or ""))
        return Finding(subject, True, SAY("renewed"))

    # Many accounts

    def failed_labels(self) -> list[str]:
        """Give the labels of the accounts that need a new sign-in or are in doubt."""
        return [
            view.account.label
            for view in self._parts.pool.views()
            if view.account.state in ("needs_sign_in", "in_doubt")
        ]

    def start_bulk(self, action: BulkAction, ids: Sequence[str] | None) -> Job:
        """Do one thing with these accounts, or with None all, as a job with an item for each.

        Raises InvalidRequestError for too many, NotFoundError for an unknown one.
        """
        if ids is None:
            ids = [view.account.id for view in self._parts.pool.views()]
        ids = list(dict.fromkeys(ids))
        if len(ids) > MAX_BULK:
            raise InvalidRequestError(f"One job takes at most {MAX_BULK} accounts.", param="ids")
        views = [self.view(account_id) for account_id in ids]
        if action == "refresh":
            views = [view for view in views if view.account.kind in RENEWABLE]

        async def work(job: Job) -> None:
            match action:
                case "test":
                    await self._side_by_side(job, views, self.test)
                case "refresh":
                    for number, view in enumerate(views):
                        if number:
                            await self._parts.clock.sleep(GAP_SECONDS)
                        await self._one(job, view, self.renew)
                case "delete":
                    for view in views:
                        await self._one(job, view, self._delete)
                case "disable":
                    for view in views:
                        await self._one(job, view, self._disable)
                case "enable":
                    for view in views:
                        await self._one(job, view, self._enable)

        return self._parts.jobs.start(action, len(views), work)

    async def _side_by_side(
        self, job: Job, views: Sequence[AccountView], do: Callable[[str], Awaitable[Finding]]
    ) -> None:
        waiting = iter(views)

        async def take() -> None:
            for view in waiting:
                await self._one(job, view, do)

        async with asyncio.TaskGroup() as group:
            for _ in range(TESTS_AT_ONCE):
                group.create_task(take())

    async def _one(self, job: Job, view: AccountView, do: Callable[[str], Awaitable[Finding]]) -> None:
        try:
            finding = await do(view.account.id)
            text = SAY("and_advice", text=finding.text, advice=finding.advice) if finding.advice else finding.text
            job.add(JobItem(view.account.label, finding.ok, text))
        except Chat2APIError as error:
            # For instance an account that somebody removed meanwhile: the others go on.
            job.add(JobItem(view.account.label, False, _words(error)))

    async def _delete(self, account_id: str) -> Finding:
        self.view(account_id)
        await self._parts.editor.delete([account_id])
        return Finding("", True, SAY("deleted"))

    async def _disable(self, account_id: str) -> Finding:
        await self._parts.editor.disable(account_id)
        return Finding("", True, SAY("disabled"))

    async def _enable(self, account_id: str) -> Finding:
        await self._parts.editor.enable(account_id)
        return Finding("", True, SAY("enabled"))


def _words(error: Chat2APIError) -> Sentence:
    return words_of_error(error.message, error_code(error) or error.code)
