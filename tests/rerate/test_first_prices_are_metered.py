"""Unpriced, priced, metered: by the production worker, a real Temporal and a stand-in Stripe."""

import asyncio
import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import pytest_asyncio
from temporalio.client import Client as TemporalClient
from typer.testing import CliRunner

from tallystick.cli.app import app
from tallystick.cli.metering import deliver
from tallystick.contracts import MeterOrder, RequestKey
from tallystick.embedded import TemporalServer
from tallystick.ledger import adjustments, customers
from tallystick.ledger.tables import Customer
from tallystick.metering import CHARGE_METER, token_meter
from tallystick.rerating import rerate
from tests.rerate.stand import UNKNOWN, another_book, left_unpriced, reply
from tests.support.house import House, open_house


@pytest_asyncio.fixture
async def house(temporal: TemporalClient, database_url: str) -> AsyncIterator[House]:
    async with open_house(temporal, database_url, "rerated") as opened:
        yield opened


async def counted(house: House) -> dict[str, int]:
    totals = (await house.stripe.get("totals"))["by_event_name"]
    return {name: int(each["sum"]) for name, each in totals.items() if each["count"]}


def _knows(data: dict[str, Any]) -> None:
    data["models"][0]["aliases"] = [*data["models"][0].get("aliases", ()), UNKNOWN]


async def test_usage_of_an_unknown_model_is_metered_once_its_price_is_known(house: House) -> None:
    await house.claude.order("unknown_model", model=UNKNOWN)
    answer = await house.ask("r-1")
    await house.done("r-1")
    assert answer.bill.status == "unpriced"
    assert await counted(house) == {}

    day = timedelta(days=1)
    span = (datetime.now(UTC) - day, datetime.now(UTC) + day)
    async with house.ledger.begin() as tx:
        found = await rerate(tx, *span, book=another_book(_knows), booking=True)
    assert found.booked == 1
    async with house.ledger.begin() as tx:
        orders = await adjustments.unmetered(tx, *span)

    # Handed over several times, as by commands that were cut short: counted once.
    first, second = await asyncio.gather(
        deliver(house.temporal, orders, patience=60), deliver(house.temporal, orders, patience=60)
    )
    again = await deliver(house.temporal, orders, patience=60)
    assert (first.delivered, second.delivered, again.delivered) == (1, 1, 1)
    (difference,) = found.differences
    assert await counted(house) == {
        CHARGE_METER: difference.charge_nano_usd,
        token_meter("input"): answer.usage.input_tokens,
        token_meter("output"): answer.usage.output_tokens,
    }
    async with house.ledger.begin() as tx:
        assert await adjustments.unmetered(tx, *span) == []


async def test_one_command_prices_books_and_meters(
    house: House,
    temporal_server: TemporalServer,
    database_url: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("DATABASE_URL", database_url)
    monkeypatch.setenv("TEMPORAL_ADDRESS", temporal_server.address)
    an_hour_ago = datetime.now(UTC) - timedelta(hours=1)
    await left_unpriced(house.ledger, reply(1_000, 100), customer=house.customer, at=an_hour_ago)
    since = (an_hour_ago - timedelta(hours=1)).isoformat()

    async def run(*options: str) -> dict[str, Any]:
        command = ["rerate", "--from", since, "--json", *options]
        result = await asyncio.to_thread(CliRunner().invoke, app, command)
        assert result.exit_code == 0, result.output
        return json.loads(result.stdout)

    shown = await run()
    assert (shown["booked"], shown["metered"], shown["charge_usd"]) == (0, 0, "0.003")
    booked = await run("--book", "--wait", "60")
    assert (booked["booked"], booked["metered"], booked["parked"]) == (1, 1, [])
    assert await counted(house) == {
        CHARGE_METER: 3_000_000, token_meter("input"): 1_000, token_meter("output"): 100,
    }  # fmt: skip
    repeated = await run("--book")
    assert (repeated["differences"], repeated["booked"], repeated["metered"]) == ([], 0, 0)


async def test_a_customer_whom_stripe_does_not_know_is_told_as_parked(house: House) -> None:
    async with house.ledger.begin() as tx:
        await customers.add(tx, Customer(customer_id="nobody", name="nobody", plan="at-cost"))
    await left_unpriced(house.ledger, reply(), customer="nobody", at=datetime.now(UTC))
    span = (datetime.now(UTC) - timedelta(days=1), datetime.now(UTC) + timedelta(days=1))
    async with house.ledger.begin() as tx:
        await rerate(tx, *span, booking=True)
        orders = await adjustments.unmetered(tx, *span)
    told = await deliver(house.temporal, orders, patience=60)
    assert (told.delivered, told.under_way, len(told.parked)) == (0, 0, 1)


async def test_without_a_worker_the_orders_wait_in_temporal(temporal: TemporalClient) -> None:
    order = MeterOrder(key=RequestKey(customer_id="later", request_id="r-1"), events=1)
    told = await deliver(temporal, [order], patience=0.2)
    assert (told.delivered, told.under_way) == (0, 1)
    await temporal.get_activity_handle("meter-events/later/r-1").terminate()
