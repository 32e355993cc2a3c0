"""The first period of one account per model, from opening to a paid invoice."""

from datetime import UTC, datetime, timedelta

from temporalio.client import Client as TemporalClient

from tests.cycles.town import open_town

ANCHOR = datetime(2027, 3, 31, tzinfo=UTC)


async def test_a_period_of_each_model_is_settled_invoiced_and_paid(
    virtual_temporal: TemporalClient, database_url: str
) -> None:
    async with open_town(virtual_temporal, database_url, ANCHOR - timedelta(hours=1)) as town:
        await town.plan("flow", model="pass-through", markup="0.2")
        await town.plan(
            "mix", model="hybrid", markup="0.2", base_fee_usd="99", allowance={"usd": "20"}
        )
        await town.plan(
            "purse", model="prepaid", markup="0.25", top_up={"below_usd": "10", "amount_usd": "50"}
        )
        await town.open("flow", "flow", ANCHOR)
        await town.open("mix", "mix", ANCHOR)
        await town.open("purse", "purse", ANCHOR, time_zone="Europe/Berlin")
        await town.to(ANCHOR + timedelta(hours=2))
        for name in ("flow", "mix", "purse"):
            print(name, await town.time.agenda(name))
            print(await town.invoices(name), await town.notices(name))
        at = ANCHOR + timedelta(days=3)
        await town.to(at)
        for name in ("flow", "mix"):
            await town.use(name, at, 10_000_000, 1)
        await town.to(datetime(2027, 5, 1, tzinfo=UTC))
        for name in ("flow", "mix", "purse"):
            print(name, await town.time.agenda(name))
            print(await town.invoices(name), await town.notices(name))
            print(await town.statement(name, 1))
