"""The content of a batch's requests: kept as that of single ones, from what the job has of them."""

from temporalio.client import Client as TemporalClient

from tallystick.contracts import RequestKey
from tests.batches.stand import message_of, open_jobs, params_of
from tests.contents.stand import keep, kept, stored

ITEMS = 3


async def test_items_are_kept_where_it_is_switched_on(
    temporal: TemporalClient, database_url: str
) -> None:
    async with open_jobs(temporal, database_url, "batched") as jobs:
        ledger = jobs.house.ledger
        await jobs.start("unkept", ITEMS)
        await jobs.ended("unkept")
        assert await stored(ledger) == []
        await keep(ledger, "batched", 30)
        await jobs.start("kept", ITEMS)
        await jobs.ended("kept")
        assert len(await stored(ledger)) == ITEMS
        for number, result in enumerate(await jobs.results("kept")):
            found = await kept(
                ledger, RequestKey(customer_id="batched", request_id=result.request_id)
            )
            assert found is not None
            params, line = found
            assert params == params_of(number, "kept")
            assert line["result"]["message"] == message_of(result)
