"""Meter events: what is accepted, what counts, what is refused now and what later."""

import asyncio
from collections.abc import AsyncGenerator
from datetime import UTC, datetime
from typing import Any

import pytest
import stripe

from tests.sandbox.stripe_stand import START, TEST, StripeStand, stripe_stand

METER = "tokens"


@pytest.fixture(name="stand")
async def _stand() -> AsyncGenerator[StripeStand, None]:
    async with stripe_stand() as stand:
        yield stand


class Shop:
    """A client with a customer and a meter."""

    def __init__(self, stand: StripeStand, client: stripe.StripeClient, customer: str, meter: str):
        self.stand, self.client, self.customer, self.meter = stand, client, customer, meter

    async def send(
        self,
        identifier: str,
        value: str = "5",
        *,
        timestamp: float | None = None,
        event_name: str = METER,
        customer: str | None = None,
        key: str | None = None,
    ) -> None:
        await self.client.v1.billing.meter_events.create_async(
            {
                "event_name": event_name,
                "identifier": identifier,
                "timestamp": int(self.stand.clock() if timestamp is None else timestamp),
                "payload": {"stripe_customer_id": customer or self.customer, "value": value},
            },
            {"idempotency_key": key} if key else {},
        )

    def v2(self, identifier: str, value: Any = "5", *, event_name: str = METER) -> Any:
        return {
            "event_name": event_name,
            "identifier": identifier,
            "timestamp": datetime.fromtimestamp(self.stand.clock(), UTC).isoformat(),
            "payload": {"stripe_customer_id": self.customer, "value": value},
        }

    async def sum(self) -> str:
        return (await self.stand.totals())["by_event_name"].get(METER, {"sum": "0"})["sum"]

    async def summaries(self, start: int, end: int, **more: Any) -> list[float]:
        found = await self.client.v1.billing.meters.event_summaries.list_async(
            self.meter, {"customer": self.customer, "start_time": start, "end_time": end, **more}
        )
        return [each.aggregated_value async for each in found.auto_paging_iter()]


@pytest.fixture(name="shop")
async def _shop(stand: StripeStand) -> Shop:
    client = stand.client()
    customer = await client.v1.customers.create_async({"name": "c"})
    meter = await client.v1.billing.meters.create_async(
        {"display_name": "T", "event_name": METER, "default_aggregation": {"formula": "sum"}}
    )
    return Shop(stand, client, customer.id, meter.id)


async def test_an_event_counts_and_is_in_the_journal(shop: Shop) -> None:
    await shop.send("one", "7", key="key-one")
    (entry,) = (await shop.stand.control("GET", "journal"))["entries"]
    assert entry["identifier"] == "one"
    assert entry["event_name"] == METER
    assert entry["customer"] == shop.customer
    assert entry["value"] == "7"
    assert entry["timestamp"] == START
    assert entry["received_at"] == START
    assert entry["idempotency_key"] == "key-one"
    assert entry["effective"] is True
    totals = await shop.stand.totals()
    assert totals["by_event_name"] == {METER: {"count": 1, "sum": "7"}}
    assert totals["by_customer"] == [
        {"event_name": METER, "customer": shop.customer, "count": 1, "sum": "7"}
    ]
    assert totals["calls"]["POST /v1/billing/meter_events"] == 1


async def test_the_journal_is_paged(shop: Shop) -> None:
    for n in range(3):
        await shop.send(f"e{n}")
    page = await shop.stand.control("GET", "journal?after=1&limit=1")
    assert [entry["identifier"] for entry in page["entries"]] == ["e1"]
    assert page["has_more"] is True
    last = await shop.stand.control("GET", "journal?after=2")
    assert [entry["number"] for entry in last["entries"]] == [3]
    assert last["has_more"] is False


async def test_a_v1_duplicate_is_400_in_stripes_words_without_a_code(shop: Shop) -> None:
    await shop.send("one")
    with pytest.raises(stripe.InvalidRequestError) as caught:
        await shop.send("one")
    assert caught.value.code is None
    assert caught.value.user_message == "An event already exists with identifier one."
    assert await shop.sum() == "5"


async def test_a_v2_duplicate_has_a_code(shop: Shop) -> None:
    await shop.client.v2.billing.meter_events.create_async(shop.v2("one"))
    with pytest.raises(stripe.InvalidRequestError) as caught:
        await shop.client.v2.billing.meter_events.create_async(shop.v2("one"))
    assert caught.value.code == "duplicate_meter_event"
    assert await shop.sum() == "5"


async def test_after_24_hours_a_resend_counts_again(shop: Shop) -> None:
    used_at = shop.stand.clock()
    await shop.send("one")
    shop.stand.clock.advance(hours=24, seconds=-1)
    with pytest.raises(stripe.InvalidRequestError):
        await shop.send("one", timestamp=used_at)
    shop.stand.clock.advance(seconds=1)
    await shop.send("one", timestamp=used_at)
    assert await shop.sum() == "10"


@pytest.mark.parametrize(
    ("days", "seconds", "accepted"),
    [(-35, 0, True), (-35, -1, False), (0, 300, True), (0, 301, False)],
)
async def test_timestamps_are_taken_from_35_days_back_to_5_minutes_ahead(
    shop: Shop, days: int, seconds: int, accepted: bool
) -> None:
    timestamp = START + days * 86400 + seconds
    if accepted:
        await shop.send("one", timestamp=timestamp)
    else:
        with pytest.raises(stripe.InvalidRequestError):
            await shop.send("one", timestamp=timestamp)
    assert await shop.sum() == ("5" if accepted else "0")


async def test_an_identifier_of_101_characters_is_refused(shop: Shop) -> None:
    await shop.client.v2.billing.meter_events.create_async(shop.v2("x" * 100))
    with pytest.raises(stripe.InvalidRequestError):
        await shop.client.v2.billing.meter_events.create_async(shop.v2("x" * 101))


async def test_v2_refuses_at_once_what_v1_rejects_later(shop: Shop) -> None:
    await shop.send("one", event_name="nobody")
    await shop.send("two", "many")
    await shop.send("three", "1" * 16)
    await shop.send("four", customer="cus_none")
    reports = (await shop.stand.control("GET", "error_reports"))["error_reports"]
    codes = [report["data"]["reason"]["error_types"][0]["code"] for report in reports]
    assert codes == [
        "no_meter",
        "meter_event_invalid_value",
        "meter_event_value_too_many_digits",
        "meter_event_customer_not_found",
    ]
    assert [report["type"] for report in reports[:2]] == [
        "v1.billing.meter.no_meter_found",
        "v1.billing.meter.error_report_triggered",
    ]
    assert (await shop.stand.totals())["effective"] == 0
    for event, code in (
        (shop.v2("five", event_name="nobody"), "no_meter"),
        (shop.v2("six", "many"), "payload_invalid_value"),
    ):
        with pytest.raises(stripe.InvalidRequestError) as caught:
            await shop.client.v2.billing.meter_events.create_async(event)
        assert caught.value.code == code
    await shop.client.v1.billing.meters.deactivate_async(shop.meter)
    with pytest.raises(stripe.InvalidRequestError) as caught:
        await shop.client.v2.billing.meter_events.create_async(shop.v2("seven"))
    assert caught.value.code == "archived_meter"


async def test_an_error_report_names_the_idempotency_key(shop: Shop) -> None:
    await shop.send("one", customer="cus_none", key="the-key")
    (report,) = (await shop.stand.control("GET", "error_reports"))["error_reports"]
    (kind,) = report["data"]["reason"]["error_types"]
    assert kind["sample_errors"][0]["request"]["identifier"] == "the-key"


async def test_two_at_once_for_one_customer_and_meter_are_429(shop: Shop) -> None:
    shop.stand.account.event_seconds = 3600
    first = asyncio.create_task(shop.send("first"))
    while not shop.stand.account.calls["POST /v1/billing/meter_events"]:
        await shop.stand.totals()
    with pytest.raises(stripe.RateLimitError) as caught:
        await shop.send("second")
    first.cancel()
    assert caught.value.headers is not None
    assert caught.value.headers["Stripe-Rate-Limited-Reason"] == "resource-specific"
    assert caught.value.error is not None
    assert caught.value.error.code == "too_many_concurrent_requests"
    assert await shop.sum() == "0"


async def test_an_event_can_be_cancelled_for_24_hours_from_receipt(shop: Shop) -> None:
    adjustments = shop.client.v1.billing.meter_event_adjustments
    for identifier in ("one", "two"):
        await shop.send(identifier)
    order: stripe.params.billing.MeterEventAdjustmentCreateParams = {
        "event_name": METER,
        "type": "cancel",
        "cancel": {"identifier": "one"},
    }
    await adjustments.create_async(order)
    assert await shop.sum() == "5"
    shop.stand.clock.advance(hours=24)
    with pytest.raises(stripe.InvalidRequestError, match="24 hours"):
        await adjustments.create_async({**order, "cancel": {"identifier": "two"}})


async def test_summaries_end_before_their_end_and_demand_whole_minutes(shop: Shop) -> None:
    minute = START - START % 60
    await shop.send("in", "1", timestamp=minute)
    await shop.send("last", "2", timestamp=minute + 59)
    await shop.send("out", "4", timestamp=minute + 60)
    assert await shop.summaries(minute, minute + 60) == [3.0]
    assert await shop.summaries(minute - 60, minute) == []
    with pytest.raises(stripe.InvalidRequestError, match="minute"):
        await shop.summaries(minute + 1, minute + 60)
    with pytest.raises(stripe.InvalidRequestError, match="hour"):
        await shop.summaries(minute - minute % 3600, minute + 60, value_grouping_window="hour")


async def test_summaries_by_the_hour_come_in_pages_of_ten(shop: Shop) -> None:
    hour = START - START % 3600
    for n in range(12):
        await shop.send(f"e{n}", str(n + 1), timestamp=hour - n * 3600)
    found = await shop.client.v1.billing.meters.event_summaries.list_async(
        shop.meter,
        {
            "customer": shop.customer,
            "start_time": hour - 12 * 3600,
            "end_time": hour + 3600,
            "value_grouping_window": "hour",
        },
    )
    assert [len(found.data), found.has_more] == [10, True]
    values = [each.aggregated_value async for each in found.auto_paging_iter()]
    assert values == [float(n + 1) for n in range(12)]


async def test_summaries_lag_behind_receipts_when_told_to(shop: Shop) -> None:
    shop.stand.account.summary_lag = 120
    minute = START - START % 60
    await shop.send("one")
    assert await shop.summaries(minute, minute + 60) == []
    shop.stand.clock.advance(seconds=120)
    assert await shop.summaries(minute, minute + 60) == [5.0]


async def _token(shop: Shop) -> stripe.StripeClient:
    session = await shop.client.v2.billing.meter_event_session.create_async()
    return shop.stand.client(session.authentication_token)


async def test_the_stream_takes_100_events_and_judges_them_later(shop: Shop) -> None:
    stream = await _token(shop)
    events = [shop.v2(f"e{n}") for n in range(97)]
    events += [shop.v2("e0"), shop.v2("bad", "many"), shop.v2("lost", event_name="nobody")]
    await stream.v2.billing.meter_event_stream.create_async({"events": events})
    assert await shop.sum() == str(97 * 5)
    totals = await shop.stand.totals()
    assert (totals["accepted"], totals["effective"]) == (100, 97)
    reports = (await shop.stand.control("GET", "error_reports"))["error_reports"]
    assert [report["data"]["reason"]["error_types"][0]["code"] for report in reports] == [
        "duplicate_meter_event",
        "meter_event_invalid_value",
        "no_meter",
    ]
    with pytest.raises(stripe.InvalidRequestError):
        await stream.v2.billing.meter_event_stream.create_async({"events": [*events, *events]})


async def test_a_stream_token_lives_for_15_minutes(shop: Shop) -> None:
    stream = await _token(shop)
    shop.stand.clock.advance(seconds=15 * 60)
    with pytest.raises(stripe.TemporarySessionExpiredError):
        await stream.v2.billing.meter_event_stream.create_async({"events": [shop.v2("one")]})
    assert await shop.sum() == "0"


async def test_only_live_keys_open_a_stream_and_only_tokens_use_it(shop: Shop) -> None:
    with pytest.raises(stripe.PermissionError):
        await shop.stand.client(TEST).v2.billing.meter_event_session.create_async()
    with pytest.raises(stripe.AuthenticationError):
        await shop.client.v2.billing.meter_event_stream.create_async({"events": [shop.v2("one")]})
