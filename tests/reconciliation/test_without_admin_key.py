"""A run of a house that cannot read Claude's reports: a clear state, and no hindrance."""

from temporalio.client import Client

from tallystick.contracts import RECONCILIATION, TASK_QUEUE, ReconcileOrder, ReconcileResult
from tallystick.ledger import discrepancies
from tallystick.reconciling.intervals import HOUR
from tests.support.house import open_house
from tests.support.past import Past, hours_ago


async def test_without_an_admin_key_the_other_records_are_compared(
    temporal: Client, database_url: str
) -> None:
    start = hours_ago(3)
    async with open_house(
        temporal, database_url, "bolt", admin_key=None, summaries_settle=0.5
    ) as house:
        past = Past(house.ledger, temporal, house.claude)
        await past.use_and_lose_the_charge(house.stripe, "bolt", start)
        result = await temporal.execute_workflow(
            RECONCILIATION,
            ReconcileOrder(start=start, end=start + HOUR),
            id="without-admin-key",
            task_queue=TASK_QUEUE,
            result_type=ReconcileResult,
        )
        async with house.ledger.begin() as tx:
            (found,) = [each async for each in discrepancies.find(tx)]
    assert (result.claude_state, result.failed) == ("no_admin_key", {})
    assert "ANTHROPIC_ADMIN_KEY is not set" in result.words
    assert (found.pair, found.cause, found.state) == ("outbox-stripe", "lost_event", "open")
