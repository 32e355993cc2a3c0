"""What happens next to an account, and when: every deadline there is, from what the ledger knows.

`BillingCycle` does nothing else than to wait for the first line of this agenda, to have it done,
and to look again. That is why an account can be killed at any point, or its workflow started anew
from nothing: what is to be done follows from what is done, and a step that was done leaves no line
here. It is also the answer to "what happens next, and when?" (requirement 49).

Closing is one line with all its steps, since nothing may come between them; everything about
invoices goes on beside it, so an old unpaid invoice takes its course while new periods open and
close.
"""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from decimal import Decimal

from tallystick.contracts import Agenda, Due
from tallystick.plans.dunning import grace_end, reminders
from tallystick.plans.periods import Period, period_at

SETTLING = timedelta(minutes=5)
"""After a period's end, for requests that ended with it to be recorded and metered."""
JITTER = timedelta(minutes=10)
"""Closings of one boundary are spread over this much: all accounts of a month's end at once would
meet Stripe's limits. With `SETTLING` it stays well below the hour after which Stripe would
finalize a draft by itself (facts on Stripe, 'Subscriptions, invoices, dunning')."""
LOOK_AGAIN = timedelta(days=1)
"""An open invoice is looked at this often, in case its events were lost on the way."""


NO_PLAN = ""
"""Stands for the plan that Stripe is set up for where the account ends with the open period."""


class AccountState:
    """Values of the search attribute `BillingState` that an account can take."""

    ACTIVE = "active"
    GRACE = "grace"
    SUSPENDED = "suspended"
    STUCK = "stuck"
    ENDED = "ended"


@dataclass(frozen=True, slots=True)
class AccountBooks:
    """How far an account's books have come. `anchor` and `time_zone` place its boundaries."""

    anchor: datetime
    time_zone: str
    opened_at: datetime
    invoiced_until: datetime
    subscription_id: str | None
    aligned_plan: str | None
    plan_after: str
    """The plan in force at the end of the open period."""
    wants_subscription: bool
    """Whether the plan in force now is collected by a Stripe subscription."""
    opening_statement: bool
    """Whether the statement that opens an account with a base fee is still missing."""
    cancel_at: datetime | None = None
    ended_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class UnpaidInvoice:
    """A finalized invoice that still waits for money; `failed_at` is None while nothing failed."""

    invoice_id: str
    open_cents: int
    failed_at: datetime | None
    due_at: datetime | None
    checked_at: datetime
    failure: str | None = None
    next_payment_attempt: datetime | None = None
    hosted_url: str | None = None
    """Where the customer can pay it; Stripe's page."""

    @property
    def amount(self) -> str:
        """What is open, as people write it."""
        return f"${Decimal(self.open_cents).scaleb(-2):,.2f}"

    def late_since(self, now: datetime) -> datetime | None:
        """Return since when it is late: its first failure, or its due date once that has passed.

        With terms of payment the clock starts at the due date (requirement 44).
        """
        if self.due_at is not None:
            return self.due_at if self.due_at <= now else None
        return self.failed_at


@dataclass(frozen=True, slots=True)
class AccountView:
    """All that the ledger knows about a customer's account, at one instant.

    `told` are the keys of notices raised so far: what was announced is not announced again.
    """

    customer_id: str
    time_zone: str
    suspended_by: str | None
    grace_days: int
    reminder_days: tuple[int, ...]
    books: AccountBooks | None
    invoices: tuple[UnpaidInvoice, ...] = ()
    told: frozenset[str] = frozenset()
    next_expiry: datetime | None = None
    """When the next grant with something left expires."""
    open_top_up: int | None = None
    untold: int = 0
    """Notices that wait for the notifier."""
    events: tuple[str, ...] = field(default=())
    """Stripe's events that wait to be applied."""


def grace_key(invoice_id: str) -> str:
    """Return the key of the notice that a payment has failed."""
    return f"grace-started:{invoice_id}"


def reminder_key(invoice_id: str, number: int) -> str:
    """Return the key of the reminder of that number."""
    return f"payment-reminder:{invoice_id}:{number}"


def suspension_key(invoice_id: str) -> str:
    """Return the key of the notice that service has stopped."""
    return f"suspended:{invoice_id}"


def agenda(view: AccountView, now: datetime) -> Agenda:
    """Return what the account has to do, soonest first, and how it stands at `now`."""
    period = _open_period(view.books)
    dues = sorted(_dues(view, period, now), key=lambda due: due.at)
    return Agenda(
        customer_id=view.customer_id,
        state=_state(view, now),
        period_start=period.start if period else None,
        period_end=period.end if period else None,
        dues=tuple(dues),
    )


def _open_period(books: AccountBooks | None) -> Period | None:
    """Return the first period whose invoice is not final, cut where the account ends."""
    if books is None or books.ended_at is not None:
        return None
    _, period = period_at(books.anchor, books.time_zone, books.invoiced_until)
    end = period.end if books.cancel_at is None else min(period.end, books.cancel_at)
    return Period(books.invoiced_until, end)


def _state(view: AccountView, now: datetime) -> str:
    if view.books is not None and view.books.ended_at is not None:
        return AccountState.ENDED
    if view.suspended_by is not None:
        return AccountState.SUSPENDED
    if any(invoice.late_since(now) for invoice in view.invoices):
        return AccountState.GRACE
    return AccountState.ACTIVE


def _dues(view: AccountView, period: Period | None, now: datetime) -> Iterator[Due]:
    if view.untold:
        yield Due(
            kind="notices",
            at=now,
            words=f"deliver {view.untold} notice(s)",
            steps=("send_notices",),
        )
    if view.events:
        yield Due(
            kind="events",
            at=now,
            words=f"look at what {len(view.events)} event(s) from Stripe are about",
            steps=("apply_stripe_events",),
        )
    if view.books is not None and period is not None:
        yield from _of_books(view.customer_id, view.books, period)
    if view.open_top_up is not None:
        yield Due(
            kind="top_up",
            at=now,
            subject=str(view.open_top_up),
            words="buy the credit that was asked for",
            steps=("collect_top_up",),
        )
    if view.next_expiry is not None:
        yield Due(
            kind="expire_grants",
            at=view.next_expiry,
            words="credit that was not used expires",
            steps=("expire_grants",),
        )
    yield from _of_payments(view, now)


def _of_books(customer_id: str, books: AccountBooks, period: Period) -> Iterator[Due]:
    ordinal, _ = period_at(books.anchor, books.time_zone, period.start)
    opening = books.wants_subscription and books.subscription_id is None
    if opening or books.opening_statement:
        yield Due(
            kind="open",
            at=books.opened_at,
            subject="0",
            words="set the account up with Stripe",
            # The fee in advance is on a statement before it is on an invoice.
            steps=("settle_period", "open_subscription", "check_anchor"),
        )
        return
    if books.cancel_at is not None and books.invoiced_until >= books.cancel_at:
        yield Due(
            kind="end",
            at=books.cancel_at,
            words="the account has come to its end",
            steps=("end_account",),
        )
        return
    plan_after = books.plan_after if books.cancel_at is None else NO_PLAN
    if books.aligned_plan != plan_after:
        yield Due(
            kind="align",
            at=books.opened_at,
            words=f"tell Stripe of the plan {plan_after}"
            if plan_after
            else "tell Stripe of the end",
            steps=("align_subscription",),
        )
    ending = books.cancel_at is not None and period.end >= books.cancel_at
    yield Due(
        kind="close",
        at=period.end + SETTLING + _jitter(customer_id),
        subject=str(ordinal),
        words=(
            f"the account ends {_day(period.end)}: its last statement is written and collected"
            if ending
            else f"period {ordinal} ends {_day(period.end)}: it is settled, its statement written "
            "and its invoice completed"
        ),
        steps=_closing(subscribed=books.subscription_id is not None, ending=ending),
    )


def _closing(*, subscribed: bool, ending: bool) -> tuple[str, ...]:
    if not subscribed:
        # What is left of another model (late usage, corrections) is on an invoice of ours.
        return (
            "close_books",
            "settle_period",
            "put_on_invoice",
            "finalize_invoice",
            "finish_period",
            "end_account" if ending else "open_subscription",
        )
    if ending:
        # Stripe's last invoice, made by the cancellation, is held and completed as any other.
        return (
            "hold_draft",
            "close_books",
            "verify_metering",
            "settle_period",
            "cancel_subscription",
            "put_on_invoice",
            "finalize_invoice",
            "end_account",
        )
    return (
        "hold_draft",
        "close_books",
        "verify_metering",
        "settle_period",
        "put_on_invoice",
        "finalize_invoice",
        "open_subscription",
        "check_anchor",
    )


def _of_payments(view: AccountView, now: datetime) -> Iterator[Due]:
    blocking: list[UnpaidInvoice] = []
    for invoice in view.invoices:
        late_since = invoice.late_since(now)
        if late_since is None:
            if invoice.due_at is not None:
                yield Due(
                    kind="due_date",
                    at=invoice.due_at,
                    subject=invoice.invoice_id,
                    words=f"invoice {invoice.invoice_id} over {invoice.amount} is due",
                    steps=("look_at_invoices",),
                )
        else:
            end = grace_end(late_since, view.grace_days, view.time_zone)
            yield from _of_grace(view, invoice, late_since, end, now)
            if end <= now:
                blocking.append(invoice)
        yield Due(
            kind="look",
            at=invoice.checked_at + LOOK_AGAIN,
            subject=invoice.invoice_id,
            words=f"ask Stripe about invoice {invoice.invoice_id} over {invoice.amount}",
            steps=("look_at_invoices",),
        )
    if view.suspended_by == "payment" and not blocking:
        yield Due(
            kind="restore",
            at=now,
            words="everything overdue is paid: service is restored",
            steps=("restore_service",),
        )


def _of_grace(
    view: AccountView, invoice: UnpaidInvoice, late_since: datetime, end: datetime, now: datetime
) -> Iterator[Due]:
    if grace_key(invoice.invoice_id) not in view.told:
        yield Due(
            kind="grace",
            at=late_since,
            subject=invoice.invoice_id,
            words=f"say that {invoice.amount} of invoice {invoice.invoice_id} could not be "
            f"collected; service goes on until {_moment(end)}",
            steps=("start_grace",),
        )
        return
    instants = reminders(late_since, view.reminder_days, view.time_zone, until=end)
    for number, at in enumerate(instants, start=1):
        # Once grace is over, a reminder that was missed would only contradict what is said next.
        if now < end and reminder_key(invoice.invoice_id, number) not in view.told:
            yield Due(
                kind="reminder",
                at=at,
                subject=f"{invoice.invoice_id}:{number}",
                words=f"remind of {invoice.amount} on invoice {invoice.invoice_id}",
                steps=("remind_of_payment",),
            )
    # Once for each invoice: an operator who lets the customer on in spite of it has decided.
    if view.suspended_by is None and suspension_key(invoice.invoice_id) not in view.told:
        yield Due(
            kind="suspend",
            at=end,
            subject=invoice.invoice_id,
            words=f"grace for invoice {invoice.invoice_id} ends; without payment service stops",
            steps=("suspend_service",),
        )


def _jitter(customer_id: str) -> timedelta:
    share = int.from_bytes(hashlib.sha256(customer_id.encode()).digest()[:4]) / 2**32
    return timedelta(seconds=int(share * JITTER.total_seconds()))


def _day(at: datetime) -> str:
    return at.strftime("%Y-%m-%d %H:%M %Z")


def _moment(at: datetime) -> str:
    return at.strftime("%A %Y-%m-%d %H:%M %Z")
