"""`handle_meter_reports`: meter events that Stripe took, acknowledged, and rejected later.

A receipt is no record: customer and meter are checked afterwards, and only a thin event tells what
failed (facts on Stripe, 'Meters'). The report is fetched, each sample in it parks the event of the
outbox that it names, where `tallystick stuck` shows it, and the operators are told, all in one
transaction with the mark on the report. Samples are no work list: a report counts more than it
names, and says so in the notice.
"""

from collections.abc import Callable
from datetime import datetime

import stripe
from pydantic import BaseModel, ValidationError
from stripe import StripeClient
from temporalio import activity

from activities.stripe_calls import stripe_calls
from activities.transactions import transaction
from tallystick.contracts import explain_validation
from tallystick.ledger import inbox, outbox
from tallystick.ledger.database import Ledger, Transaction
from tallystick.ledger.inbox import WaitingEvent
from tallystick.ledger.notices import raise_notice

AT_ONCE = 50
"""Reports that one run reads; the next run takes the rest."""


class _Request(BaseModel):
    identifier: str


class _Sample(BaseModel):
    error_message: str
    request: _Request


class _ErrorType(BaseModel):
    code: str
    error_count: int
    sample_errors: list[_Sample]


class _Reason(BaseModel):
    error_count: int
    error_types: list[_ErrorType]


class _Data(BaseModel):
    developer_message_summary: str
    reason: _Reason


class _Report(BaseModel):
    data: _Data


class _NoReportError(Exception):
    """There is nothing to be read; the message says why."""


class MeterReportActivities:
    """Reads reports that wait in the inbox of `ledger`; `clock` tells the present."""

    def __init__(self, ledger: Ledger, stripe: StripeClient, clock: Callable[[], datetime]):
        self._ledger = ledger
        self._stripe = stripe
        self._clock = clock

    @activity.defn
    async def handle_meter_reports(self) -> int:
        """Park what Stripe has rejected; returns how many reports were read.

        Raises:
            ApplicationError: a row of the error table; the reports read before it are done.
        """
        async with transaction(self._ledger) as tx:
            waiting = await inbox.meter_reports(tx, AT_ONCE)
        for event in waiting:
            await self._read(event)
        return len(waiting)

    async def _read(self, event: WaitingEvent) -> None:
        now = self._clock()
        try:
            report = await self._fetch(event.event_id)
        except _NoReportError as error:
            async with transaction(self._ledger) as tx:
                await inbox.park(tx, [event.event_id], None, str(error), now)
            return
        async with transaction(self._ledger) as tx:
            await _apply(tx, event.event_id, report, now)

    async def _fetch(self, event_id: str) -> _Data:
        with stripe_calls():
            try:
                found = await self._stripe.v2.core.events.retrieve_async(event_id)
            except stripe.StripeError as error:
                if error.http_status != 404:  # noqa: PLR2004
                    raise
                raise _NoReportError("Stripe no longer has the report") from error
        try:
            return _Report.model_validate(found.to_dict()).data
        except ValidationError as error:
            raise _NoReportError(
                f"the report cannot be read: {explain_validation(error)}"
            ) from error


async def _apply(tx: Transaction, event_id: str, report: _Data, at: datetime) -> None:
    if not await inbox.mark_applied(tx, [event_id], at):
        return  # another run was quicker
    parked: list[str] = []
    unknown: list[str] = []
    for error in report.reason.error_types:
        for sample in error.sample_errors:
            key = await outbox.reject(
                tx,
                reported=sample.request.identifier,
                code=error.code,
                message=sample.error_message,
                event_id=event_id,
                at=at,
            )
            if key is None:
                unknown.append(sample.request.identifier)
            else:
                parked.append(f"{key.customer_id}/{key.request_id}")
    counts = {error.code: error.error_count for error in report.reason.error_types}
    await raise_notice(
        tx,
        None,
        key=f"meter-events-rejected:{event_id}",
        kind="meter_events_rejected",
        audience="operator",
        message=(
            f"Stripe has rejected {report.reason.error_count} meter event(s) that it had taken "
            f"({', '.join(counts)}). Its report names samples: {len(parked)} of them are ours and "
            "parked (`tallystick stuck`), the others show when the period's sums are compared."
        ),
        facts={
            "event_id": event_id,
            "summary": report.developer_message_summary,
            "counts": counts,
            "requests": sorted(set(parked)),
            "unknown_identifiers": unknown,
        },
        at=at,
    )
