"""A storm of deliveries, duplicated and shuffled, a third of it while Temporal is stopped."""

import tempfile
from pathlib import Path

import pytest

from scripts.bench_webhooks import Witness, deliver, storm, subjects_of
from tallystick.embedded import free_port, start_temporal, stop_process
from tallystick.ledger.database import Ledger
from tallystick.temporal import connect_temporal
from tests.web.post import SNAPSHOTS, open_post, working

NAMES = [f"customer-{number}" for number in range(5)]


@pytest.mark.parametrize("count", [1_000, pytest.param(10_000, marks=pytest.mark.long)])
async def test_every_event_of_a_storm_is_applied_exactly_once(
    count: int, database_url: str, ledger: Ledger
) -> None:
    port = free_port()
    witness = Witness(database_url)
    witness.watch()
    with tempfile.TemporaryDirectory(prefix="tallystick-") as folder:
        server = await start_temporal(Path(folder), port=port, ui_port=None)
        try:
            temporal = await connect_temporal(server.address)
            async with (
                open_post(ledger, server.address) as post,
                working(temporal, post),
            ):
                subjects: list[dict[str, str]] = []
                for name in NAMES:
                    mapped = await post.customer(name)
                    invoice = await post.invoice(mapped, 100, name)
                    subjects += subjects_of(mapped, invoice)
                deliveries = storm(count, subjects)
                third = count // 3
                await deliver(deliveries[:third], post.url, SNAPSHOTS, at_once=10)
                # A step that is lost with its server would only wait for its timeout.
                await witness.drained()
                await stop_process(server.process)
                away = await deliver(deliveries[third : 2 * third], post.url, SNAPSHOTS, at_once=10)
                assert away.refused == 0
                server = await start_temporal(Path(folder), port=port, ui_port=None)
                await deliver(deliveries[2 * third :], post.url, SNAPSHOTS, at_once=10)
                await witness.drained()
                for name in NAMES:
                    await post.end_cycle(name)
        finally:
            await stop_process(server.process)
    applied = witness.applied()
    assert len(applied) == len(set(applied)) == count * 6 // 10
    assert set(applied) == {delivery.id for delivery in deliveries}
    assert witness.parked() == 0
