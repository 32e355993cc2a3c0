"""An invoice with 45 days to pay: the clock starts at the due date, and a transfer ends it."""

from datetime import UTC, datetime, timedelta

from temporalio.client import Client as TemporalClient

from tallystick.ledger import customers
from tallystick.ledger.tables import CustomerStatus
from tests.cycles.town import Town, open_town

ANCHOR = datetime(2027, 3, 1, tzinfo=UTC)
BOUNDARY = datetime(2027, 4, 1, tzinfo=UTC)
DUE_DAYS = timedelta(days=45)


async def _status(town: Town) -> CustomerStatus:
    async with town.ledger.begin() as tx:
        customer = await customers.get(tx, "acme")
    assert customer is not None
    return CustomerStatus(customer.status)


async def _told(town: Town) -> list[str]:
    return [notice.kind for notice in await town.notices("acme")]


async def test_an_invoice_on_terms_is_late_only_after_its_due_date(
    virtual_temporal: TemporalClient, database_url: str
) -> None:
    async with open_town(virtual_temporal, database_url, ANCHOR - timedelta(hours=1)) as town:
        await town.plan("terms", model="pass-through", markup="0", payment_terms_days=45)
        await town.open("acme", "terms", ANCHOR, card=None)
        await town.to(ANCHOR + timedelta(days=3))
        await town.use("acme", ANCHOR + timedelta(days=3), 10_000_000)
        await town.to(BOUNDARY + timedelta(hours=1))

        (invoice,) = await town.invoices("acme")
        assert (invoice.status, invoice.total_cents) == ("open", 20_00)
        assert invoice.due_at is not None
        assert timedelta(0) <= invoice.due_at - (BOUNDARY + DUE_DAYS) < timedelta(hours=1)

        await town.to(invoice.due_at - timedelta(hours=1))
        assert await _told(town) == []
        assert (await town.time.agenda("acme")).state == "active"

        await town.to(invoice.due_at + timedelta(hours=1))
        assert await _told(town) == ["grace_started"]
        assert (await town.time.agenda("acme")).state == "grace"
        # Due on Sunday 16 May: three days are Wednesday.
        await town.to(invoice.due_at + timedelta(days=3, hours=1))
        assert await _status(town) == CustomerStatus.SUSPENDED

        transfer = {"invoice": invoice.stripe_invoice_id, "amount": 20_00}
        (await town.control.post("/_sandbox/transfers", json=transfer)).raise_for_status()
        await town.time.settle()
        assert await _status(town) == CustomerStatus.ACTIVE
        (invoice, _) = await town.invoices("acme")
        assert (invoice.status, invoice.amount_paid_cents) == ("paid", 20_00)
