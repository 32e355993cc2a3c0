"""`send_meter_events` against a Stripe that misbehaves: all of it counts, and counts once."""

import asyncio
from datetime import timedelta

import pytest
from temporalio.exceptions import ApplicationError, ApplicationErrorCategory

import activities.heartbeats
from activities.metering import MeteringActivities
from tallystick.contracts import RequestKey
from tallystick.ledger.database import Ledger
from tallystick.metering import CHARGE_METER, meter_identifier
from tests.metering.stand import (
    INPUT,
    OUTPUT,
    SESSION,
    SINGLE,
    STREAM,
    MeteringStand,
    metering_stand,
)

ONCE = {CHARGE_METER: 1_500, INPUT: 100, OUTPUT: 20}


def _named(order: object, meter: str = INPUT) -> str:
    key: RequestKey = order.key  # type: ignore[attr-defined]
    return meter_identifier(key.customer_id, key.request_id, meter)


async def test_stripe_is_told_customer_quantity_and_the_instant_of_use(
    stand: MeteringStand,
) -> None:
    mapped = await stand.customer()
    used_at = stand.now() - timedelta(hours=5)
    order = await stand.use(at=used_at)
    receipt = await stand.send(order)
    assert (receipt.delivered, receipt.at) == (3, stand.now())
    assert await stand.counted() == ONCE
    for entry in await stand.journal():
        assert entry["customer"] == mapped
        assert entry["timestamp"] == int(used_at.timestamp())
        assert entry["identifier"] == _named(order, entry["event_name"])
    for row in await stand.events(order):
        assert row.stripe_customer_id == mapped
        assert row.first_sent_at == row.delivered_at == stand.now()


async def test_single_events_carry_their_identifier_as_idempotency_key(
    singly: MeteringStand,
) -> None:
    await singly.customer()
    await singly.send(await singly.use())
    for entry in await singly.journal():
        assert entry["idempotency_key"] == entry["identifier"]


async def test_a_hundred_requests_share_a_few_calls(streaming: MeteringStand) -> None:
    customers = [f"customer-{n}" for n in range(5)]
    for customer in customers:
        await streaming.customer(customer)
    orders = [await streaming.use(customers[n % 5]) for n in range(100)]
    receipts = await streaming.send_all(orders)
    assert [getattr(receipt, "delivered", receipt) for receipt in receipts] == [3] * 100
    assert await streaming.calls(STREAM) == 4  # 33 requests of three events fit into a call
    assert await streaming.calls(SESSION) == 1
    assert await streaming.counted() == {CHARGE_METER: 150_000, INPUT: 10_000, OUTPUT: 2_000}


async def test_one_stream_call_at_a_time_leaves_a_worker(streaming: MeteringStand) -> None:
    await streaming.customer()
    orders = [await streaming.use(values=[(INPUT, 1)]) for _ in range(200)]
    await streaming.stripe.hold("meter_event_stream", at="received")
    sending = asyncio.create_task(streaming.send_all(orders))
    await streaming.stripe.until_held()
    for order in (orders[0], orders[-1]):
        while (await streaming.events(order))[0].first_sent_at is None:
            pass  # until both calls are ready to go
    for _ in range(20):
        assert await streaming.calls(STREAM) == 1
    await streaming.stripe.control("DELETE", "holds")
    await sending
    assert await streaming.calls(STREAM) == 2


async def test_a_full_call_does_not_wait_for_company(ledger: Ledger) -> None:
    async with metering_stand(ledger, "stream", linger=3600) as stand:
        await stand.customer()
        orders = [await stand.use(values=[(INPUT, 1)]) for _ in range(100)]
        await stand.send_all(orders)
        assert await stand.calls(STREAM) == 1


async def test_a_request_larger_than_a_call_goes_out_in_several(streaming: MeteringStand) -> None:
    await streaming.customer()
    order = await streaming.use()
    await streaming.send(order.model_copy(update={"events": 250}))
    assert await streaming.counted() == ONCE


async def test_what_is_delivered_is_not_sent_again(stand: MeteringStand) -> None:
    await stand.customer()
    order = await stand.use()
    await stand.send(order)
    assert (await stand.send(order)).delivered == 3
    assert len(await stand.journal()) == 3


@pytest.mark.parametrize(
    ("fault", "type_"),
    [
        ("rate_limited", "StripeRateLimited"),
        ("server_error", "StripeUnavailable"),
        ("unavailable", "StripeUnavailable"),
        ("reset", "StripeNoAnswer"),
        ("no_answer", "StripeNoAnswer"),
    ],
)
async def test_what_passes_by_itself_is_retried_and_counts_once(
    stand: MeteringStand, fault: str, type_: str
) -> None:
    await stand.customer()
    order = await stand.use()
    await stand.stripe.fault(fault, match=_named(order))
    with pytest.raises(ApplicationError) as caught:
        await stand.send(order)
    assert caught.value.type == type_
    assert not caught.value.non_retryable
    assert caught.value.category == ApplicationErrorCategory.BENIGN
    assert (await stand.send(order)).delivered == 3
    assert await stand.counted() == ONCE


async def test_retry_after_becomes_the_next_delay(stand: MeteringStand) -> None:
    await stand.customer()
    order = await stand.use()
    await stand.stripe.fault("rate_limited", match=_named(order), retry_after=7)
    with pytest.raises(ApplicationError) as caught:
        await stand.send(order)
    assert caught.value.next_retry_delay == timedelta(seconds=7)


async def test_seeded_faults_on_a_third_of_the_calls_lose_and_double_nothing(
    stand: MeteringStand,
) -> None:
    await stand.customer()
    orders = [await stand.use() for _ in range(40)]
    rates = dict.fromkeys(("rate_limited", "no_answer", "reset"), 0.11)
    await stand.stripe.control("POST", "faults", rates=rates, seed=5)
    waiting = orders
    while waiting:
        results = await stand.send_all(waiting)
        failed = [isinstance(result, BaseException) for result in results]
        waiting = [order for order, again in zip(waiting, failed, strict=True) if again]
    assert (await stand.stripe.control("GET", "faults"))["applied"]
    assert await stand.counted() == {CHARGE_METER: 60_000, INPUT: 4_000, OUTPUT: 800}


async def test_a_forbidden_key_parks_the_events_with_the_reason(stand: MeteringStand) -> None:
    await stand.customer()
    order = await stand.use()
    await stand.stripe.fault("refused", times=None, status=403, message="No such permission.")
    with pytest.raises(ApplicationError) as caught:
        await stand.send(order)
    assert (caught.value.type, caught.value.non_retryable) == ("StripeForbidden", True)
    for row in await stand.events(order):
        assert row.parked_at == stand.now()
        assert "No such permission." in row.parked_reason
    await stand.stripe.control("DELETE", "faults")
    await stand.send(order)
    assert [row.parked_at for row in await stand.events(order)] == [None] * 3
    assert await stand.counted() == ONCE


async def test_a_duplicate_counts_as_delivered(singly: MeteringStand) -> None:
    mapped = await singly.customer()
    order = await singly.use()
    await singly.stripe.client().v2.billing.meter_events.create_async(
        {
            "event_name": INPUT,
            "identifier": _named(order),
            "payload": {"stripe_customer_id": mapped, "value": "100"},
        }
    )
    await singly.stripe.fault("duplicate_reported", match=_named(order, OUTPUT))
    assert (await singly.send(order)).delivered == 3
    assert await singly.counted() == ONCE


async def test_no_other_refusal_counts_as_delivered(singly: MeteringStand) -> None:
    await singly.customer()
    order = await singly.use()
    await singly.stripe.fault("refused", match=_named(order), message="An event already exists")
    with pytest.raises(ApplicationError) as caught:
        await singly.send(order)
    assert caught.value.type == "StripeRejected"
    assert [row.delivered_at is None for row in await singly.events(order)] == [False, True, False]


async def test_one_bad_event_fails_its_own_request_only(stand: MeteringStand) -> None:
    await stand.customer()
    bad, good = await stand.use(), await stand.use()
    # On the stream the whole call is refused, then each event is tried on its own.
    await stand.stripe.fault("refused", match=_named(bad), times=2, message="Not this one.")
    failed, receipt = await stand.send_all([bad, good])
    assert isinstance(failed, ApplicationError)
    assert failed.type == "StripeRejected"
    assert "Not this one." in failed.message
    assert getattr(receipt, "delivered", receipt) == 3
    rows = await stand.events(bad)
    assert [row.parked_reason is None for row in rows] == [True, False, True]
    assert await stand.counted() == {CHARGE_METER: 3_000, INPUT: 100, OUTPUT: 40}


async def test_what_is_retried_comes_before_what_is_parked(singly: MeteringStand) -> None:
    await singly.customer()
    order = await singly.use()
    await singly.stripe.fault("refused", match=_named(order, CHARGE_METER), times=None)
    await singly.stripe.fault("reset", match=_named(order, OUTPUT))
    types: list[str | None] = []
    for _ in range(2):
        with pytest.raises(ApplicationError) as caught:
            await singly.send(order)
        types.append(caught.value.type)
    assert types == ["StripeNoAnswer", "StripeRejected"]
    assert await singly.counted() == {INPUT: 100, OUTPUT: 20}


async def test_a_refused_stream_call_is_sent_again_event_by_event(
    streaming: MeteringStand,
) -> None:
    await streaming.customer()
    orders = [await streaming.use() for _ in range(3)]
    await streaming.stripe.fault("refused", match="POST /v2/billing/meter_event_stream")
    await streaming.send_all(orders)
    assert await streaming.calls(STREAM) == 1
    assert await streaming.calls(SINGLE) == 9
    assert await streaming.counted() == {name: 3 * value for name, value in ONCE.items()}


async def test_a_stream_token_is_renewed_when_it_expires_or_is_forgotten(
    streaming: MeteringStand,
) -> None:
    await streaming.customer()
    await streaming.send(await streaming.use())
    streaming.stripe.clock.advance(seconds=15 * 60)
    await streaming.send(await streaming.use())
    assert await streaming.calls(SESSION) == 2
    streaming.stripe.account.sessions.clear()
    await streaming.send(await streaming.use())
    assert await streaming.calls(SESSION) == 3
    assert await streaming.counted() == {name: 3 * value for name, value in ONCE.items()}


async def test_an_event_rejected_after_its_receipt_is_reported_by_its_identifier(
    stand: MeteringStand,
) -> None:
    await stand.customer()
    order = await stand.use(values=[(INPUT, 100)])
    await stand.stripe.fault("rejected_later", match=_named(order))
    assert (await stand.send(order)).delivered == 1  # a receipt is all there is at this point
    assert await stand.counted() == {}
    (report,) = (await stand.stripe.control("GET", "error_reports"))["error_reports"]
    (kind,) = report["data"]["reason"]["error_types"]
    assert kind["sample_errors"][0]["request"]["identifier"] == _named(order)


async def test_one_event_per_customer_and_meter_is_in_flight(singly: MeteringStand) -> None:
    # Two at once would be refused with 429, and the activity would raise.
    for customer in ("acme", "bolt"):
        await singly.customer(customer)
    orders = [await singly.use(("acme", "bolt")[n % 2]) for n in range(20)]
    receipts = await singly.send_all(orders)
    assert [getattr(receipt, "delivered", receipt) for receipt in receipts] == [3] * 20
    assert await singly.calls(SINGLE) == 60


async def test_a_slow_lane_holds_up_no_other(singly: MeteringStand) -> None:
    slow, quick = await singly.customer("slow"), await singly.customer("quick")
    orders = [await singly.use("slow"), await singly.use("slow"), await singly.use("quick")]
    await singly.stripe.hold(slow, at="received")
    sending = asyncio.create_task(singly.send_all(orders))
    await singly.stripe.until_held(3)
    while True:
        journal = await singly.journal()
        if len(journal) == 3:
            break
    assert {entry["customer"] for entry in journal} == {quick}
    await singly.stripe.control("DELETE", "holds")
    await sending
    assert await singly.calls(SINGLE) == 9


async def test_the_first_send_is_committed_before_stripe_is_called(stand: MeteringStand) -> None:
    await stand.customer()
    order = await stand.use(values=[(INPUT, 100)])
    await stand.stripe.hold(_named(order), at="received")
    sending = asyncio.create_task(stand.send(order))
    await stand.stripe.until_held()
    (row,) = await stand.events(order)
    assert (row.first_sent_at, row.delivered_at) == (stand.now(), None)
    assert await stand.journal() == []
    await stand.stripe.control("DELETE", "holds")
    await sending
    (row,) = await stand.events(order)
    assert row.delivered_at == stand.now()


async def test_a_cancelled_activity_takes_nothing_from_the_others(stand: MeteringStand) -> None:
    await stand.customer()
    gone, kept = await stand.use(), await stand.use()
    await stand.stripe.hold(_named(gone), at="received")
    going = asyncio.create_task(stand.send(gone))
    keeping = asyncio.create_task(stand.send(kept))
    await stand.stripe.until_held()
    going.cancel()
    with pytest.raises(asyncio.CancelledError):
        await going
    await stand.stripe.control("DELETE", "holds")
    assert (await keeping).delivered == 3
    assert (await stand.send(gone)).delivered == 3
    assert await stand.counted() == {name: 2 * value for name, value in ONCE.items()}


async def test_a_waiting_activity_heartbeats(
    streaming: MeteringStand, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(activities.heartbeats, "HEARTBEAT_EVERY", 0.001)
    await streaming.customer()
    beaten = asyncio.Event()
    order = await streaming.use()
    await streaming.stripe.hold("")
    sending = asyncio.create_task(streaming.send(order, lambda *_: beaten.set()))
    await beaten.wait()
    await streaming.stripe.control("DELETE", "holds")
    await sending


async def test_a_customer_without_a_stripe_customer_is_parked_until_mapped(
    stand: MeteringStand,
) -> None:
    await stand.customer("late", mapped=False)
    order = await stand.use("late")
    with pytest.raises(ApplicationError) as caught:
        await stand.send(order)
    assert (caught.value.type, caught.value.non_retryable) == ("CustomerUnmapped", True)
    rows = await stand.events(order)
    assert all("'late' has no Stripe customer" in row.parked_reason for row in rows)
    assert [row.first_sent_at for row in rows] == [None] * 3
    await stand.map("late")
    await stand.send(order)
    assert [row.parked_reason for row in await stand.events(order)] == [None] * 3
    assert await stand.counted() == ONCE


async def test_a_value_stripe_would_drop_later_is_parked_at_once(stand: MeteringStand) -> None:
    await stand.customer()
    order = await stand.use(values=[(INPUT, 10**15), (OUTPUT, 10**15 - 1)])
    with pytest.raises(ApplicationError) as caught:
        await stand.send(order)
    assert caught.value.type == "StripeRejected"
    assert await stand.counted() == {OUTPUT: 10**15 - 1}


async def test_a_ledger_that_is_away_is_waited_for(stand: MeteringStand) -> None:
    await stand.customer()
    order = await stand.use()
    nowhere = Ledger("postgresql://nobody@127.0.0.1:1/none", pool_size=1)
    lost = MeteringActivities(nowhere, stand.metering._transport, linger=0)
    stand.metering, kept = lost, stand.metering
    with pytest.raises(ApplicationError) as caught:
        await stand.send(order)
    assert (caught.value.type, caught.value.non_retryable) == ("LedgerUnavailable", False)
    assert await stand.journal() == []
    stand.metering = kept
    await stand.send(order)
    await nowhere.close()
