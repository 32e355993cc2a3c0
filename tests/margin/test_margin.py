"""What is left of the revenue, in a real ledger whose every number can be worked out by hand.

Sonnet 5.5 is asked with a million tokens and answers with a hundred thousand: $2 + $1, until a
dearer price book makes the answer $1.20. Haiku 4.5 costs $1 + $0.50. acme pays a fifth more than
that, bolt pays what it costs.
"""

import asyncio
import json
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest
import pytest_asyncio
from click.testing import Result
from sqlalchemy.dialects.postgresql import insert
from typer.testing import CliRunner

from tallystick.cli.app import app
from tallystick.contracts import RequestKey
from tallystick.ledger import attempts, reconciliations
from tallystick.ledger.account_tables import Invoice
from tallystick.ledger.attempts import Begun, Completion, NewAttempt
from tallystick.ledger.database import Ledger, Transaction
from tallystick.ledger.invoices import WITHOUT_MONEY
from tallystick.ledger.notices import raise_notice
from tallystick.ledger.reconciliation_tables import AttemptSettlement, ProviderCost
from tallystick.ledger.tables import Outcome
from tallystick.rerating import rerate
from tests.rerate.stand import (
    DAY,
    NOON,
    SONNET,
    add_customer,
    another_book,
    dearer_sonnet,
    left_unpriced,
    reply,
    serve,
)

NEXT = NOON + timedelta(days=1)
HAIKU = "claude-haiku-4-5"
ASKED = (1_000_000, 100_000)


@pytest_asyncio.fixture
async def books(ledger: Ledger, database_url: str, monkeypatch: pytest.MonkeyPatch) -> Ledger:
    """Two days of two customers, with all that costs; and what must not be counted in them."""
    monkeypatch.setenv("DATABASE_URL", database_url)
    await add_customer(ledger, "acme", "pass-through")
    await add_customer(ledger, "bolt", "at-cost")
    for customer in ("acme", "bolt"):
        await serve(ledger, reply(*ASKED), customer=customer)
        await serve(ledger, reply(*ASKED), customer=customer, at=NOON + timedelta(days=2))
    await serve(ledger, reply(*ASKED, model=f"{HAIKU}-20251001"))
    await serve(ledger, reply(*ASKED, model=HAIKU), at=NEXT)
    async with ledger.begin() as tx:
        await rerate(tx, *DAY, book=another_book(dearer_sonnet), booking=True)
        await _lost_calls(tx)
        await _invoices(tx)
        for model, usd in ((SONNET, "7"), (HAIKU, "1.5"), ("", "0.01")):
            await tx.execute(
                insert(ProviderCost).values(
                    day=NOON.date(),
                    model=model,
                    api_key_id="",
                    component="output",
                    list_usd=Decimal(usd) * 2,
                    amount_usd=Decimal(usd),
                    refreshed_at=NEXT,
                )
            )
    return ledger


async def _lost_calls(tx: Transaction) -> None:
    """bolt's: one settled as served for $0.75, one as not served, one of 50,000 tokens open, and
    one that was settled before its answer turned up, which is recorded elsewhere."""
    run = await reconciliations.open_run(
        tx, run="r", kind="daily", start=DAY[0], end=DAY[1], at=NEXT
    )
    for number, cost in enumerate((Decimal("0.75"), Decimal(0), None, Decimal(7))):
        attempt_id = await _lost(tx, f"lost-{number}", Outcome.INDETERMINATE)
        if number == 3:
            answered = Completion(Outcome.SUCCEEDED, reply={})
            await attempts.complete(tx, attempt_id, answered, NOON)
        if cost is not None:
            await tx.execute(
                insert(AttemptSettlement).values(
                    attempt_id=attempt_id,
                    reconciliation_id=run,
                    served=bool(cost),
                    cost_usd=cost,
                    words="",
                )
            )
    await _lost(tx, "answered-with-an-error", Outcome.FAILED)
    await _lost(tx, "in-flight", Outcome.STARTED)


async def _lost(tx: Transaction, request_id: str, outcome: Outcome) -> int:
    new = NewAttempt(
        RequestKey(customer_id="bolt", request_id=request_id), "f", SONNET, None, 50_000, 1
    )
    begun = await attempts.begin(tx, new, NOON, max_unknown=5)
    assert isinstance(begun, Begun)
    if outcome != Outcome.STARTED:
        await attempts.complete(tx, begun.attempt_id, Completion(outcome), NOON)
    return begun.attempt_id


async def _invoices(tx: Transaction) -> None:
    """acme pays $10 on the second day; the others are paid elsewhere, later, or not yet whole."""
    for name, customer, status, paid_at in (
        ("in_paid", "acme", "paid", NEXT),
        ("in_elsewhere", "bolt", "paid", NEXT),
        ("in_later", "bolt", "paid", NOON + timedelta(days=2)),
        ("in_partly", "bolt", "open", None),
    ):
        await tx.execute(
            insert(Invoice).values(
                stripe_invoice_id=name,
                customer_id=customer,
                purpose="period",
                ordinal=1,
                status=status,
                currency="usd",
                total_cents=1_000,
                tax_cents=0,
                amount_due_cents=1_000,
                amount_paid_cents=1_000 if status == "paid" else 50,
                created_at=NOON,
                paid_at=paid_at,
                attempt_count=0,
                checked_at=NEXT,
            )
        )
    await raise_notice(
        tx,
        "bolt",
        key="paid-without-money:in_elsewhere",
        kind=WITHOUT_MONEY,
        audience="operator",
        message="",
        facts={"invoice_id": "in_elsewhere"},
        at=NEXT,
    )


async def run(*options: str) -> Result:
    command = ["margin", "--from", "2026-11-10", "--to", "2026-11-12", *options]
    result = await asyncio.to_thread(CliRunner().invoke, app, command)
    assert result.exit_code == 0, result.output
    return result


async def told(by: str) -> tuple[dict[str, dict[str, Any]], dict[str, Any]]:
    """Return the lines by name, in their order, and the whole answer."""
    answer = json.loads((await run("--by", by, "--json")).stdout)
    return {row["of"]: row for row in answer["rows"]}, answer


def money(row: dict[str, Any]) -> tuple[str, ...]:
    """Revenue, price of the answers, lost calls, those estimated, fees, and what is left."""
    parts = ("revenue", "cost", "lost", "lost_estimated", "fees", "margin")
    return tuple(row[f"{part}_usd"] for part in parts)


@pytest.mark.usefixtures("books")
async def test_each_customer_is_charged_and_costs_what_it_did() -> None:
    rows, answer = await told("customer")
    assert list(rows) == ["bolt", "acme"], "who loses money comes first"
    # $3.60 + $0.24 of correction, and twice $1.80; 2.9 % of $10 and $0.30.
    assert money(rows["acme"]) == ("7.44", "6.2", "0", "0", "0.59", "0.65")
    assert (rows["acme"]["margin_percent"], rows["acme"]["loses_money"]) == ("8.7", False)
    # 50,000 tokens of prompt at $2 a million are the least that the open call may have cost.
    assert money(rows["bolt"]) == ("3.2", "3.2", "0.75", "0.1", "0", "-0.85")
    assert (rows["bolt"]["margin_percent"], rows["bolt"]["loses_money"]) == ("-26.6", True)
    assert money(answer["total"]) == ("10.64", "9.4", "0.75", "0.1", "0.59", "-0.2")
    assert [row["requests"] for row in (rows["acme"], rows["bolt"], answer["total"])] == [3, 1, 4]


@pytest.mark.usefixtures("books")
async def test_models_are_one_under_all_their_names_and_compared_with_the_report() -> None:
    rows, answer = await told("model")
    assert {name: money(row) for name, row in rows.items()} == {
        "": ("0", "0", "0", "0", "0.59", "-0.59"),
        SONNET: ("7.04", "6.4", "0.75", "0.1", "0", "-0.21"),
        HAIKU: ("3.6", "3", "0", "0", "0", "0.6"),
    }
    # Of the first day alone, which is the one that was read: there Haiku cost $1.50.
    reported = {name: row["cost_report"] for name, row in rows.items()}
    assert reported[SONNET] == {"amount_usd": "7", "known_usd": "7.25", "difference_usd": "-0.25"}
    assert reported[HAIKU]["difference_usd"] == "0"
    assert reported[""]["difference_usd"] == "0.01"
    total = answer["total"]["cost_report"]
    assert total == {"amount_usd": "8.51", "known_usd": "8.75", "difference_usd": "-0.24"}
    assert (answer["days"], answer["reported_days"]) == (2, 1)


@pytest.mark.usefixtures("books")
async def test_days_are_those_of_the_service_and_of_the_payment() -> None:
    rows, _ = await told("day")
    assert {name: money(row) for name, row in rows.items()} == {
        "2026-11-10": ("8.84", "7.9", "0.75", "0.1", "0", "0.09"),
        "2026-11-11": ("1.8", "1.5", "0", "0", "0.59", "-0.29"),
    }
    assert rows["2026-11-10"]["cost_report"]["amount_usd"] == "8.51"
    assert rows["2026-11-11"]["cost_report"] is None


async def test_people_see_who_loses_money_and_what_is_left_out(books: Ledger) -> None:
    await left_unpriced(books, reply(model="claude-unheard-of"))
    shown = await run()
    lines = [line for line in shown.stdout.splitlines() if " LOSS" in line]
    assert [line.split()[0] for line in lines] == ["bolt", "in"]
    assert "1 customer costs $0.85 more than it brings in" in shown.output
    assert "1 requests without a price are left out" in shown.output
    assert "cost report for 1 of 2 days" in shown.output
