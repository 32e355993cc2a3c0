"""The ways in which the reports can be told to be wrong: each, and that it can be taken back."""

from decimal import Decimal

from tests.sandbox.claude_batches import ended, requests
from tests.sandbox.claude_reports import HOUR, LASTING, at, reported, tokens_of

DEAR = {"model": "claude-opus-5-5", "tokens": {"input": 1_000_000}}
"""Four dollars' worth."""


async def test_hidden_usage_is_missing_whether_served_before_or_after_the_lie():
    async with reported() as reports:
        claude = reports.claude
        one, two = await claude.create("one"), await claude.create("two")
        await reports.lie("hide", match={"ids": [two._request_id, "item-1"]})
        batch = await ended(claude, requests(3))
        await reports.until(HOUR)
        told = tokens_of(await reports.usage())
        served = (await claude.get("totals"))["served"]
        rows = [row for row in await claude.rows() if row.get("custom_id") == "item-1"]
        hidden = two.usage.output_tokens + rows[0]["usage"]["output_tokens"]
        assert told["requests"] == served["requests"] - 2 == 3
        assert told["output"] == served["output"] - hidden

        await reports.lie("hide", match={"ids": [batch.id]})
        assert (await reports.usage())[0].usage.requests == 2

        minute = {"since": at(0).timestamp(), "until": at(60).timestamp()}
        await reports.lie("hide", match={**minute, "service_tiers": ["batch"]})
        (row,) = await reports.usage()
        assert row.usage.output_tokens == one.usage.output_tokens + two.usage.output_tokens
        answer = await claude.control.delete("/_sandbox/reports/lies")
        assert answer.json() == {"lag": 0, "lies": []}
        assert tokens_of(await reports.usage()) == served


async def test_refusals_can_be_left_out_of_usage_or_be_charged():
    async with reported() as reports:
        await reports.claude.order("refusal", match="refuse me")
        await reports.claude.create("one")
        refused = await reports.claude.create("refuse me", model="claude-opus-5-5")
        await reports.until(HOUR)
        assert (await reports.usage())[0].usage.requests == 2
        assert (await reports.cost())[0].cost.requests == 1

        await reports.lie("hide", match={"free": True})
        assert (await reports.usage())[0].usage.requests == 1
        assert (await reports.cost())[0].cost.requests == 1

        await reports.lie("charge")
        (dear,) = await reports.cost(models=["claude-opus-5-5"])
    tokens = refused.usage
    cents = tokens.input_tokens * Decimal("0.0004") + tokens.output_tokens * Decimal("0.002")
    assert Decimal(dear.cost.amount) == cents


async def test_moved_usage_is_told_in_the_neighbouring_hour():
    async with reported() as reports:
        await reports.until(HOUR - 1)
        reply = await reports.claude.create("one")
        await reports.outside(HOUR - 1, model="claude-opus-5", requests=3)
        await reports.lie("move", seconds=2, match={"ids": [reply.id]})
        await reports.until(2 * HOUR)
        rows = await reports.usage(time_bucket_width="1h", order_by="requests")
        assert [(row.starting_at, row.usage.requests) for row in rows] == [
            (at(0), 3),
            (at(HOUR), 1),
        ]
        await reports.lie("move", seconds=-HOUR)
        (row,) = await reports.usage(time_bucket_width="1h")
    assert (row.starting_at, row.usage.requests) == (at(-HOUR), 4)


async def test_writes_of_an_hour_can_be_told_as_those_of_five_minutes():
    async with reported() as reports:
        await reports.claude.create("one", system=LASTING)
        await reports.until(HOUR)
        before = tokens_of(await reports.usage())
        assert (before["cache_write_5m"], before["cache_write_1h"]) == (0, 2_000)
        await reports.lie("short_writes")
        after = tokens_of(await reports.usage())
    assert after == {**before, "cache_write_5m": 2_000, "cache_write_1h": 0}


async def test_prices_can_be_wrong_from_an_instant_on_and_discounts_lie_below_the_list():
    async with reported() as reports:
        for hour in range(2):
            await reports.outside(hour * HOUR, **DEAR)
            await reports.outside(hour * HOUR, **{**DEAR, "model": "claude-opus-5"})
        await reports.until(2 * HOUR)

        async def costs():
            rows = await reports.cost(
                time_bucket_width="1h", group_by=["model"], order_by="time", order="asc"
            )
            return [(row.group.model[12:], row.cost.list_amount, row.cost.amount) for row in rows]

        first = [("5", "500", "500"), ("5-5", "400", "400")]
        assert await costs() == [*first, *first]
        since = {"models": ["claude-opus-5-5"], "since": at(HOUR).timestamp()}
        await reports.lie("reprice", factor="1.5", match=since)
        assert await costs() == [*first, ("5-5", "600", "600"), ("5", "500", "500")]
        await reports.lie("discount", percent="12.5", match={"models": ["claude-opus-5"]})
        less = [("5", "500", "437.5"), ("5-5", "400", "400")]
        assert await costs() == [*less, *less]


async def test_a_lie_that_there_is_not_is_refused():
    async with reported() as reports:
        for lie in ({"lie": "flatter"}, {"lie": "reprice"}, {"lie": "hide", "match": {"model": 1}}):
            answer = await reports.claude.control.post(
                "/_sandbox/reports/lies", json={"lies": [lie]}
            )
            assert answer.status_code == 400
        assert (await reports.claude.get("reports"))["lies"] == []
