"""What an account has to do next: each line appears when it is due and leaves when it is done."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from tallystick.contracts import Due
from tallystick.plans.agenda import (
    JITTER,
    NO_PLAN,
    SETTLING,
    AccountBooks,
    AccountView,
    UnpaidInvoice,
    agenda,
    grace_key,
    reminder_key,
    suspension_key,
)

ANCHOR = datetime(2027, 1, 31, tzinfo=UTC)
NOW = datetime(2027, 2, 10, 12, tzinfo=UTC)  # a Wednesday
BOOKS = AccountBooks(
    anchor=ANCHOR,
    time_zone="UTC",
    opened_at=ANCHOR,
    invoiced_until=ANCHOR,
    subscription_id="sub_1",
    aligned_plan="hybrid",
    plan_after="hybrid",
    wants_subscription=True,
    opening_statement=False,
)
VIEW = AccountView(
    customer_id="acme",
    time_zone="UTC",
    suspended_by=None,
    grace_days=3,
    reminder_days=(1, 2),
    books=BOOKS,
)
FAILED = UnpaidInvoice(
    invoice_id="in_1", open_cents=1_234_50, failed_at=NOW, due_at=None, checked_at=NOW,
    failure="the card has expired",
)  # fmt: skip


def _line(view: AccountView, kind: str, now: datetime = NOW) -> Due | None:
    return next((due for due in agenda(view, now).dues if due.kind == kind), None)


def test_an_idle_account_waits_for_its_period_to_end() -> None:
    looked = agenda(VIEW, NOW)
    assert [due.kind for due in looked.dues] == ["close"]
    assert looked.state == "active"
    assert looked.period_end == datetime(2027, 2, 28, tzinfo=UTC)
    (close,) = looked.dues
    assert close.subject == "1"
    assert SETTLING <= close.at - looked.period_end < SETTLING + JITTER


def test_closings_of_many_accounts_are_spread() -> None:
    at = {_line(replace(VIEW, customer_id=f"customer-{n}"), "close") for n in range(50)}
    assert len({due.at for due in at if due}) > 40


def test_the_31st_returns_after_february() -> None:
    # The second period begins on 28 February and ends on 31 March, not on the 28th.
    books = replace(BOOKS, invoiced_until=datetime(2027, 2, 28, tzinfo=UTC))
    looked = agenda(replace(VIEW, books=books), datetime(2027, 3, 1, tzinfo=UTC))
    assert looked.period_end == datetime(2027, 3, 31, tzinfo=UTC)
    assert looked.dues[0].subject == "2"


def test_nothing_else_of_the_books_happens_before_the_account_is_set_up() -> None:
    books = replace(BOOKS, subscription_id=None, aligned_plan=None)
    assert [due.kind for due in agenda(replace(VIEW, books=books), NOW).dues] == ["open"]


def test_another_plan_is_told_to_stripe_at_once() -> None:
    books = replace(BOOKS, plan_after="hybrid-large")
    looked = agenda(replace(VIEW, books=books), NOW)
    assert looked.dues[0].kind == "align"
    assert looked.dues[0].at <= NOW


def test_an_account_that_ends_closes_then_and_for_good() -> None:
    books = replace(BOOKS, cancel_at=datetime(2027, 2, 20, tzinfo=UTC))
    looked = agenda(replace(VIEW, books=books), NOW)
    assert looked.period_end == books.cancel_at
    assert [due.kind for due in looked.dues] == ["align", "close"]
    aligned = replace(books, aligned_plan=NO_PLAN)
    (close,) = agenda(replace(VIEW, books=aligned), NOW).dues
    assert close.steps[-1] == "end_account"
    # Stripe drops usage that it has not been told before a cancellation.
    assert close.steps.index("verify_metering") < close.steps.index("cancel_subscription")
    assert close.steps.index("cancel_subscription") < close.steps.index("finalize_invoice")
    # Killed between the last invoice and the end, nothing but the end is left to do.
    invoiced = replace(aligned, invoiced_until=datetime(2027, 2, 20, tzinfo=UTC))
    assert [d.kind for d in agenda(replace(VIEW, books=invoiced), NOW).dues] == ["end"]
    ended = agenda(replace(VIEW, books=replace(books, ended_at=books.cancel_at)), NOW)
    assert (ended.state, ended.dues) == ("ended", ())


def test_a_failed_payment_is_told_then_reminded_of_then_stops_service() -> None:
    view = replace(VIEW, invoices=(FAILED,))
    assert agenda(view, NOW).state == "grace"
    assert _line(view, "grace") is not None
    assert _line(view, "suspend") is None  # nobody is suspended who has not been told

    told = replace(view, told=frozenset({grace_key("in_1")}))
    assert _line(told, "grace") is None
    # Wednesday noon and three days is Saturday: Monday evening.
    suspend = _line(told, "suspend")
    assert suspend is not None
    assert suspend.at == datetime(2027, 2, 15, 18, tzinfo=UTC)
    reminders = [due for due in agenda(told, NOW).dues if due.kind == "reminder"]
    assert [due.at - NOW for due in reminders] == [timedelta(days=1), timedelta(days=2)]
    reminded = replace(told, told=told.told | {reminder_key("in_1", 1)})
    assert [d.subject for d in agenda(reminded, NOW).dues if d.kind == "reminder"] == ["in_1:2"]


def test_an_operator_who_lets_a_customer_on_is_not_overruled() -> None:
    told = frozenset({grace_key("in_1"), suspension_key("in_1")})
    view = replace(VIEW, invoices=(FAILED,), told=told)
    assert _line(view, "suspend", datetime(2027, 2, 20, tzinfo=UTC)) is None


def test_reminders_that_were_missed_are_not_sent_after_grace() -> None:
    told = replace(VIEW, invoices=(FAILED,), told=frozenset({grace_key("in_1")}))
    assert _line(told, "reminder", datetime(2027, 2, 15, 19, tzinfo=UTC)) is None


def test_with_terms_of_payment_the_clock_starts_at_the_due_date() -> None:
    due_at = datetime(2027, 3, 27, 9, tzinfo=UTC)  # a Saturday
    invoice = replace(FAILED, due_at=due_at)
    before = agenda(replace(VIEW, invoices=(invoice,)), NOW)
    assert before.state == "active"
    assert {due.kind: due.at for due in before.dues}["due_date"] == due_at
    told = frozenset({grace_key("in_1")})
    suspend = _line(replace(VIEW, invoices=(invoice,), told=told), "suspend", due_at)
    assert suspend is not None
    assert suspend.at == datetime(2027, 3, 30, 9, tzinfo=UTC)


@pytest.mark.parametrize("suspended_by", ["operator", "ended"])
def test_only_a_suspension_for_payment_is_lifted_by_payment(suspended_by: str) -> None:
    assert _line(replace(VIEW, suspended_by=suspended_by), "restore") is None
    assert _line(replace(VIEW, suspended_by="payment"), "restore") is not None


def test_service_is_not_restored_while_another_invoice_is_past_its_grace() -> None:
    view = replace(VIEW, suspended_by="payment", invoices=(FAILED,))
    assert _line(view, "restore", datetime(2027, 2, 15, 19, tzinfo=UTC)) is None
    # One that is only in grace does not keep a customer suspended.
    assert _line(view, "restore", NOW) is not None


def test_open_invoices_are_looked_at_daily_even_if_no_event_comes() -> None:
    invoice = replace(FAILED, failed_at=None)
    look = _line(replace(VIEW, invoices=(invoice,)), "look")
    assert look is not None
    assert look.at == NOW + timedelta(days=1)


def test_a_customer_without_an_account_still_has_invoices_events_and_notices() -> None:
    view = replace(VIEW, books=None, invoices=(FAILED,), untold=2, events=("evt_1",))
    looked = agenda(view, NOW)
    assert looked.period_end is None
    assert {due.kind for due in looked.dues} == {"notices", "events", "grace", "look"}
