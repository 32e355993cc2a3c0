"""What a customer has negotiated decides its charges from its date on, and records say so."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal

from tallystick.ledger import terms
from tallystick.plans import CustomerTerms
from tallystick.pricing import TokenKind
from tests.support.house import House


async def _agree(house: House, at: datetime, agreed: CustomerTerms) -> None:
    async with house.ledger.begin() as tx:
        assert await terms.add(tx, house.customer, at, agreed)


async def test_a_request_is_charged_by_the_terms_in_force_when_it_was_served(house: House) -> None:
    await _agree(house, datetime.now(UTC) + timedelta(days=1), CustomerTerms(discount=Decimal(1)))
    plain = (await house.ask("r-plan")).bill
    assert plain.cost_usd is not None
    assert plain.charge_usd == plain.cost_usd * Decimal("1.2")

    agreed = CustomerTerms(
        markup=Decimal("0.1"),
        markup_by_kind={TokenKind.OUTPUT: Decimal("0.5")},
        discount=Decimal("0.05"),
    )
    begins = datetime.now(UTC)
    await _agree(house, begins, agreed)
    bill = (await house.ask("r-own")).bill
    by_kind = {line.kind: line.amount_usd for line in bill.lines}
    assert bill.charge_usd == (
        by_kind["input"] * Decimal("1.1") + by_kind["output"] * Decimal("1.5")
    ) * Decimal("0.95")

    await _agree(house, datetime.now(UTC), CustomerTerms())
    again = (await house.ask("r-back")).bill
    assert again.cost_usd is not None
    assert again.charge_usd == again.cost_usd * Decimal("1.2")

    (first,), (own,) = await house.records("r-plan"), await house.records("r-own")
    assert (first.customer_terms_from, own.customer_terms_from) == (None, begins)
    assert (await house.ask("r-own")).bill == bill  # as it was charged, whatever came after
