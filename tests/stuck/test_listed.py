"""Several kinds of trouble at once: each is listed, and ends by its remedy or by a skip."""

import asyncio
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest
from sqlalchemy import insert, select
from sqlmodel import col

from tallystick.errors import RequestCancelledError
from tallystick.ledger import customers, inbox, operator_actions
from tallystick.ledger.account_tables import Invoice
from tallystick.ledger.batches import NewJob
from tallystick.ledger.tables import Customer, Reservation
from tallystick.money import from_nano_usd
from tallystick.stripe_events import Envelope
from tests.batches.stand import items_of, submit
from tests.batches.stand import start as start_batch
from tests.stuck.conftest import Desk
from tests.support.house import PATIENCE, House

NOW = datetime.now(UTC)


async def test_all_that_waits_is_listed_and_ends_by_its_remedy(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    house = desk.house
    acme = house.customer
    async with house.ledger.begin() as tx:
        for name in ("new", "capped"):
            await customers.add(tx, Customer(customer_id=name, name=name, plan="pass-through"))
        await customers.set_spend_cap(tx, "capped", Decimal(1))
        await inbox.receive(tx, [_event("evt_odd")], NOW)
        await inbox.park(tx, ["evt_odd"], None, "its version is unknown", NOW)
        await tx.execute(insert(Invoice).values(**_failed_invoice(acme)))
    await house.claude.order("spend_limit", times=None, match="<limited>")
    limited = asyncio.create_task(house.ask("limited", customer_id="capped"))
    # A second request of the customer finds the room taken, and tries again and again.
    await _until(desk, "BillingState = 'stuck'", {"claude-request/capped/limited"})
    async with house.ledger.begin() as tx:
        reserved = (await tx.execute(select(col(Reservation.amount_nano_usd)))).scalar_one()
        cap = from_nano_usd(reserved) * Decimal("1.5")
        await customers.set_spend_cap(tx, "capped", cap)
    bill = (await house.ask("unmapped", customer_id="new")).bill
    crowded = asyncio.create_task(house.ask("crowded", customer_id="capped"))
    await submit(house.ledger, NewJob("job", "new"), items_of("job", 5))
    await start_batch(house.temporal, "job")
    await house.claude.order("unknown_model", model="claude-unheard-of", match="<odd>")
    await house.ask("odd")
    wanted = {
        f"billing-cycle/{acme}": "unpaid",
        "meter-events/new/job/chunk/1-1": "parked",
        "meter-events/new/unmapped": "parked",
        "evt_odd": "event parked",
        "claude-request/capped/limited": "stuck",
        "claude-request/capped/crowded": "unanswered",
        f"usage/{acme}/odd": "unpriced",
    }
    rows = await desk.until_stuck(wanted)
    stuck = {
        "claude-request/capped/limited", "claude-request/new/unmapped", "message-batch/job",
    }  # fmt: skip
    await _until(desk, "ExecutionStatus = 'Running' AND BillingState = 'stuck'", stuck)
    assert await desk.found("BillingState = 'stuck' AND CustomerId = 'capped'") == {
        "claude-request/capped/limited"
    }
    assert await desk.found("BillingState = 'unpriced'") == {f"claude-request/{acme}/odd"}
    assert [row["what"] for row in rows.values()][:3] == ["unpaid", "parked", "parked"]  # by money
    assert "The spend limit is reached" in rows["claude-request/capped/limited"]["why"]
    assert "taken up by requests in flight" in rows["claude-request/capped/crowded"]["why"]
    unmapped = rows["meter-events/new/unmapped"]
    assert Decimal(unmapped["at_stake_usd"]) == bill.charge_usd
    assert (unmapped["state"], "no Stripe customer" in unmapped["why"]) == ("stuck", True)
    assert "tallystick rerate --from" in rows[f"usage/{acme}/odd"]["remedy"]
    for name in stuck:
        page = await house.temporal.get_workflow_handle(name).query("__temporal_workflow_metadata")
        assert "tallystick stuck retry" in page.current_details
    shown = await desk("stuck", "--minutes", "0")
    lines = shown.splitlines()
    assert "   -> tallystick stuck retry evt_odd" in lines
    assert "<limited>" not in shown  # as its prompt begins
    assert max(len(line) for line in lines if "->" not in line) <= 100

    known = await _mapping_of(house, acme)
    told = await desk("stuck", "correct", "meter-events/new/unmapped", "--stripe-customer", known)
    assert f"customer 'new' is {known} in Stripe" in told
    await desk("stuck", "retry", "message-batch/job", "--by", "ada")
    await desk("stuck", "skip", "evt_odd", "--reason", "sent by mistake")
    assert "is parked" in await desk("stuck", "skip", "evt_odd", "--reason", "again", fails=True)
    await desk("stuck", "skip", "claude-request/capped/limited", "--reason", "nobody wants it now")
    with pytest.raises(RequestCancelledError, match="nobody wants it now"):
        await limited
    assert (await crowded).bill.charge_usd  # in the room that was given back
    left = {f"billing-cycle/{acme}": "unpaid", f"usage/{acme}/odd": "unpriced"}
    await desk.until_stuck({"meter-events/capped/crowded": "parked", **left})
    told = await desk("stuck", "skip", "meter-events/capped/crowded", "--reason", "billed by hand")
    assert "3 meter events of crowded are withdrawn" in told
    rows = await desk.until_stuck(left)
    assert rows[f"billing-cycle/{acme}"]["at_stake_usd"] == "12.5"
    monkeypatch.setenv("TEMPORAL_ADDRESS", "127.0.0.1:1")
    alone = await desk("stuck", "--minutes", "0")
    assert "only the ledger was asked: no Temporal server answers" in alone
    assert f"usage/{acme}/odd" in alone
    counted = [row for row in await house.stripe.journal() if row["effective"]]
    assert all(event.withdrawn_at for event in await house.meter_events("crowded"))
    await house.workflow("crowded", "capped").result()
    for event in await house.meter_events("unmapped"):
        assert [row["identifier"] for row in counted].count(event.identifier) == 1
    async with house.ledger.begin() as tx:
        done = await operator_actions.newest(tx, 10)
    assert [(each.action, each.subject, each.reason) for each in reversed(done)] == [
        ("correct", "meter-events/new/unmapped", None),
        ("correct", "meter-events/new/unmapped", None),
        ("retry", "meter-events/new/unmapped", "it was corrected"),
        ("retry", "message-batch/job", None),
        ("skip", "evt_odd", "sent by mistake"),
        ("skip", "claude-request/capped/limited", "nobody wants it now"),
        ("skip", "meter-events/capped/crowded", "billed by hand"),
    ]
    assert done[3].by == "ada"
    assert "sent by mistake" in await desk("stuck", "--all")


async def _until(desk: Desk, query: str, ids: set[str]) -> None:
    """Wait until a query of the Web UI finds exactly these."""
    async with asyncio.timeout(PATIENCE):
        while await desk.found(query) != ids:
            await asyncio.sleep(0.1)


async def _mapping_of(house: House, customer: str) -> str:
    """Take a Stripe customer from whom it belongs to."""
    async with house.ledger.begin() as tx:
        row = await customers.get(tx, customer)
        assert row is not None
        await customers.set_stripe_customer(tx, customer, None)
    return row.stripe_customer_id or ""


def _event(event_id: str) -> Envelope:
    return Envelope(
        event_id=event_id,
        type="invoice.paid",
        form="snapshot",
        created_at=NOW,
        object_id="in_1",
        stripe_customer_id="cus_nobody",
    )


def _failed_invoice(customer: str) -> dict[str, object]:
    return {
        "stripe_invoice_id": "in_1",
        "customer_id": customer,
        "purpose": "period",
        "status": "open",
        "total_cents": 1250,
        "amount_due_cents": 1250,
        "amount_paid_cents": 0,
        "created_at": NOW - timedelta(days=2),
        "failed_at": NOW - timedelta(days=1),
        "failure": "the card was declined",
        "attempt_count": 2,
        "checked_at": NOW,
    }
