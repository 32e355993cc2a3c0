"""The repair `correct_meter`: an event of its own makes Stripe's sum of a minute right.

Subjects are identifiers of corrections (`tallystick.metering.correction_identifier`). Facts:
`customer_id`, `stripe_customer_id`, `meter`, `value` (what is added to Stripe's sum: negative where
it has too much), `occurred_at` (in the minute that is wrong).

The correction is written with the instant of its first send before it is sent. For 23 hours from
then on Stripe counts a repetition once; later the look at its minute says whether it counts.
"""

from datetime import datetime

from activities.repair_calls import RepairCalls
from activities.repair_minutes import MeterMinute, trouble_adding
from activities.repairing import Case, Done, Outcome, Ready, Refused
from activities.stripe_meters import OutgoingEvent
from tallystick.ledger import meter_corrections
from tallystick.ledger.collection_corrections import metered_period
from tallystick.ledger.database import Ledger
from tallystick.ledger.reconciliation_tables import Repair
from tallystick.metering import CHARGE_METER, RESENT_FOR, SENT_FOR, TAKEN_FOR, resend_key


class CorrectMeter:
    """Corrects Stripe's meters by `calls`; `ledger` keeps what was sent for it."""

    def __init__(self, ledger: Ledger, calls: RepairCalls):
        self._ledger = ledger
        self._calls = calls

    async def look(self, case: Case) -> Ready | Outcome:
        """Tell whether Stripe's sum is off by so much, and an invoice can still follow it."""
        facts, at = case.facts, datetime.fromisoformat(case.facts["occurred_at"])
        async with self._ledger.begin() as tx:
            sent = await meter_corrections.find(tx, case.subject)
            charged = facts["meter"] == CHARGE_METER
            final = charged and await metered_period(tx, facts["customer_id"], at)
        ready = Ready(f"{facts['value']:+,} is added to {facts['meter']} at {at.isoformat()}")
        if sent and sent.first_sent_at and case.now - sent.first_sent_at < RESENT_FOR:
            return ready
        if case.now - at >= SENT_FOR:
            return Refused(
                f"Stripe takes no usage older than {TAKEN_FOR.days} days; the next statement can "
                "collect the difference"
            )
        if final:
            return Refused(
                f"the invoice of period {final.ordinal} is final and does not follow its meter any "
                "more; the next statement can collect the difference"
            )
        minute = MeterMinute(facts["stripe_customer_id"], facts["meter"], at)
        return await trouble_adding(self._ledger, self._calls, minute, facts["value"]) or ready

    async def act(self, case: Case, begun: Repair) -> Outcome:
        """Write the correction, send it, and note that Stripe has it."""
        facts = case.facts
        async with self._ledger.begin() as tx:
            correction = await meter_corrections.prepare(
                tx,
                case.subject,
                at=case.now,
                discrepancy_id=case.discrepancy_id,
                customer_id=facts["customer_id"],
                stripe_customer_id=facts["stripe_customer_id"],
                meter=facts["meter"],
                value=facts["value"],
                occurred_at=datetime.fromisoformat(facts["occurred_at"]),
            )
        assert correction.first_sent_at is not None  # noqa: S101 - written above
        answer = await self._calls.send(
            OutgoingEvent(
                identifier=correction.identifier,
                meter=correction.meter,
                stripe_customer_id=correction.stripe_customer_id,
                value=correction.value,
                occurred_at=correction.occurred_at,
                # Another one each day: an older answer would be repeated without effect.
                idempotency_key=resend_key(
                    correction.identifier, (case.now - correction.first_sent_at).days
                ),
            )
        )
        if not isinstance(answer, str):
            return answer
        async with self._ledger.begin() as tx:
            await meter_corrections.mark_delivered(tx, correction.identifier, case.now)
        return Done(f"{correction.value:+,} was added to {correction.meter}")
