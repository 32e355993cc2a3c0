"""A job is admitted as a whole, and its room is reserved as a whole."""

import asyncio
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest
from temporalio.client import WorkflowFailureError
from temporalio.exceptions import ApplicationError

from tallystick.ledger import accounts, customers, wallet
from tallystick.ledger.account_tables import GrantKind
from tallystick.ledger.batch_tables import BatchShard
from tallystick.ledger.batches import NewJob
from tallystick.ledger.tables import Attempt, Customer, Reservation, UsageRecord
from tallystick.money import from_nano_usd, to_nano_usd
from tests.batches.stand import Jobs, items_of, submit
from tests.batches.test_jobs import must_tally


async def refused(jobs: Jobs, job_id: str, count: int, **terms: Any) -> ApplicationError:
    handle = await jobs.start(job_id, count, **terms)
    with pytest.raises(WorkflowFailureError) as failed:
        await handle.result()
    assert isinstance(failed.value.cause, ApplicationError)
    assert await jobs.rows(BatchShard, job_id=job_id) == []
    assert [a for a in await jobs.rows(Attempt) if a["request_id"].startswith(f"{job_id}/")] == []
    assert await jobs.rows(Reservation, request_id=job_id) == []
    return failed.value.cause


def highest(job_id: str, count: int) -> Decimal:
    """Return the most that a job may be charged under the plan's 20 %."""
    cost = sum(item.highest_cost_usd for item in items_of(job_id, count))
    return from_nano_usd(to_nano_usd(cost * Decimal("1.2")))


async def test_over_its_own_limit_it_is_refused_with_the_estimate(jobs: Jobs) -> None:
    most = highest("dear", 20)
    error = await refused(jobs, "dear", 20, max_cost_usd=most - Decimal("0.000000001"))
    assert error.type == "CostCeilingExceeded"
    assert "--max-cost" in error.message
    assert Decimal(error.details[0]["estimate_usd"]) == most
    await jobs.start("just-within", 20, max_cost_usd=highest("just-within", 20))
    assert (await jobs.ended("just-within")).succeeded == 20


async def test_over_a_cap_it_is_refused_and_once_there_is_room_the_same_job_goes_through(
    jobs: Jobs,
) -> None:
    ledger, acme = jobs.house.ledger, jobs.house.customer
    most = highest("capped", 20)
    async with ledger.begin() as tx:
        await customers.set_spend_cap(tx, acme, most / 2)
    try:
        assert (await refused(jobs, "capped", 20)).type == "SpendCapReached"
        async with ledger.begin() as tx:
            await customers.set_spend_cap(tx, acme, Decimal(100))
        await jobs.pace(items_per_second=0)
        await jobs.run("capped")
        async with asyncio.timeout(60):
            while (await jobs.progress("capped")).in_flight < 20:
                await asyncio.sleep(0.05)
        (kept,) = await jobs.rows(Reservation, request_id="capped")
        assert from_nano_usd(kept["amount_nano_usd"]) == most
        await jobs.pace(items_per_second=50_000)
        assert (await jobs.ended("capped")).succeeded == 20
        assert await jobs.rows(Reservation, request_id="capped") == []
    finally:
        async with ledger.begin() as tx:
            await customers.set_spend_cap(tx, acme, None)
    await must_tally(jobs)


async def test_two_jobs_that_have_room_for_one_go_one_after_the_other(jobs: Jobs) -> None:
    ledger, acme = jobs.house.ledger, jobs.house.customer
    spent = sum(r["charge_nano_usd"] or 0 for r in await jobs.rows(UsageRecord))
    room = from_nano_usd(spent) + highest("first", 20) * Decimal("1.5")
    async with ledger.begin() as tx:
        await customers.set_spend_cap(tx, acme, room)
    try:
        await jobs.pace(items_per_second=0)
        await jobs.start("first", 20)
        async with asyncio.timeout(60):
            while (await jobs.progress("first")).in_flight < 20:
                await asyncio.sleep(0.05)
        await jobs.start("next", 20)
        await asyncio.sleep(1)
        assert (await jobs.progress("next")).state == "submitted"
        assert (await jobs.cancel("next")).state == "canceling"
        await jobs.pace(items_per_second=50_000)
        assert (await jobs.ended("first")).succeeded == 20
        ended = await jobs.ended("next")
        assert (ended.state, ended.canceled, ended.highest_charge_usd) == ("ended", 20, None)
    finally:
        async with ledger.begin() as tx:
            await customers.set_spend_cap(tx, acme, None)


async def test_a_suspended_customer_sends_nothing(jobs: Jobs) -> None:
    ledger, acme = jobs.house.ledger, jobs.house.customer
    async with ledger.begin() as tx:
        await customers.suspend(tx, acme, "operator", "owes a cow")
    try:
        error = await refused(jobs, "suspended", 3)
        assert (error.type, "owes a cow" in error.message) == ("CustomerSuspended", True)
    finally:
        async with ledger.begin() as tx:
            await customers.restore(tx, acme, "operator")


async def test_a_prepaid_job_burns_its_credit_and_gives_back_the_rest(jobs: Jobs) -> None:
    now = datetime.now(UTC)
    async with jobs.house.ledger.begin() as tx:
        acme = await customers.get(tx, jobs.house.customer)
        assert acme is not None
        await customers.set_stripe_customer(tx, "acme", None)
        await customers.add(
            tx,
            Customer(
                customer_id="pre",
                name="Pre",
                plan="prepaid",
                stripe_customer_id=acme.stripe_customer_id,
            ),
        )
        account = await accounts.open_account(tx, "pre", now, "UTC", now)
        await wallet.grant(
            tx, account, kind=GrantKind.PAID, nano_usd=10**10, source="t", at=account.anchor
        )
    try:
        await submit(jobs.house.ledger, NewJob("prepaid", "pre"), items_of("prepaid", 90))
        await jobs.run("prepaid")
        ended = await jobs.ended("prepaid")
        assert ended.succeeded == 90
        async with jobs.house.ledger.begin() as tx:
            funds = await wallet.funds(tx, "pre", datetime.now(UTC))
        assert funds.balance_nano_usd == 10**10 - int(ended.charge_usd * 10**9)
        assert funds.reserved_nano_usd == 0
        error = await _refused_of(jobs, "too-much", "pre", 9_000)
        assert error.type == "BalanceExhausted"
    finally:
        async with jobs.house.ledger.begin() as tx:
            await customers.set_stripe_customer(tx, "pre", None)
            await customers.set_stripe_customer(tx, "acme", acme.stripe_customer_id)


async def _refused_of(jobs: Jobs, job_id: str, customer: str, count: int) -> ApplicationError:
    await submit(jobs.house.ledger, NewJob(job_id, customer), items_of(job_id, count))
    handle = await jobs.run(job_id)
    with pytest.raises(WorkflowFailureError) as failed:
        await handle.result()
    assert isinstance(failed.value.cause, ApplicationError)
    return failed.value.cause
