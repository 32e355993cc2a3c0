"""The usage and cost reports as the official SDK reads them."""

from decimal import Decimal
from itertools import pairwise

import anthropic
import httpx
import pytest

from tallystick.sandbox.claude.keys import key_id
from tests.sandbox.claude_batches import ended, requests
from tests.sandbox.claude_reports import DAY, EVERYTHING, HOUR, LASTING, at, reported, tokens_of


async def test_every_width_adds_up_to_what_was_served_refusals_iterations_and_batches_included():
    async with reported() as reports:
        claude = reports.claude
        await claude.order("refusal", match="refuse me")
        await claude.order("advisor", match="advise me")
        await claude.order("fallback", match="fall back")
        await claude.order("undelivered", match="lose me")
        for text in ("one", "refuse me", "advise me", "fall back"):
            await claude.create(text, system=LASTING)
        with pytest.raises(anthropic.APIConnectionError):
            await claude.create("lose me")
        await reports.until(2 * HOUR)
        await claude.create("an alias", model="claude-haiku-4-5")
        await ended(claude, requests(5))
        await reports.until(3 * HOUR)
        served = (await claude.get("totals"))["served"]
        assert served["cache_write_1h"] == 2_000
        assert served["cache_read"] == 6_000 + 2_000, "the hop that declined read it as well"
        for asked in (
            {},
            {"time_bucket_width": "1m"},
            {"time_bucket_width": "1h", "group_by": EVERYTHING},
            {"time_bucket_width": "1d", "group_by": ["product"]},
        ):
            assert tokens_of(await reports.usage(**asked)) == served
        rows = await reports.usage(time_bucket_width="1h", group_by=EVERYTHING)
    assert {(row.starting_at, row.ending_at) for row in rows} == {
        (at(0), at(HOUR)),
        (at(2 * HOUR), at(3 * HOUR)),
    }
    assert {row.group.api_key_id for row in rows} == {key_id("sk-ant-test")}
    assert {(row.group.model, row.group.service_tier, row.group.inference_geo) for row in rows} == {
        ("claude-sonnet-5-5", "standard", "global"),
        ("claude-opus-5-5", "standard", "global"),
        ("claude-opus-4-8", "standard", "global"),
        ("claude-haiku-4-5", "standard", None),
        ("claude-sonnet-5-5", "batch", "global"),
    }
    assert {row.group.workspace_id for row in rows} == {None}, "not grouped by"


async def test_costs_are_what_the_price_list_makes_of_each_request():
    dollars = Decimal(0)

    def bill(usage, million_in, million_out):
        nonlocal dollars
        dollars += usage.input_tokens * Decimal(million_in) / 1_000_000
        dollars += usage.output_tokens * Decimal(million_out) / 1_000_000

    async with reported() as reports:
        claude = reports.claude
        at_edge = await claude.create("x" * 400_000, model="claude-haiku-5-5")
        over = await claude.create("x" * 400_004, model="claude-haiku-5-5")
        await claude.order("differs", match="hurry", inference_geo="us", speed="fast")
        fast = await claude.create("hurry", model="claude-opus-5-5")
        bill(at_edge.usage, "0.10", "0.50")
        bill(over.usage, "0.50", "2.50")
        bill(fast.usage, "8.80", "44")
        assert at_edge.usage.input_tokens == over.usage.input_tokens - 1 == 100_000
        await claude.order("refusal", match="refuse me")
        await claude.create("refuse me")
        batch = await ended(claude, requests(3, model="claude-haiku-4-5"))
        async for line in await claude.client.messages.batches.results(batch.id):
            bill(line.result.message.usage, "0.50", "2.50")
        await reports.outside(0, model="claude-opus-5-5", tokens={"web_search": 7})
        dollars += 7 * Decimal("0.01")
        await reports.until(HOUR)

        (whole,) = await reports.cost()
        by_model = await reports.cost(group_by=["model"])
        parts = await reports.cost(group_by=["model", "cost_type", "token_type"])
        types = await reports.cost(group_by=["cost_type"])
        (tokens_alone,) = await reports.usage()
    assert whole.cost.amount == whole.cost.list_amount == f"{dollars * 100:f}".rstrip("0")
    assert (whole.cost.currency, whole.cost.requests) == ("USD", 7)
    assert tokens_alone.usage.requests == 8, "a refusal is in the usage and costs nothing"
    assert tokens_alone.usage.server_tool_use.web_search_requests == 7
    assert "claude-sonnet-5-5" not in {row.group.model for row in by_model}
    for rows in (by_model, parts, types):
        assert sum(Decimal(row.cost.amount) for row in rows) == dollars * 100
    assert {row.cost.requests for row in parts} == {None}
    assert {(row.group.cost_type, row.group.token_type) for row in parts} == {
        ("tokens", "uncached_input_tokens"),
        ("tokens", "output_tokens"),
        ("web_search", None),
    }
    assert {row.group.cost_type: row.cost.amount for row in types}["web_search"] == "7"


@pytest.mark.parametrize("limit", [1, 20])
async def test_pages_give_every_row_once_whatever_is_reported_meanwhile(limit):
    async with reported() as reports:
        for minute in range(23):
            await reports.outside(minute * 60, model="claude-opus-5", tokens={"input": minute % 5})
        await reports.until(HOUR)
        page = await reports.analytics.usage.list(
            starting_at=at(0), ending_at=at(DAY), time_bucket_width="1m", limit=limit
        )
        refreshed, seen = page.data_refreshed_at, list(page.data)
        await reports.outside(HOUR, model="claude-opus-5", tokens={"input": 1_000})
        await reports.until(2 * HOUR)
        while page.has_more:
            assert len(page.data) == limit
            page = await page.get_next_page()
            assert page.data_refreshed_at == refreshed == at(HOUR)
            seen += page.data
        assert len(await reports.usage(time_bucket_width="1m", limit=limit)) == 24
    assert page.next_page is None
    assert sorted(row.starting_at for row in seen) == [at(minute * 60) for minute in range(23)]
    totals = [row.usage.total_tokens for row in seen]
    assert all(one >= other for one, other in pairwise(totals)), "the greatest first"


async def test_rows_come_in_the_order_that_is_asked_for():
    async with reported() as reports:
        for hour, tokens in ((0, 5), (1, 9), (2, 7)):
            await reports.outside(hour * HOUR, model="claude-opus-5", tokens={"input": tokens})
            await reports.outside(hour * HOUR, model="claude-opus-5-5", tokens={"output": 6})
        await reports.until(3 * HOUR)

        async def order(**asked):
            rows = await reports.usage(time_bucket_width="1h", group_by=["model"], **asked)
            return [(row.starting_at.hour - 12, row.usage.total_tokens) for row in rows]

        assert [tokens for _, tokens in await order()] == [9, 7, 6, 6, 6, 5]
        assert await order(order_by="time") == [(2, 7), (2, 6), (1, 9), (1, 6), (0, 6), (0, 5)]
        assert [hour for hour, _ in await order(order_by="time", order="asc")] == [0, 0, 1, 1, 2, 2]
        assert (await order(order_by="uncached_input_tokens", order="asc"))[-1] == (1, 9)
        dear = await reports.cost(group_by=["model"])
    assert [row.group.model for row in dear] == ["claude-opus-5-5", "claude-opus-5"]


async def test_what_is_dated_behind_the_watermark_is_not_told_yet():
    async with reported() as reports:
        await reports.claude.create("one")
        await reports.until(60)
        await reports.claude.create("two")
        await reports.claude.post("reports", lag=300)
        for now, told in ((90, 0), (359, 0), (360, 1), (419, 1), (420, 2)):
            await reports.until(now)
            page = await reports.analytics.usage.list(
                starting_at=at(0), ending_at=at(HOUR), time_bucket_width="1h"
            )
            assert sum(row.usage.requests for row in page.data) == told
            assert page.data_refreshed_at == at((now - 300) // 60 * 60)


async def test_without_a_width_both_ends_are_rounded_down_to_the_hour():
    async with reported() as reports:
        await reports.claude.create("at noon")
        await reports.until(HOUR + 60)
        await reports.claude.create("in the hour that is under way")
        await reports.until(HOUR + 600)
        (row,) = await reports.usage(starting_at=at(1_200), ending_at=at(HOUR + 300))
    assert (row.starting_at, row.ending_at, row.usage.requests) == (at(0), at(HOUR), 1)


async def test_filters_keep_to_what_they_name():
    async with reported() as reports:
        claude = reports.claude
        await claude.create("one", model="claude-haiku-4-5")
        await claude.create("two", inference_geo="us")
        ours = await claude.post("key_id", key="sk-ant-test")
        await reports.outside(0, model="claude-sonnet-5-5", requests=10, service_tier="batch")
        await reports.until(HOUR)
        for asked, count in (
            ({"models": ["claude-haiku-4-5"]}, 1),
            ({"models": ["claude-haiku-4-5-20251001"]}, 0),
            ({"inference_geos": ["not_available"]}, 1),
            ({"inference_geos": ["us", "global"]}, 11),
            ({"api_key_ids": [ours["id"]]}, 2),
            ({"api_key_ids": [""]}, 10),
            ({"service_tiers": ["batch"]}, 10),
            ({"speeds": ["fast"]}, 0),
        ):
            rows = await reports.usage(**asked)
            assert sum(row.usage.requests for row in rows) == count, asked


@pytest.mark.parametrize(
    ("asked", "why"),
    [
        ({"starting_at": at(-366 * DAY)}, "within the last 365 days"),
        ({"ending_at": at(32 * DAY)}, "at most 31 days"),
        ({"ending_at": at(-HOUR * 13)}, "after starting_at"),
        ({"time_bucket_width": "1m", "ending_at": at(13 * HOUR)}, "at most 24 hours"),
        ({"time_bucket_width": "1h", "ending_at": anthropic.omit}, "ending_at: required"),
        ({"time_bucket_width": "1w"}, "time_bucket_width: Input should be"),
        ({"group_by": ["context_window"]}, "group_by.0: Input should be"),
        ({"group_by": ["cost_type"]}, "group_by.0: Input should be"),
        ({"group_by": [*EVERYTHING, "product"]}, "group_by: .* at most 5"),
        ({"limit": 1_001}, "limit: Input should be"),
        ({"page": "another"}, "not a cursor"),
        ({"extra_query": {"models": "not in brackets"}}, "models: Input should be"),
        ({"session_ids": ["sesn_1"]}, "session_ids: Extra inputs"),
        ({"extra_headers": {"anthropic-beta": "another-2026-01-01"}}, "anthropic-beta"),
    ],
)
async def test_what_may_not_be_asked_is_refused_by_its_name(asked, why):
    async with reported() as reports:
        with pytest.raises(anthropic.BadRequestError, match=why):
            await reports.usage(**asked)
        many = [*EVERYTHING, "cost_type", "token_type"]
        assert await reports.cost(group_by=many) == [], "components are no dimensions"


async def test_a_cursor_is_of_its_question_alone():
    async with reported() as reports:
        for model in ("claude-opus-5", "claude-opus-5-5"):
            await reports.outside(0, model=model, tokens={"input": 1})
        await reports.until(HOUR)
        asked = {"starting_at": at(0), "ending_at": at(HOUR), "group_by": ["model"]}
        page = await reports.analytics.usage.list(**asked, limit=1)
        with pytest.raises(anthropic.BadRequestError):
            await reports.analytics.cost.list(**asked, page=page.next_page)
        rest = await reports.analytics.usage.list(**asked, limit=5, page=page.next_page)
    assert len(rest.data) == 1


async def test_only_keys_for_it_may_read_and_each_call_is_counted():
    path = "/v1/organizations/analytics/cost"
    async with reported(key="sk-ant-test") as reports:
        with pytest.raises(anthropic.PermissionDeniedError):
            await reports.usage()
        bare = {"authorization": "Bearer sk-ant-analytics-1", "anthropic-version": "2026-10-21"}
        async with httpx.AsyncClient(base_url=reports.claude.url, headers=bare, timeout=60) as http:
            assert (await http.get(path)).status_code == 400, "without the beta header"
            beta = {"anthropic-beta": "analytics-usage-cost-2026-08-24"}
            query = {"starting_at": at(-HOUR).isoformat()}
            answer = await http.get(path, params=query, headers=beta)
            assert answer.status_code == 200, answer.text
        calls = (await reports.claude.get("totals"))["calls"]
    assert calls == {f"GET {path}": 2, "GET /v1/organizations/analytics/usage": 1}


async def test_faults_strike_reports_by_their_path():
    async with reported() as reports:
        for fault in ("rate_limited", "error_500", "reset", "undelivered"):
            await reports.claude.order(fault, match="GET /v1/organizations/analytics/usage?")
        await reports.cost()
        await reports.claude.create("not a report")
        for raised in (anthropic.RateLimitError, anthropic.InternalServerError):
            with pytest.raises(raised):
                await reports.usage()
        for _ in range(2):
            with pytest.raises(anthropic.APIConnectionError):
                await reports.usage()
        assert await reports.usage() == []
