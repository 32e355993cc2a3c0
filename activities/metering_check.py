"""`verify_metering`: before a period is settled, Stripe has counted all of it, and nothing else.

Two sides have to agree. Every charge of the period is acknowledged, and Stripe's own sum of the
charge meter is what the ledger has sent. Summaries know whole minutes only and a period may begin
at any second, so both sides are added up over the minutes that touch the period: the outbox knows
what else lies in those, and the comparison stays exact.

What Stripe will not collect is taken out here: charges from before the subscription began or after
it ended, and, once the collection cut-off has passed, those that never got through. They are
withdrawn, and the statement collects them on a line of its own. So the statement's metered line is
what Stripe's invoice has to say, to the unit.
"""

from datetime import UTC, datetime, timedelta

from stripe import StripeClient
from temporalio import activity

from activities.stripe_calls import stripe_calls
from activities.stripe_periods import (
    COLLECTION_CUT_OFF,
    StripePeriod,
    is_metered,
    numbered_period,
)
from activities.stripe_summaries import InexactSumError, MeterSummaries, UnknownMeterError
from activities.transactions import transaction
from tallystick.contracts import StepOrder, StepResult
from tallystick.ledger import outbox
from tallystick.ledger.database import Ledger
from tallystick.ledger.notices import raise_notice
from tallystick.ledger.outbox import WaitingCharges, WindowSums
from tallystick.metering import CHARGE_METER
from tallystick.plans.periods import Period

_MINUTE = timedelta(minutes=1)
SHORTEST_LOOK, LONGEST_LOOK = timedelta(minutes=5), timedelta(hours=1)
"""Between comparisons, growing with the wait: Stripe counts reads too."""
_FOREVER = datetime.max.replace(tzinfo=UTC)


class MeteringCheckActivities:
    """Compares `ledger` with what Stripe's meters have counted.

    Args:
        ledger: whose outbox was sent.
        client: asked for the subscription.
        summaries: asked for the meter's sums.
    """

    def __init__(self, ledger: Ledger, client: StripeClient, summaries: MeterSummaries):
        self._ledger = ledger
        self._client = client
        self._summaries = summaries

    @activity.defn
    async def verify_metering(self, order: StepOrder) -> StepResult:
        """Return when Stripe has counted the period's charges, the subject being its number."""
        of = await numbered_period(self._ledger, self._client, order)
        if not is_metered(of.subscription):
            return StepResult(words="no price of the subscription is metered")
        async with transaction(self._ledger) as tx:
            outside = await outbox.withdraw_outside(
                tx, of.customer_id, of.period, _collected(of), order.now
            )
            waiting = await outbox.waiting_charges(tx, of.customer_id, of.period)
        trouble = await self._trouble(of, waiting)
        if trouble is not None and order.now >= of.period.end + COLLECTION_CUT_OFF:
            trouble = await self._give_up_waiting(of, trouble, order.now)
        if trouble is None:
            told = f"; {outside} charge(s) are collected without Stripe's meter" if outside else ""
            return StepResult(words=f"Stripe has counted the period as the ledger has{told}")
        pause = min(max(SHORTEST_LOOK, (order.now - of.period.end) / 8), LONGEST_LOOK)
        return StepResult(words=trouble, again_at=order.now + pause)

    async def _trouble(self, of: StripePeriod, waiting: WaitingCharges) -> str | None:
        """Say what is not as it must be before the period can be settled."""
        if waiting.count:
            why = f" ({waiting.parked_reason})" if waiting.parked_reason else ""
            return f"{waiting.count} charge(s) of the period are not acknowledged by Stripe{why}"
        try:
            known, counted = await self._sums(of)
        except (InexactSumError, UnknownMeterError) as error:
            return f"Stripe's sum of the period is not known: {error}"
        if known.undelivered:
            return "charges in the period's first or last minute are on their way to Stripe"
        if counted != known.delivered:
            return f"Stripe has counted {counted:,} nano-USD, the ledger sent {known.delivered:,}"
        return None

    async def _sums(self, of: StripePeriod) -> tuple[WindowSums, int]:
        """Return both sides' sums over the minutes that touch the period."""
        start, end = of.period.start, of.period.end
        touched = Period(_cut(start), _cut(end) if end == _cut(end) else _cut(end) + _MINUTE)
        async with transaction(self._ledger) as tx:
            known = await outbox.sums_in_window(
                tx,
                stripe_customer_id=of.stripe_customer_id,
                meter=CHARGE_METER,
                start=touched.start,
                end=touched.end,
            )
        with stripe_calls():
            counted = await self._summaries.total(of.stripe_customer_id, CHARGE_METER, *touched)
        return known, counted

    async def _give_up_waiting(self, of: StripePeriod, trouble: str, now: datetime) -> str | None:
        """Withdraw what Stripe has not counted, if that is certain; tell the operator, once.

        It is certain when Stripe's sum is what it has acknowledged, to the unit. Then what is
        parked, or was never sent, is in no sum and never will be.
        """
        withdrawn = 0
        try:
            known, counted = await self._sums(of)
        except (InexactSumError, UnknownMeterError):
            pass
        else:
            if counted == known.delivered:
                async with transaction(self._ledger) as tx:
                    withdrawn = await outbox.withdraw_waiting(tx, of.customer_id, of.period, now)
        async with transaction(self._ledger) as tx:
            waiting = await outbox.waiting_charges(tx, of.customer_id, of.period)
        left = await self._trouble(of, waiting)
        if not left and not withdrawn:
            return None
        async with transaction(self._ledger) as tx:
            await raise_notice(
                tx,
                of.customer_id,
                key=f"metering-cut-off:{of.ordinal}:{'held' if left else 'withdrawn'}",
                kind="metering_cut_off",
                audience="operator",
                message=(
                    f"The invoice of period {of.ordinal} stays a draft: {left}."
                    if left
                    else f"{trouble}. {withdrawn} charge(s) are withdrawn from Stripe's meter and "
                    f"collected by a line of statement {of.ordinal}."
                ),
                facts={"ordinal": of.ordinal, "withdrawn": withdrawn, "trouble": left or trouble},
                at=now,
            )
        return left


def _collected(of: StripePeriod) -> Period:
    """Return the span of use that Stripe's invoice of the period collects.

    A subscription that is told of the account's end later than it ends collects until it is told.
    One that somebody has ended before the period's end collected what its last invoice says; the
    rest is made up for on the invoice.
    """
    assert of.began is not None  # noqa: S101 - a metered price is on a subscription
    start = max(of.period.start, of.began)
    told_later = of.ends_between_boundaries or (of.ended is not None and of.ended < of.period.end)
    return Period(start, _FOREVER if told_later else of.period.end)


def _cut(at: datetime) -> datetime:
    return at.replace(second=0, microsecond=0)
