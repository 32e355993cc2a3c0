"""What only a person can mend stops one step and nothing else, is seen, and is taken up again."""

import asyncio
from datetime import UTC, datetime, timedelta

from sqlalchemy import text

from tallystick.cli.batch_following import Standing, standing_of, summary
from tallystick.ledger import accounts, customers, outbox, waiting
from tallystick.ledger.account_tables import Notice
from tallystick.ledger.batch_tables import BatchShard, ShardState
from tallystick.ledger.tables import MeterEvent
from tallystick.metering import CHARGE_METER
from tests.batches.stand import Jobs, handle_of
from tests.batches.test_jobs import must_tally


async def test_a_customer_without_a_mapping_holds_up_metering_alone(jobs: Jobs) -> None:
    ledger = jobs.house.ledger
    async with ledger.begin() as tx:
        acme = await customers.get(tx, "acme")
        assert acme is not None
        await customers.set_stripe_customer(tx, "acme", None)
    await jobs.start("unmapped", 70)
    assert await jobs.reaches("unmapped", "stuck")
    told = await standing_of(jobs.house.temporal, "unmapped")
    assert told.refused is None
    assert told.waits_for.startswith("telling Stripe: ")
    assert "acme" in told.waits_for
    async with asyncio.timeout(60):
        while (progress := await jobs.progress("unmapped")).state != "ended":
            await asyncio.sleep(0.05)
    assert progress.succeeded == 70
    later = datetime.now(UTC) + timedelta(hours=1)
    async with ledger.begin() as tx:
        stuck = await waiting.waiting(tx, older_than=later)
    assert {row.request_id for row in stuck if row.customer_id == "acme"} == {
        "unmapped/chunk/1-1", "unmapped/chunk/2-1",
    }  # fmt: skip
    assert sum(row.at_stake_usd or 0 for row in stuck) == progress.charge_usd
    async with ledger.begin() as tx:
        await customers.set_stripe_customer(tx, "acme", acme.stripe_customer_id)
    await handle_of(jobs.house.temporal, "unmapped").signal("retry_now")
    await jobs.ended("unmapped")
    assert await standing_of(jobs.house.temporal, "unmapped") == Standing()
    assert await jobs.state("unmapped") == "active"
    await must_tally(jobs)


async def test_while_stripe_is_away_a_job_is_settled_all_the_same(jobs: Jobs) -> None:
    await jobs.house.stripe.order("unavailable", match="POST", times=None)
    await jobs.start("stripe-away", 70)
    async with asyncio.timeout(60):
        while (await jobs.progress("stripe-away")).state != "ended":
            await asyncio.sleep(0.05)
    assert [e for e in await jobs.rows(MeterEvent) if e["delivered_at"] is None]
    await jobs.house.stripe.disarm()
    await jobs.ended("stripe-away")
    await must_tally(jobs)


async def test_a_file_that_is_not_what_the_provider_counts_is_not_settled(jobs: Jobs) -> None:
    """Here it is the ledger that is made to disagree: one line is taken for read before it is."""
    await jobs.pace(items_per_second=0)
    await jobs.start("miscounted", 80)
    async with asyncio.timeout(60):
        while (await jobs.progress("miscounted")).in_flight < 80:
            await asyncio.sleep(0.05)
    spoil = "UPDATE attempts SET outcome = :outcome WHERE request_id = 'miscounted/3'"
    async with jobs.house.ledger.begin() as tx:
        await tx.execute(text(spoil), {"outcome": "failed"})
    await jobs.pace(items_per_second=50_000)
    assert await jobs.reaches("miscounted", "stuck")
    first, second = await jobs.rows(BatchShard, job_id="miscounted")
    assert (first["state"], second["state"]) == (ShardState.ENDED, ShardState.SETTLED)
    standing = await standing_of(jobs.house.temporal, "miscounted")
    shown = dict(summary(await jobs.progress("miscounted"), standing))
    assert shown["waits for a person"].startswith("reading results: the results of msgbatch_")
    (told,) = [n for n in await jobs.rows(Notice) if n["kind"] == "batch_stuck"]
    assert "the provider counts {'succeeded': 50}" in told["message"]
    async with jobs.house.ledger.begin() as tx:
        await tx.execute(text(spoil), {"outcome": "started"})
    await handle_of(jobs.house.temporal, "miscounted").signal("retry_now")
    # The cursor is at the end: what is missing is seen, and the file read from its begin.
    ended = await jobs.ended("miscounted")
    assert (ended.succeeded, ended.batches_settled) == (80, 2)
    await must_tally(jobs)


async def test_a_period_waits_for_the_events_of_its_batches_and_can_withdraw_them(
    jobs: Jobs,
) -> None:
    ledger = jobs.house.ledger
    await jobs.house.stripe.order("unavailable", match="POST", times=None)
    began = datetime.now(UTC) - timedelta(days=1)
    async with ledger.begin() as tx:
        await accounts.open_account(tx, "acme", began, "UTC", began)
        account = await accounts.get(tx, "acme")
        assert account is not None
        period = accounts.period_of(account, 1)
    await jobs.start("closing", 70)
    async with asyncio.timeout(60):
        while (await jobs.progress("closing")).state != "ended":
            await asyncio.sleep(0.05)
    async with asyncio.timeout(60):
        while not await _sent(jobs, "closing/chunk/"):
            await asyncio.sleep(0.05)
    async with ledger.begin() as tx:
        charges = await outbox.waiting_charges(tx, "acme", period)
        later = period._replace(start=datetime.now(UTC) + timedelta(hours=1))
        assert (await outbox.waiting_charges(tx, "acme", later)).count == 0
        assert charges.count == 2
        # As if Stripe collected nothing of it: then no charge may reach its meter.
        await outbox.withdraw_outside(tx, "acme", period, later, datetime.now(UTC))
        assert (await outbox.waiting_charges(tx, "acme", period)).count == 0
    await jobs.house.stripe.disarm()
    await jobs.ended("closing")
    events = [
        e for e in await jobs.rows(MeterEvent) if e["request_id"].startswith("closing/chunk/")
    ]
    assert {e["meter"] for e in events if e["delivered_at"] is None} == {CHARGE_METER}


async def _sent(jobs: Jobs, prefix: str) -> bool:
    events = [e for e in await jobs.rows(MeterEvent) if e["request_id"].startswith(prefix)]
    return len(events) >= 2
