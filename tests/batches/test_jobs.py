"""Batch jobs from end to end, on the servers and through the worker that production has."""

import asyncio
from collections import Counter

import pytest
from temporalio.client import WorkflowFailureError
from temporalio.exceptions import ApplicationError

from tallystick.contracts import PROGRESS_QUERY, BatchProgress
from tallystick.ledger.batch_tables import ItemOutcome
from tallystick.ledger.tables import Attempt, UsageRecord
from tests.batches.stand import Jobs, handle_of, message_of
from tests.batches.tally import differences


async def must_tally(jobs: Jobs) -> None:
    house = jobs.house
    assert await differences(house.ledger, house.claude, house.stripe) == []


async def test_a_job_is_served_in_batches_billed_item_by_item_and_told_in_sums(jobs: Jobs) -> None:
    before = len(await jobs.house.stripe.journal())
    handle = await jobs.start("whole", 180, caller_metadata={"team": "a"})
    ended = await jobs.ended("whole")
    assert (ended.state, ended.succeeded, ended.batches, ended.batches_settled) == (
        "ended", 180, 4, 4,
    )  # fmt: skip
    assert ended.cost_usd > 0
    assert ended.charge_usd == ended.batch_saves_usd
    assert ended.highest_charge_usd is not None
    assert ended.charge_usd < ended.highest_charge_usd
    results = await jobs.results("whole")
    assert [each.number for each in results] == list(range(180))
    assert {each.outcome for each in results} == {ItemOutcome.SUCCEEDED}
    charges = sum(each.charge_nano_usd or 0 for each in results)
    assert charges == int(ended.charge_usd * 10**9)
    assert all(message_of(each)["usage"]["service_tier"] == "batch" for each in results)
    (record,) = await jobs.rows(UsageRecord, request_id="whole/7")
    assert record["caller_metadata"] == {"team": "a", "document": "page-7.txt"}
    assert len(await jobs.house.stripe.journal()) - before <= 4 * 6
    assert len((await handle.fetch_history()).events) < 60
    assert await handle.query(PROGRESS_QUERY, result_type=BatchProgress) == ended
    await must_tally(jobs)


async def test_what_fails_in_passing_is_sent_again_and_what_fails_for_good_is_named(
    jobs: Jobs,
) -> None:
    claude = jobs.house.claude
    await claude.order("item_errored", match="<mixed:3>")
    await claude.order("item_expired", match="<mixed:4>", times=2)
    await claude.order("item_expired", match="<mixed:5>", times=None)
    await claude.order("item_invalid", match="<mixed:6>", message="too many notches")
    await claude.order("refusal", match="<mixed:7>")
    await claude.order("unknown_model", match="<mixed:8>", model="claude-unheard-of")
    await jobs.start("mixed", 60)
    ended = await jobs.ended("mixed")
    assert (ended.succeeded, ended.expired, ended.errored) == (58, 1, 1)
    results = await jobs.results("mixed")
    bad = results[6]
    assert (bad.document, bad.outcome) == ("page-6.txt", ItemOutcome.ERRORED)
    assert (bad.error_type, bad.error_message) == ("invalid_request_error", "too many notches")
    assert results[5].outcome == ItemOutcome.EXPIRED
    assert (results[7].charge_nano_usd, results[8].charge_nano_usd) == (0, None)
    tries = Counter(row["request_id"] for row in await jobs.rows(Attempt))
    assert [tries[f"mixed/{number}"] for number in range(3, 9)] == [2, 3, 3, 1, 1, 1]
    billed = {row["request_id"]: row["attempts"] for row in await jobs.rows(UsageRecord)}
    assert (billed["mixed/3"], billed["mixed/4"]) == (2, 3)
    assert "mixed/5" not in billed
    assert "mixed/6" not in billed
    await must_tally(jobs)


@pytest.mark.parametrize(
    ("fault", "options"),
    [
        ("cut_results", {"after_lines": 20, "how": "reset"}),
        ("cut_results", {"after_bytes": 12_345, "how": "close"}),
        ("truncated_results", {"after_lines": 20}),
        ("truncated_results", {"after_bytes": 12_345}),
        ("truncated_results", {"after_lines": 0}),
        ("error_529", {}),
    ],
)
async def test_a_file_that_is_cut_anywhere_is_read_to_its_end(
    jobs: Jobs, fault: str, options: dict[str, object]
) -> None:
    job_id = f"cut-{fault}-{'-'.join(str(each) for each in options.values())}"
    await jobs.house.claude.order(fault, match="/results?", times=2, **options)
    await jobs.start(job_id, 90)
    assert (await jobs.ended(job_id)).succeeded == 90
    await must_tally(jobs)


async def test_progress_is_told_while_a_job_runs(jobs: Jobs) -> None:
    await jobs.pace(items_per_second=0)
    handle = await jobs.start("slow", 70)
    async with asyncio.timeout(60):
        while (progress := await jobs.progress("slow")).in_flight < 70:
            await asyncio.sleep(0.05)
    assert (progress.state, progress.batches, progress.waiting) == ("running", 2, 0)
    assert progress.expected_end is None
    assert progress.latest_end is not None
    told = await handle.query(PROGRESS_QUERY, result_type=BatchProgress)
    assert (told.items, told.customer_id) == (70, "acme")
    await jobs.pace(items_per_second=50_000)
    assert (await jobs.ended("slow")).succeeded == 70
    # Looking again and again at what runs has left nothing behind.
    assert len((await handle.fetch_history()).events) < 50
    await must_tally(jobs)


async def test_a_job_that_nobody_submitted_is_refused(jobs: Jobs) -> None:
    handle = await jobs.run("nobody-s")
    with pytest.raises(WorkflowFailureError) as refused:
        await handle.result()
    assert isinstance(refused.value.cause, ApplicationError)
    assert refused.value.cause.type == "InvalidRequest"
    assert "batch submit" in refused.value.cause.message
    attributes = (await handle_of(jobs.house.temporal, "nobody-s").describe()).search_attributes
    assert attributes["BillingState"] == ["refused"]
