"""What Stripe may do with an event after its receipt without telling: nobody hears of it."""

from collections.abc import AsyncGenerator
from datetime import UTC, datetime
from typing import Any, Literal

import pytest
import stripe

from tests.sandbox.stripe_stand import START, StripeStand, stripe_stand

SUMMARIES = "GET /v1/billing/meters/{id}/event_summaries"
MINUTE = START - START % 60
Way = Literal["v1", "v2", "stream"]


class Shop:
    """Two customers on one meter."""

    def __init__(self, stand: StripeStand, meter: str, ours: str, other: str):
        self.stand, self.meter, self.ours, self.other = stand, meter, ours, other

    async def send(self, way: Way, *identifiers: str) -> None:
        for identifier in identifiers if way != "stream" else ():
            await self._single(way, identifier)
        if way == "stream":
            v2 = self.stand.client().v2.billing
            token = (await v2.meter_event_session.create_async()).authentication_token
            await v2.meter_event_stream.create_async(
                {"events": [self._event(each) for each in identifiers]}, {"api_key": token}
            )

    async def _single(self, way: Way, identifier: str) -> None:
        billing: Any = getattr(self.stand.client(), way).billing
        event = self._event(identifier)
        if way == "v1":
            event["timestamp"] = START
        await billing.meter_events.create_async(event)

    def _event(self, identifier: str) -> Any:
        return {
            "event_name": "tokens",
            "identifier": identifier,
            "timestamp": datetime.fromtimestamp(START, UTC).isoformat(),
            "payload": {"stripe_customer_id": self.ours, "value": "5", "model": "a"},
        }

    async def cancel(self, identifier: str) -> None:
        await self.stand.client().v2.billing.meter_event_adjustments.create_async(
            {"event_name": "tokens", "type": "cancel", "cancel": {"identifier": identifier}}
        )

    async def counted(self, customer: str) -> int:
        found = await self.stand.client().v1.billing.meters.event_summaries.list_async(
            self.meter, {"customer": customer, "start_time": MINUTE, "end_time": MINUTE + 60}
        )
        return sum(int(each.aggregated_value) for each in found.data)

    async def journal(self) -> list[dict[str, Any]]:
        return (await self.stand.control("GET", "journal"))["entries"]

    async def reports(self) -> list[Any]:
        return (await self.stand.control("GET", "error_reports"))["error_reports"]


@pytest.fixture(name="shop")
async def _shop() -> AsyncGenerator[Shop, None]:
    async with stripe_stand() as stand:
        v1 = stand.client().v1
        ours, other = [(await v1.customers.create_async({"name": name})).id for name in "ab"]
        meter = await v1.billing.meters.create_async(
            {"display_name": "T", "event_name": "tokens", "default_aggregation": {"formula": "sum"}}
        )
        yield Shop(stand, meter.id, ours, other)


@pytest.mark.parametrize("way", ["v1", "v2", "stream"])
async def test_a_lost_event_is_known_and_never_counts(shop: Shop, way: Way) -> None:
    await shop.stand.fault("lost_event", match="one", identifier="one")
    await shop.send(way, "one", "two")
    assert await shop.counted(shop.ours) == 5
    assert await shop.reports() == []
    with pytest.raises(stripe.InvalidRequestError):  # the identifier is remembered
        await shop.send("v2", "one")


@pytest.mark.parametrize("way", ["v1", "v2", "stream"])
async def test_a_doubled_event_counts_twice_and_a_cancellation_takes_one_away(
    shop: Shop, way: Way
) -> None:
    await shop.stand.fault("counted_twice", match="one", identifier="one")
    await shop.send(way, "one", "two")
    assert await shop.counted(shop.ours) == 15
    journal = await shop.journal()
    assert [entry["fault"] for entry in journal] == ["counted_twice", "counted_twice", None]
    assert all(entry["besides"] == {"model": "a"} for entry in journal)
    await shop.cancel("one")
    assert await shop.counted(shop.ours) == 10
    with pytest.raises(stripe.InvalidRequestError):
        await shop.cancel("one")


@pytest.mark.parametrize("way", ["v1", "v2", "stream"])
async def test_an_event_may_count_for_another_customer_and_stays_ours(shop: Shop, way: Way) -> None:
    await shop.stand.fault("wrong_customer", match="one", identifier="one", customer=shop.other)
    await shop.send(way, "one", "two")
    assert (await shop.counted(shop.ours), await shop.counted(shop.other)) == (5, 5)
    with pytest.raises(stripe.InvalidRequestError):
        await shop.send("v2", "one")
    await shop.cancel("one")
    assert await shop.counted(shop.other) == 0


async def test_usage_from_outside_counts_whatever_its_age_and_summaries_are_counted(
    shop: Shop,
) -> None:
    event = {"event_name": "tokens", "customer": shop.ours, "timestamp": MINUTE}
    old = event | {"timestamp": MINUTE - 86400 * 60}
    entered = await shop.stand.control(
        "POST",
        "meter_usage",
        events=[event | {"value": 7}, event | {"value": -2, "identifier": "x"}, old | {"value": 1}],
    )
    assert entered == {"entered": 3}
    assert await shop.counted(shop.ours) == 5
    totals = await shop.stand.totals()
    assert totals["by_event_name"]["tokens"] == {"count": 3, "sum": "6"}
    assert totals["calls"][SUMMARIES] == 1
