"""Faults, holds and idempotency keys of the Stripe stand-in."""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable

import pytest
import stripe

from tests.sandbox.stripe_stand import START, StripeStand, stripe_stand

Send = Callable[..., Awaitable[None]]


@pytest.fixture(name="stand")
async def _stand() -> AsyncGenerator[StripeStand, None]:
    async with stripe_stand() as stand:
        yield stand


@pytest.fixture(name="send")
async def _send(stand: StripeStand) -> Send:
    client = stand.client()
    customer = await client.v1.customers.create_async({"name": "c"})
    await client.v1.billing.meters.create_async(
        {"display_name": "T", "event_name": "tokens", "default_aggregation": {"formula": "sum"}}
    )

    async def send(identifier: str, *, key: str | None = None, value: str = "5") -> None:
        await client.v1.billing.meter_events.create_async(
            {
                "event_name": "tokens",
                "identifier": identifier,
                "timestamp": START,
                "payload": {"stripe_customer_id": customer.id, "value": value},
            },
            {"idempotency_key": key or identifier},
        )

    return send


async def _counted(stand: StripeStand) -> int:
    return (await stand.totals())["effective"]


async def test_a_rate_limit_says_why_and_how_long(stand: StripeStand, send: Send) -> None:
    await stand.fault("rate_limited", match="one", retry_after=7, reason="endpoint-rate")
    with pytest.raises(stripe.RateLimitError) as caught:
        await send("one")
    assert caught.value.headers is not None
    assert caught.value.headers["Retry-After"] == "7"
    assert caught.value.headers["Stripe-Rate-Limited-Reason"] == "endpoint-rate"
    await send("one")
    assert await _counted(stand) == 1


async def test_a_500_is_replayed_under_its_key_and_not_under_another(
    stand: StripeStand, send: Send
) -> None:
    await stand.fault("server_error", match="one")
    for _ in range(2):
        with pytest.raises(stripe.APIError) as caught:
            await send("one")
        assert caught.value.http_status == 500
    assert await _counted(stand) == 0
    await send("one", key="one#k2")
    assert await _counted(stand) == 1


async def test_a_kept_answer_is_forgotten_after_24_hours(stand: StripeStand, send: Send) -> None:
    await stand.fault("server_error", match="one")
    with pytest.raises(stripe.APIError):
        await send("one")
    stand.clock.advance(hours=24)
    await send("one")
    assert await _counted(stand) == 1


async def test_a_success_is_replayed_without_counting_again(stand: StripeStand, send: Send) -> None:
    await send("one")
    await send("one")
    assert (await stand.totals())["accepted"] == 1


async def test_a_key_with_other_parameters_is_an_idempotency_error(
    stand: StripeStand, send: Send
) -> None:
    await send("one")
    with pytest.raises(stripe.IdempotencyError):
        await send("one", value="6")


async def test_v2_works_again_on_what_had_failed(stand: StripeStand, send: Send) -> None:
    await send("first")
    customer = stand.account.journal.entries[0].customer
    await stand.fault("server_error", match="again")
    client = stand.client()

    async def create() -> None:
        await client.v2.billing.meter_events.create_async(
            {
                "event_name": "tokens",
                "identifier": "again",
                "payload": {"stripe_customer_id": customer, "value": "5"},
            },
            {"idempotency_key": "again"},
        )

    with pytest.raises(stripe.APIError):
        await create()
    await create()
    await create()
    assert (await stand.totals())["accepted"] == 2


async def test_an_html_page_and_a_refusal_of_choice(stand: StripeStand, send: Send) -> None:
    await stand.fault("unavailable", match="one")
    with pytest.raises(stripe.APIError) as caught:
        await send("one")
    assert caught.value.http_status == 503
    await stand.fault("refused", match="two", status=403)
    with pytest.raises(stripe.PermissionError):
        await send("two")
    assert await _counted(stand) == 0


async def test_an_unanswered_event_has_counted_and_a_reset_one_has_not(
    stand: StripeStand, send: Send
) -> None:
    await stand.fault("no_answer", match="one")
    await stand.fault("reset", match="two")
    for identifier in ("one", "two"):
        with pytest.raises(stripe.APIConnectionError):
            await send(identifier)
    journal = await stand.control("GET", "journal")
    assert [entry["identifier"] for entry in journal["entries"]] == ["one"]


async def test_an_event_rejected_later_is_accepted_and_does_not_count(
    stand: StripeStand, send: Send
) -> None:
    await stand.fault("rejected_later", identifier="one", code="archived_meter")
    await send("one")
    totals = await stand.totals()
    assert (totals["accepted"], totals["effective"]) == (1, 0)
    (report,) = (await stand.control("GET", "error_reports"))["error_reports"]
    assert report["data"]["reason"]["error_types"][0]["code"] == "archived_meter"


async def test_an_event_may_count_and_be_called_a_duplicate(stand: StripeStand, send: Send) -> None:
    await stand.fault("duplicate_reported")
    with pytest.raises(stripe.InvalidRequestError, match="already exists with identifier one"):
        await send("one")
    assert await _counted(stand) == 1


async def test_a_held_event_has_counted_before_its_answer_leaves(
    stand: StripeStand, send: Send
) -> None:
    await stand.hold("one", at="served")
    sending = asyncio.create_task(send("one"))  # type: ignore[arg-type]
    await stand.until_held()
    assert await _counted(stand) == 1
    assert not sending.done()
    await stand.control("DELETE", "holds")
    await sending


async def test_a_slow_call_is_answered(stand: StripeStand, send: Send) -> None:
    await stand.fault("slow", seconds=0.01)
    await send("one")
    assert (await stand.control("GET", "faults"))["applied"] == {"slow": 1}


async def test_a_rate_draws_the_same_faults_in_every_run(stand: StripeStand, send: Send) -> None:
    async def met() -> list[bool]:
        await stand.control("DELETE", "faults")
        await stand.control("POST", "faults", rates={"rate_limited": 0.5}, seed=3)
        results = [await _outcome(send(f"e{n}", key=f"{n}")) for n in range(20)]
        stand.clock.advance(hours=25)
        return results

    first = await met()
    assert True in first
    assert False in first
    assert await met() == first


async def _outcome(sending: Awaitable[None]) -> bool:
    try:
        await sending
    except stripe.RateLimitError:
        return False
    return True
