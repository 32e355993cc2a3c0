"""Anthropic's reports beside a real ledger: what is read, what settles, and what comes later."""

import json
import random
from collections import Counter
from datetime import datetime
from decimal import Decimal
from typing import Any

import pytest
from sqlalchemy import text
from temporalio.exceptions import ApplicationError
from temporalio.testing import ActivityEnvironment

from tallystick.ledger import batch_shards, batches, provider_records, served_usage
from tallystick.ledger.batch_tables import BatchShard
from tallystick.ledger.batches import NewJob
from tallystick.ledger.database import Ledger, Transaction
from tallystick.ledger.discrepancies import change_state
from tallystick.ledger.reconciliation_tables import DiscrepancyState
from tallystick.ledger.waiting import waiting
from tallystick.lost_calls import lost_calls
from tallystick.plans.batching import ShardLimits
from tallystick.pricing import TokenCounts
from tallystick.pricing.usage import read_usage
from tallystick.reconciling.findings import Cause, Kind, Pair
from tallystick.reconciling.reported import model_of
from tallystick.sandbox.claude.keys import key_id
from tallystick.settings import SANDBOX_CLAUDE_KEY
from tests.batches.stand import items_of, streamed
from tests.reconciliation.claude_stand import (
    DAY,
    HOUR,
    MINUTE,
    SETTLES,
    SONNET,
    open_claude,
)
from tests.statements.stand import ANCHOR, Account, add_plans

USED = TokenCounts(input=900, output=30)
OPUS, HAIKU = "claude-opus-5-5", "claude-haiku-4-5-20251001"
END = DAY + 24 * HOUR


# --- Reading --------------------------------------------------------------------------------------
async def test_a_report_is_read_to_its_last_page_and_copied_as_it_is(ledger: Ledger) -> None:
    async with open_claude(ledger, keys=[key_id(SANDBOX_CLAUDE_KEY)]) as claude:
        models = [f"claude-new-{number}" for number in range(50)]
        for hour in range(21):
            rows = [
                {
                    "at": (DAY + hour * HOUR).timestamp(),
                    "model": model,
                    "api_key_id": key_id(SANDBOX_CLAUDE_KEY),
                    "tokens": USED._asdict(),
                }
                for model in models
            ]
            await claude.tell("/outside", {"rows": rows})
        await claude.outside(DAY, USED, api_key_id="apikey_of_others")
        for _ in range(2):  # a second look replaces the first
            read, *_ = await claude.compare()
        assert read.calls == 2 + 1  # two pages of usage, one of what nothing has a price for
        async with ledger.begin() as tx:
            copied = await provider_records.usage_rows(tx, DAY, END)
        assert len(copied) == 21 * 50
        assert {(row.counts, row.requests, row.speed) for row in copied} == {(USED, 1, "standard")}


async def test_a_report_that_is_behind_is_waited_for(ledger: Ledger) -> None:
    async with open_claude(ledger) as claude:
        claude.now = END + MINUTE
        await claude.tell("", {"lag": 120})
        step = await claude.step(DAY, END)
        with pytest.raises(ApplicationError) as raised:
            await ActivityEnvironment().run(claude.steps.read_reports, step)
        assert raised.value.type == "ReportUnsettled"
        assert not raised.value.non_retryable
        assert raised.value.next_retry_delay == SETTLES
        assert (await claude.run(step)).claude_state is None
        compared = await ActivityEnvironment().run(claude.steps.compare_claude, step)
        assert "not compared" in compared.words
        await claude.tell("", {"lag": 60})
        await ActivityEnvironment().run(claude.steps.read_reports, step)
        await ActivityEnvironment().run(claude.steps.compare_claude, step)
        run = await claude.run(step)
        assert (run.claude_state, run.refreshed_at) == ("compared", END)


@pytest.mark.parametrize(
    ("admin_key", "state"),
    [(None, "no_admin_key"), (SANDBOX_CLAUDE_KEY, "unavailable")],
    ids=["no key", "a key that may not read them"],
)
async def test_without_reports_the_run_says_so_and_goes_on(
    ledger: Ledger, admin_key: str | None, state: str
) -> None:
    async with open_claude(ledger, admin_key=admin_key) as claude:
        await claude.use(DAY + MINUTE)
        claude.now = END + HOUR
        step = await claude.step(DAY, END)
        run = ActivityEnvironment().run
        read = await run(claude.steps.read_reports, step)
        assert "ANTHROPIC_ADMIN_KEY" in read.words
        for compare in (claude.steps.compare_claude, claude.steps.compare_costs):
            assert (await run(compare, step)).words.startswith("not compared")
        looked = await claude.run(step)
        assert looked.claude_state == state
        assert looked.tallied is not None
        assert "claude" not in looked.tallied
        assert await claude.found() == []


# --- The ledger's side ----------------------------------------------------------------------------
async def test_the_database_adds_up_usage_as_rating_reads_it(ledger: Ledger) -> None:
    await add_plans(ledger, metered={"model": "pass-through"})
    acme = await Account(ledger).open("metered")
    draw = random.Random(6)
    sums = {name: Counter[Any]() for name in ("counts", "free", "declined")}
    for number in range(60):
        at = ANCHOR + draw.randrange(240) * MINUTE
        used, more = _usage(draw), {}
        if number % 6 == 0:
            more = {"stop_reason": "refusal", "content": []}
        elif number % 7 == 0:
            used["service_tier"] = "priority"  # has no price
        await _record(acme, at, {**more, "usage": used})
        read = read_usage(used, SONNET)
        searches = (SONNET, TokenCounts(web_search=read.web_searches))
        for name, portions in (
            ("counts", (*read.portions, searches)),
            ("free", (*read.portions, searches) if more else ()),
            ("declined", read.declined),
        ):
            for model, counts in portions:
                where = (at.replace(minute=0), model_of(model), used["service_tier"])
                sums[name].update({(*where, k): n for k, n in counts.by_kind().items()})
    async with ledger.begin() as tx:
        served = await served_usage.served(tx, ANCHOR, ANCHOR + 4 * HOUR, HOUR)
    for name, expected in sums.items():
        told = Counter[Any]()
        for (place, at), each in served.items():
            counts: TokenCounts = getattr(each, name)
            where = (at, place.model, place.service_tier)
            told.update({(*where, kind): count for kind, count in counts.by_kind().items()})
        assert +told == +expected
    assert sum(each.requests for each in served.values()) == 60
    assert sum(each.refused for each in served.values()) == 10


def _usage(draw: random.Random) -> dict[str, Any]:
    """Return some usage: plain, or made by several samplings and models."""

    def counts() -> dict[str, Any]:
        short, long = draw.randrange(50), draw.randrange(50)
        return {
            "input_tokens": draw.randrange(1_000),
            "output_tokens": draw.randrange(1, 100),
            "cache_creation_input_tokens": short + long,
            "cache_creation": {
                "ephemeral_5m_input_tokens": short,
                "ephemeral_1h_input_tokens": long,
            },
            "cache_read_input_tokens": draw.randrange(500),
        }

    top = counts()
    iterations: list[dict[str, Any]] = []
    match draw.randrange(4):
        case 0:
            iterations = [
                {"type": "message", **top},
                {"type": "compaction", **counts()},
                {"type": "advisor_message", "model": OPUS, **counts()},
            ]
        case 1:
            iterations = [
                {"type": "message", "model": OPUS, **counts(), "output_tokens": 0},
                {"type": "message", "model": HAIKU, **counts()},
                {"type": "fallback_message", "model": SONNET, **top},
            ]
        case _:
            pass
    tools = {"web_search_requests": draw.randrange(3)}
    return {**top, "server_tool_use": tools, "service_tier": "standard", "iterations": iterations}


async def _record(acme: Account, at: datetime, reply: dict[str, Any]) -> None:
    """Record a reply that is otherwise plain."""
    order = await acme.answered(at)
    told = {"of": order.attempt_id, "reply": json.dumps(reply)}
    change = "UPDATE attempts SET reply = reply || CAST(:reply AS jsonb) WHERE attempt_id = :of"
    async with acme.ledger.begin() as tx:
        await tx.execute(text(change), told)
    await acme.record(order)


# --- Calls without an answer ----------------------------------------------------------------------
async def test_a_lost_call_is_settled_once_and_the_two_sides_agree(ledger: Ledger) -> None:
    async with open_claude(ledger) as claude:
        await claude.use(DAY + 8 * MINUTE)
        made = await claude.call(DAY + 10 * MINUTE)
        await claude.lost(made)
        for _ in range(2):
            _, compared, cost = await claude.compare()
            assert (compared.found, cost.found) == (1, 0)
        (found,) = await claude.found()
        assert (found.cause, found.state) == (Cause.LOST_CALL, "open")
        async with ledger.begin() as tx:
            told = [each.what for each in await waiting(tx, older_than=claude.now)]
        assert "outcome unknown" in told
        assert found.place == {
            "model": SONNET,
            "service_tier": "standard",
            "inference_geo": "global",
            "speed": "standard",
        }
        assert [await claude.settle(found) for _ in range(2)] == [1, 0]
        (booked,) = await claude.settlements()
        assert (booked.attempt_id, booked.served, booked.shared) == (made.attempt_id, True, False)
        assert (booked.input_tokens, booked.output_tokens) == made.counts[:2]
        async with ledger.begin() as tx:
            (lost,) = (await lost_calls(tx)).values()
            told = [each.what for each in await waiting(tx, older_than=claude.now)]
        assert "outcome unknown" not in told
        assert (lost.unknown, lost.estimated_cost_usd) == (0, 0)
        assert (lost.settled, lost.settled_cost_usd) == (1, booked.cost_usd)
        _, compared, cost = await claude.compare()
        assert (compared.found, cost.found) == (0, 0)
        assert [each.state for each in await claude.found()] == ["settled"]
        (hour,) = await claude.rows(
            "SELECT claude, ledger FROM tally_hours WHERE unit = 'input' AND claude > 0"
        )
        assert hour.claude == hour.ledger


async def test_an_answer_that_turns_up_holds_instead_of_what_was_settled(ledger: Ledger) -> None:
    async with open_claude(ledger) as claude:
        made = await claude.call(DAY + 10 * MINUTE)
        await claude.lost(made)
        await claude.compare()
        (found,) = await claude.found()
        await claude.settle(found)
        # The worker was not dead after all, and its answer is billed.
        await claude.answered(made, DAY + 10 * MINUTE)
        await claude.record(made)
        _, compared, cost = await claude.compare()
        assert (compared.found, cost.found) == (0, 0)
        assert [each.state for each in await claude.found()] == ["settled"]
        async with ledger.begin() as tx:
            assert await lost_calls(tx) == {}


async def test_an_answer_besides_the_one_that_was_billed_is_known(ledger: Ledger) -> None:
    async with open_claude(ledger) as claude:
        first = await claude.call(DAY + 10 * MINUTE, "twice")
        await claude.use(DAY + 11 * MINUTE, "twice")
        await claude.answered(first, DAY + 10 * MINUTE)
        _, compared, cost = await claude.compare()
        assert (compared.found, cost.found) == (0, 0)
        assert await claude.settlements() == []


async def test_a_call_that_was_not_served_is_settled_without_a_discrepancy(
    ledger: Ledger,
) -> None:
    async with open_claude(ledger) as claude:
        early = await claude.call(DAY + 10 * MINUTE, served=False)
        late = await claude.call(END - 3 * MINUTE, served=False)
        for each in (early, late):
            await claude.lost(each)
        await claude.compare()
        # The late one may have been served in the hours behind, which nobody has compared yet.
        assert [each.attempt_id for each in await claude.settlements()] == [early.attempt_id]
        await claude.compare(END, END + HOUR)
        settled = await claude.settlements()
        assert [each.attempt_id for each in settled] == [early.attempt_id, late.attempt_id]
        assert {(each.served, each.cost_usd) for each in settled} == {(False, Decimal(0))}
        assert await claude.found() == []
        async with ledger.begin() as tx:
            (lost,) = (await lost_calls(tx)).values()
        assert (lost.settled, lost.settled_cost_usd, lost.unknown) == (2, 0, 0)


async def test_usage_that_is_reported_later_changes_no_settlement(ledger: Ledger) -> None:
    async with open_claude(ledger) as claude:
        made = await claude.call(DAY + 10 * MINUTE)
        await claude.lost(made)
        await claude.hide(DAY, DAY + HOUR)
        await claude.compare()
        before = await claude.settlements()
        assert [each.served for each in before] == [False]
        await claude.stop_lying()
        await claude.compare()
        (found,) = await claude.found()
        assert (found.cause, found.state, found.proposal) == (Cause.LOST_CALL, "open", None)
        assert found.requests[0]["attempt_id"] == made.attempt_id
        assert await claude.settlements() == before


async def test_a_call_stays_unknown_while_usage_is_left_that_may_be_its(ledger: Ledger) -> None:
    async with open_claude(ledger) as claude:
        made = await claude.call(DAY + 10 * MINUTE, served=False)
        await claude.lost(made)
        await claude.outside(DAY + 12 * MINUTE, TokenCounts(input=90_000))
        _, compared, _ = await claude.compare()
        assert compared.calls == 1  # only the hour that differs, by the minute
        assert await claude.settlements() == []
        (found,) = await claude.found()
        assert (found.pair, found.cause) == (Pair.CLAUDE_LEDGER, Cause.OUTSIDE_USAGE)
        async with ledger.begin() as tx:
            await change_state(
                tx, found, DiscrepancyState.DISMISSED, "a notebook of ours", at=claude.now
            )
        await claude.compare()
        assert [each.served for each in await claude.settlements()] == [False]
        assert [each.state for each in await claude.found()] == ["dismissed"]


async def test_an_hour_that_is_not_closed_at_its_edge_is_left_to_the_next_run(
    ledger: Ledger,
) -> None:
    async with open_claude(ledger) as claude:
        await claude.use(END - 10 * MINUTE)
        made = await claude.use(END - MINUTE)
        lie = {"lie": "move", "seconds": 90, "match": {"ids": [_message_id(made.answer)]}}
        await claude.tell("/lies", {"lies": [lie]})
        claude.now = END + 2 * MINUTE
        step = await claude.step(DAY, END)
        run = ActivityEnvironment().run
        await run(claude.steps.read_reports, step)
        compared = await run(claude.steps.compare_claude, step)
        assert "next run" in compared.words
        assert await claude.found() == []
        await claude.compare(DAY + HOUR, END + HOUR)
        (found,) = await claude.found()
        assert (found.kind, found.cause) == (Kind.MISPLACED_USAGE, Cause.BUCKET_EDGE)
        assert (found.start_at, found.end_at) == (END - HOUR, END + HOUR)


def _message_id(answer: Any) -> str:
    return answer.message["id"]


# --- Lost batches ---------------------------------------------------------------------------------
async def test_items_of_a_lost_batch_are_settled_in_one_go(ledger: Ledger) -> None:
    async with open_claude(ledger) as claude:
        at = DAY + 10 * MINUTE
        lost = await _lose_batch(ledger, "job", 8, at)
        assert lost == {SONNET: 4, "claude-haiku-4-5": 4}
        counts = TokenCounts(input=2_003, output=7)
        await claude.outside(at + HOUR, counts, service_tier="batch", requests=3)
        _, compared, _ = await claude.compare()
        (found,) = await claude.found()
        assert (compared.found, found.cause) == (1, Cause.LOST_CALL)
        assert found.proposal is not None
        assert list(found.proposal["subjects"]) == ["job/1#0"]
        # Of that model nothing more is known until a day has passed.
        assert await claude.settlements() == []
        assert [await claude.settle(found) for _ in range(2)] == [3, 0]
        booked = await claude.settlements()
        assert sum(each.input_tokens for each in booked) == 2_003
        assert sum(each.output_tokens for each in booked) == 7
        # At half the price of $2 and $10 a million.
        assert sum(each.cost_usd for each in booked) == Decimal("0.002038")
        assert all(each.shared for each in booked)
        _, compared, cost = await claude.compare(DAY, END + 2 * HOUR)
        assert (compared.found, cost.found) == (0, 0)
        settled = Counter(each.served for each in await claude.settlements())
        assert settled == {True: 3, False: 5}


async def test_a_batch_whose_results_are_not_read_yet_is_no_discrepancy(ledger: Ledger) -> None:
    async with open_claude(ledger) as claude:
        at = DAY + 10 * MINUTE
        async with ledger.begin() as tx:
            shard = await _send_batch(tx, "job", 8, at)
            await batch_shards.set_running(tx, shard, "batch_1", at, at + 24 * HOUR)
        counts = TokenCounts(input=2_800, output=7)
        await claude.outside(at + HOUR, counts, service_tier="batch", requests=4)
        _, compared, cost = await claude.compare()
        assert (compared.found, cost.found) == (0, 0)
        assert "next run" in compared.words
        await claude.outside(at + HOUR, counts, service_tier="batch", requests=4)
        _, compared, _ = await claude.compare()  # more than the batch has
        assert compared.found == 1


async def _send_batch(tx: Transaction, job_id: str, items: int, at: datetime) -> BatchShard:
    """Submit a job of one batch, and send it."""
    await batches.submit(tx, NewJob(job_id, "acme"), streamed(items_of(job_id, items)))
    shard = await batch_shards.plan(tx, job_id, ShardLimits(100, 10**7), at)
    assert shard is not None
    assert await batch_shards.set_sent(tx, shard, at)
    return await batch_shards.get(tx, job_id, shard.shard)


async def _lose_batch(ledger: Ledger, job_id: str, items: int, at: datetime) -> Counter[str]:
    """Submit a job whose one create is given up; returns how many items each model has."""
    async with ledger.begin() as tx:
        sent = await _send_batch(tx, job_id, items, at)
        assert await batch_shards.give_up(tx, sent, at + 5 * MINUTE, "nobody answered")
        rows = await tx.execute(text("SELECT model, count(*) AS n FROM attempts GROUP BY model"))
        return Counter({row.model: row.n for row in rows})
