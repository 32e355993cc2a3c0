"""`send_notices`: tells customers and operators what was raised for them, through one notifier.

A notice is committed with the fact it is about and marked delivered after the notifier has taken
it. A crash in between delivers it again under the same id, which every delivery carries: a
receiver that keeps ids sees each notice exactly once. Nothing is told that the ledger does not
hold, and nothing is lost because the receiver was away.
"""

import hashlib
import hmac
import json
import logging
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Protocol

import httpx
from pydantic import SecretStr
from temporalio import activity

from activities.failures import failure
from activities.transactions import transaction
from tallystick.contracts import StepOrder, StepResult
from tallystick.errors import NOTIFIER_UNAVAILABLE
from tallystick.ledger import notices
from tallystick.ledger.account_tables import Notice
from tallystick.ledger.database import Ledger

log = logging.getLogger("tallystick.notices")

RECEIVER_TIMEOUT = 10.0
"""Seconds for a receiver to take one notice; it has only to store it."""


class NotifierError(Exception):
    """The receiver did not take a notice; the message says how it answered."""


class Notifier(Protocol):
    """Takes notices, one at a time; raises NotifierError where it could not."""

    async def tell(self, notice: Notice) -> None:
        """Hand one notice over."""
        ...


class LogNotifier:
    """Writes notices to the log: what there is without a receiver."""

    async def tell(self, notice: Notice) -> None:
        """Log the notice; operators' ones as warnings."""
        level = logging.WARNING if notice.audience == "operator" else logging.INFO
        log.log(level, "notice %s for %s of %s: %s", notice.notice_id, notice.audience,
                notice.customer_id, notice.message)  # fmt: skip


class WebhookNotifier:
    """Posts notices as JSON to one address, signed so that the receiver can trust them.

    `Tallystick-Signature: t=<unix seconds>,v1=<hex HMAC-SHA256 of "<t>.<body>">`, as Stripe signs.
    """

    def __init__(
        self,
        url: str,
        secret: SecretStr | None,
        client: httpx.AsyncClient,
        clock: Callable[[], float] = time.time,
    ):
        self._url, self._secret, self._client, self._clock = url, secret, client, clock

    async def tell(self, notice: Notice) -> None:
        """Post the notice; an answer of 2xx says that it was taken."""
        body = json.dumps(
            {
                "id": notice.notice_id,
                "customer_id": notice.customer_id,
                "kind": notice.kind,
                "audience": notice.audience,
                "message": notice.message,
                "facts": notice.facts,
                "raised_at": notice.raised_at.isoformat(),
            }
        )
        headers = {
            "Content-Type": "application/json",
            "Tallystick-Notice-Id": str(notice.notice_id),
        }
        if self._secret is not None:
            at = int(self._clock())
            signed = hmac.new(
                self._secret.get_secret_value().encode(), f"{at}.{body}".encode(), hashlib.sha256
            )
            headers["Tallystick-Signature"] = f"t={at},v1={signed.hexdigest()}"
        try:
            answer = await self._client.post(self._url, content=body, headers=headers)
        except httpx.HTTPError as error:
            raise NotifierError(f"TALLYSTICK_NOTICE_URL: {type(error).__name__}") from error
        if not answer.is_success:
            raise NotifierError(f"TALLYSTICK_NOTICE_URL answered {answer.status_code}")


@asynccontextmanager
async def notifier(url: str | None, secret: SecretStr | None) -> AsyncGenerator[Notifier, None]:
    """Yield the notifier that the settings ask for: the webhook at `url`, else the log."""
    if url is None:
        yield LogNotifier()
        return
    async with httpx.AsyncClient(timeout=RECEIVER_TIMEOUT) as client:
        yield WebhookNotifier(url, secret, client)


class NoticeActivities:
    """Delivers what is raised in `ledger` through `notifier`."""

    def __init__(self, ledger: Ledger, notifier: Notifier):
        self._ledger = ledger
        self._notifier = notifier

    @activity.defn
    async def send_notices(self, order: StepOrder) -> StepResult:
        """Deliver the customer's waiting notices in the order they were raised.

        Raises:
            ApplicationError: `NotifierUnavailable`, to be tried again; what was taken stays taken.
        """
        delivered = await self._deliver(order.customer_id)
        return StepResult(words=f"{delivered} notice(s) delivered")

    @activity.defn
    async def send_operator_notices(self) -> int:
        """Deliver waiting notices that concern no single account; returns how many."""
        return await self._deliver(None)

    async def _deliver(self, customer_id: str | None) -> int:
        async with transaction(self._ledger) as tx:
            waiting = await notices.waiting(tx, customer_id)
        for notice in waiting:
            assert notice.notice_id is not None  # noqa: S101 - a row
            try:
                await self._notifier.tell(notice)
            except NotifierError as error:
                raise failure(NOTIFIER_UNAVAILABLE, str(error)) from error
            async with transaction(self._ledger) as tx:
                await notices.mark_delivered(tx, notice.notice_id, datetime.now(UTC))
        return len(waiting)
