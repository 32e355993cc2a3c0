"""Settling looks rows up one by one, whatever PostgreSQL believes of tables that just filled.

Between two jobs the statistics know finished attempts alone: by them the index of open ones is
empty, and reading all of it for each line would be the cheapest way there is. Then come 100,000
open attempts. So the plans themselves are asked for, of the statements as they are sent.
"""

from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import Any

from sqlalchemy import Connection, Engine, event, text

from tallystick.ledger import batch_settling, batch_shards, batches
from tests.batches.test_settling import NOW, Desk, desk, succeeded

__all__ = ["desk"]

LARGE = {"attempts", "batch_items", "batch_results", "batch_tries", "usage_records"}
ITEMS = 1_000


@contextmanager
def explained() -> Iterator[list[dict[str, Any]]]:
    """Collect the plans of all statements that read or write rows, node by node."""
    nodes: list[dict[str, Any]] = []

    def explain(
        connection: Connection, _: Any, sql: str, parameters: Any, __: Any, many: bool
    ) -> None:
        if not many and sql.split(maxsplit=1)[0] in ("WITH", "SELECT", "INSERT", "UPDATE"):
            with closing(connection.connection.cursor()) as cursor:
                cursor.execute(f"EXPLAIN (FORMAT JSON) {sql}", parameters)
                (told,) = cursor.fetchone() or ()
            nodes.extend(_nodes(told[0]["Plan"]))

    event.listen(Engine, "before_cursor_execute", explain)
    try:
        yield nodes
    finally:
        event.remove(Engine, "before_cursor_execute", explain)


def _nodes(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield plan
    for below in plan.get("Plans", []):
        yield from _nodes(below)


async def test_no_statement_goes_through_a_table_or_through_all_open_attempts(desk: Desk) -> None:
    earlier = await desk.send(ITEMS)
    await desk.settle(earlier, [succeeded(number) for number in range(ITEMS)])
    async with desk.ledger.begin() as tx:
        await batch_shards.set_settled(tx, earlier)
        await tx.execute(text("ANALYZE"))
    with explained() as nodes:
        shard = await desk.send(ITEMS, job_id="next", batch_id="msgbatch_2")
        # More often than the driver takes to prepare a statement, whose plan is another one.
        for first in range(0, ITEMS, ITEMS // 10):
            lines = [succeeded(number) for number in range(first, first + ITEMS // 10)]
            await desk.settle(shard, lines)
        async with desk.ledger.begin() as tx:
            assert await batch_settling.unread(tx, shard) == 0
            await batch_shards.set_settled(tx, shard)
            await batches.finish(tx, "next", NOW)
            assert len([each async for each in batches.results(tx, "next")]) == ITEMS
        await desk.lose(ITEMS, job_id="last")
    ways = {
        (node["Relation Name"], node.get("Index Name"))
        for node in nodes
        if node["Node Type"].endswith("Scan") and node.get("Relation Name") in LARGE
    }
    assert ways == {
        ("attempts", "attempts_pkey"),
        ("attempts", "attempts_customer_id_request_id_number_key"),
        ("batch_items", "batch_items_pkey"),
        ("batch_results", "batch_results_pkey"),
        ("batch_tries", "batch_tries_pkey"),
        ("usage_records", "usage_records_attempt_id_key"),
    }
    await desk.must_tally()
