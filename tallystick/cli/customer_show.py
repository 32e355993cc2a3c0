"""`tallystick customer show`: one customer, its account, what it owes, and what happens next."""

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import typer

from tallystick.cli.access import in_ledger
from tallystick.cli.customer_content import as_facts, in_words
from tallystick.cli.customer_terms import Id, existing
from tallystick.cli.cycles import what_next
from tallystick.cli.output import JsonFlag, print_json, print_rows
from tallystick.cli.terms_in_words import plan_in_words
from tallystick.ledger import (
    accounts,
    operator_actions,
    plan_moves,
    reports,
    reservations,
    terms,
    wallet,
)
from tallystick.ledger.account_tables import BillingAccount, Invoice
from tallystick.ledger.database import Transaction
from tallystick.ledger.tables import Customer
from tallystick.money import from_nano_usd
from tallystick.plans import PlanTerms
from tallystick.plans.periods import calendar_month, period_at

COLUMNS = ("customer", "name", "plan", "status", "stripe customer", "spend cap $")
"""What a list of customers tells of each."""
_INVOICE = {
    "invoice": "stripe_invoice_id",
    "for": "purpose",
    "status": "status",
    "total $": "total_usd",
    "paid $": "paid_usd",
    "created": "created_at",
    "due": "due_at",
}
"""What a person sees of an invoice; --json has all of it."""
_ACTION = ("at", "by", "action", "subject", "reason", "outcome")
_MOST_ACTIONS = 20
"""Of what operators have done last."""


def register(app: typer.Typer) -> None:
    """Add the command to `tallystick customer`."""
    app.command()(show)


def show(customer: Id, as_json: bool = JsonFlag) -> None:
    """Show one customer: its terms, its account, its invoices, and what happens next."""
    row, facts = in_ledger(lambda tx: _facts(tx, customer))
    agenda = what_next(customer) if facts["account"] else None
    if as_json:
        print_json({**as_dict(row), **facts, "agenda": agenda and agenda.model_dump(mode="json")})
        return
    print_rows(("", ""), [*zip(COLUMNS, cells(row), strict=True), *_rows(row, facts)])
    if facts["invoices"]:
        print_rows(
            [*_INVOICE],
            [[each[name] for name in _INVOICE.values()] for each in facts["invoices"]],
            title="Invoices",
        )
    if facts["operator_actions"]:
        print_rows(
            [*_ACTION],
            [[each[name] for name in _ACTION] for each in facts["operator_actions"]],
            title="What operators have done",
        )
    if agenda is not None:
        print_rows(
            ("when", "what"),
            [(due.at, due.words) for due in agenda.dues],
            title=f"What happens next; the account is {agenda.state}",
        )


def as_dict(row: Customer) -> dict[str, Any]:
    """Return a customer as JSON has it."""
    return row.model_dump(warnings=False)  # a row's status is text, as good as its enumeration


def cells(row: Customer) -> tuple[Any, ...]:
    """Return what a table tells of a customer, by `COLUMNS`."""
    status = f"{row.status}: {row.status_reason}" if row.status_reason else str(row.status)
    return (
        row.customer_id,
        row.name,
        row.plan,
        status,
        row.stripe_customer_id,
        row.spend_cap_usd,
    )


async def _facts(tx: Transaction, customer: str) -> tuple[Customer, dict[str, Any]]:
    """Return the customer as it is now, and all else there is to tell."""
    await existing(tx, customer)
    now = datetime.now(UTC)
    standing = await terms.standing(tx, customer, now)
    assert standing is not None  # noqa: S101 - it exists
    row, agreed = standing.customer, standing.agreed
    month = calendar_month(now, row.time_zone)
    taken = await reservations.used(tx, customer, since=month.start)
    to_come = await plan_moves.to_come(tx, customer, now)
    account = await accounts.get(tx, customer)
    prepaid = agreed is not None and agreed.terms.model == "prepaid"
    return row, {
        "terms": agreed.terms.model_dump(mode="json") if agreed else None,
        "own_terms_from": agreed.own_from if agreed else None,
        "moves_to": to_come and {"plan": to_come.plan, "valid_from": to_come.valid_from},
        "month_from": month.start,
        "month_charged_usd": taken.spent_usd,
        "reserved_usd": taken.reserved_usd,
        "balance_usd": from_nano_usd(await wallet.balance(tx, customer, now)) if prepaid else None,
        "account": account and account.model_dump(exclude={"customer_id"}),
        "period": account and await _period(tx, account, now),
        "content": await as_facts(tx, customer),
        "invoices": [_invoice(each) for each in await reports.invoices(tx, customer)],
        "operator_actions": [
            each.model_dump(exclude={"operator_action_id", "customer_id"})
            for each in await operator_actions.newest(tx, _MOST_ACTIONS, customer_id=customer)
        ],
    }


async def _period(tx: Transaction, account: BillingAccount, now: datetime) -> dict[str, Any]:
    """Return the period around now, or the account's last, with what it comes to so far."""
    moment = timedelta(microseconds=1)
    around = min(now, account.cancel_at - moment) if account.cancel_at else now
    ordinal, _ = period_at(account.anchor, account.time_zone, around)
    period = accounts.period_of(account, ordinal)
    # The first period has no beginning: what was used before the account was opened is in it.
    used = await reports.period_totals(
        tx, account.customer_id, period.start if ordinal > 1 else None, period.end
    )
    late = await reports.period_totals(tx, account.customer_id, period.end, None)
    return {
        "ordinal": ordinal,
        "start": period.start,
        "end": period.end,
        "requests": used.requests,
        "charge_usd": used.charge_usd,
        "after_it_usd": late.charge_usd if account.ended_at else None,
    }


def _invoice(row: Invoice) -> dict[str, Any]:
    return {
        "stripe_invoice_id": row.stripe_invoice_id,
        "purpose": row.purpose if row.ordinal is None else f"{row.purpose} {row.ordinal}",
        "status": row.status,
        "total_usd": _dollars(row.total_cents),
        "paid_usd": _dollars(row.amount_paid_cents),
        "created_at": row.created_at,
        "due_at": row.due_at,
        "failure": row.failure,
        "hosted_url": row.hosted_url,
    }


def _dollars(cents: int) -> Decimal:
    return Decimal(cents).scaleb(-2)


def _rows(row: Customer, facts: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    yield "time zone", row.time_zone
    yield "terms", facts["terms"] and plan_in_words(PlanTerms.read(facts["terms"]))
    yield "own terms from", facts["own_terms_from"]
    if facts["moves_to"]:
        yield "moves to", f"{facts['moves_to']['plan']} at {facts['moves_to']['valid_from']}"
    yield "month from", facts["month_from"]
    yield "charged in it $", facts["month_charged_usd"]
    yield "reserved $", facts["reserved_usd"]
    yield "content", in_words(facts["content"])
    if facts["balance_usd"] is not None:
        yield "balance $", facts["balance_usd"]
    if not facts["account"]:
        yield "account", f"none; `tallystick customer open {row.customer_id}` opens one"
        return
    account, period = facts["account"], facts["period"]
    yield "period", f"{period['ordinal']}, counted in {account['time_zone']}"
    yield "from", period["start"]
    yield "to", period["end"]
    yield "used in it $", period["charge_usd"]
    yield "Stripe subscription", account["stripe_subscription_id"]
    if account["cancel_at"]:
        yield "account ends", account["cancel_at"]
    if account["ended_at"]:
        yield "used after it, on no statement $", period["after_it_usd"]
