"""Message batches as the unmodified SDK sees them, from creation to the last day of the results."""

import json
from datetime import UTC, datetime, timedelta

import anthropic
import httpx
import pytest

from tallystick.sandbox.claude.batch_bodies import MAX_BATCH_BODY, MAX_REQUESTS
from tests.sandbox.claude_batches import HEADERS, HOUR, NOON, counts, ended, requests, results
from tests.sandbox.claude_stand_in import MODEL, ask, stand_in


def noon(seconds: float = 0) -> datetime:
    return datetime.fromtimestamp(NOON, UTC) + timedelta(seconds=seconds)


async def test_a_batch_ends_as_a_whole_and_says_nothing_of_its_progress_before():
    async with stand_in() as claude:
        batches = claude.client.messages.batches
        await claude.post("clock", now=NOON)
        await claude.post("batches", items_per_second=10)
        batch = await batches.create(requests=requests(30))
        assert batch.id.startswith("msgbatch_")
        assert (batch.created_at, batch.expires_at) == (noon(), noon(24 * HOUR))
        for _ in range(29):
            await claude.post("clock", advance=0.1)
            early = await batches.retrieve(batch.id)
            assert early.processing_status == "in_progress"
            assert counts(early) == {"processing": 30}
            assert early.ended_at is early.results_url is None
        with pytest.raises(anthropic.AnthropicError, match="results_url"):
            await batches.results(batch.id)
        unfinished = await claude.control.get(
            f"/v1/messages/batches/{batch.id}/results", headers=HEADERS
        )
        assert unfinished.status_code == 404
        assert (await claude.get("totals"))["served"]["requests"] == 0
        await claude.post("clock", advance=HOUR)
        late = await batches.retrieve(batch.id)
        found = await results(claude, batch.id)
    assert late.processing_status == "ended"
    assert counts(late) == {"succeeded": 30}
    assert late.ended_at == noon(3), "when it ended, not when somebody looked"
    assert late.cancel_initiated_at is late.archived_at is None
    assert late.results_url == f"{claude.url}/v1/messages/batches/{batch.id}/results"
    assert found.keys() == {f"item-{number}" for number in range(30)}


async def test_results_are_shuffled_lines_the_same_each_time_with_honest_tokens_at_the_batch_tier():
    async with stand_in(clock=lambda: NOON) as claude:
        batch = await ended(claude, requests(50))
        file = await claude.control.get(batch.results_url, headers=HEADERS)
        again = await claude.control.get(batch.results_url, headers=HEADERS)
        found = await results(claude, batch.id)
        single = await claude.create("Tell me about 7")
    assert file.headers["content-type"] == "application/x-jsonl"
    assert again.content == file.content
    order = [line.split('"')[3] for line in file.text.splitlines()]
    assert sorted(order) == sorted(found)
    assert order != [f"item-{number}" for number in range(50)]
    assert len({result.message.id for result in found.values()}) == 50
    for result in found.values():
        message = result.message
        assert message.usage.service_tier == "batch"
        assert message.usage.output_tokens == -(-len(message.content[0].text) // 4) > 0
    in_batch = found["item-7"].message
    assert in_batch.usage.input_tokens == single.usage.input_tokens
    assert in_batch.model == single.model == MODEL


@pytest.mark.parametrize(
    ("change", "names"),
    [
        ({"requests": None}, "requests"),
        ({"requests": []}, "requests"),
        ({"requests": [{"custom_id": "a"}]}, "requests.0.params"),
        ({"requests": [{"params": ask()}]}, "requests.0.custom_id"),
        ({"requests": [{"custom_id": "", "params": ask()}]}, "requests.0.custom_id"),
        ({"requests": [{"custom_id": "a/b", "params": ask()}]}, "requests.0.custom_id"),
        ({"requests": [{"custom_id": "a" * 65, "params": ask()}]}, "requests.0.custom_id"),
        ({"requests": [{"custom_id": "a\n", "params": ask()}]}, "requests.0.custom_id"),
        ({"requests": [{"custom_id": "a", "params": ask(), "job": 1}]}, "requests.0.job"),
        ({"job": 1, "requests": requests(1)}, "job"),
        ({"requests": requests(3) + requests(1)}, "requests.3.custom_id: 'item-0' is not unique"),
        ({"requests": requests(1, stream=True)}, "params.stream"),
        ({"requests": requests(1, speed="fast")}, "params.speed"),
        ({"requests": requests(1, store=True)}, "params.store"),
        ({"requests": requests(1, thread={})}, "params.thread"),
        ({"requests": requests(1, cache_hint="x")}, "params.cache_hint"),
        ({"requests": requests(1, context_hint="x")}, "params.context_hint"),
        ({"requests": [*requests(2), {"custom_id": "warm", "params": ask(max_tokens=0)}]},
         "requests.2.params.max_tokens"),
    ],
)  # fmt: skip
async def test_what_no_batch_may_have_refuses_the_whole_batch(change, names):
    async with stand_in() as claude:
        with pytest.raises(anthropic.BadRequestError) as caught:
            await claude.client.post("/v1/messages/batches", cast_to=object, body=change)
        assert names in caught.value.message
        assert (await claude.client.messages.batches.list()).data == []


async def test_a_batch_too_large_in_requests_or_bytes_is_refused_with_413():
    async def body():
        yield b'{"requests":["'
        for _ in range(MAX_BATCH_BODY // 1_000_000):
            yield b"x" * 1_000_000
        yield b'"]}'

    async with stand_in() as claude:
        many = [{"custom_id": str(number), "params": {}} for number in range(MAX_REQUESTS + 1)]
        with pytest.raises(anthropic.RequestTooLargeError):
            await claude.client.messages.batches.create(requests=many)
        with pytest.raises(anthropic.RequestTooLargeError):
            await claude.client.post("/v1/messages/batches", cast_to=object, content=body())
        assert (await claude.client.messages.batches.list()).data == []


async def test_what_is_wrong_with_one_request_is_that_items_error_and_free():
    wrong = {
        "no-tokens": ask(max_tokens=None),
        "too-many-tokens": ask(max_tokens=1_000_000),
        "temperature": ask(temperature=1.0),
        "empty": ask(""),
        "unpaired": ask("\ud800"),
        "unknown-model": ask(model="claude-0"),
    }
    async with stand_in(clock=lambda: NOON) as claude:
        good = [{**each, "params": ask(stream=False)} for each in requests(3)]
        bad = [{"custom_id": name, "params": params} for name, params in wrong.items()]
        async with httpx.AsyncClient(base_url=claude.url, headers=HEADERS, timeout=60) as plain:
            # By hand: the SDK would not send an unpaired surrogate, other clients do.
            content = json.dumps({"requests": good + bad})
            made = await plain.post("/v1/messages/batches", content=content)
        await claude.post("clock", advance=60)
        batch = await claude.client.messages.batches.retrieve(made.json()["id"])
        found = await results(claude, batch.id)
        totals = await claude.get("totals")
    assert counts(batch) == {"succeeded": 3, "errored": 6}
    kinds = {name: found[name].error.error.type for name in wrong}
    assert kinds.pop("unknown-model") == "not_found_error"
    assert set(kinds.values()) == {"invalid_request_error"}
    assert found["no-tokens"].error.error.message.startswith("max_tokens")
    assert found["no-tokens"].error.request_id.startswith("req_")
    assert totals["served"]["requests"] == 3
    assert totals["not_served"] == {"batch item errored": 6}


async def test_batches_are_listed_newest_first_and_page_by_page():
    async with stand_in(clock=lambda: NOON) as claude:
        batches = claude.client.messages.batches
        assert (await batches.list()).to_dict()["data"] == []
        made = [(await batches.create(requests=requests(size))).id for size in range(1, 8)]
        newest = made[::-1]
        assert [batch.id async for batch in batches.list(limit=3)] == newest
        page = await batches.list(limit=3)
        assert [batch.id for batch in page.data] == newest[:3]
        assert (page.has_more, page.first_id, page.last_id) == (True, newest[0], newest[2])
        assert [each.request_counts.processing for each in page.data] == [7, 6, 5]
        behind = await batches.list(limit=4, after_id=newest[2])
        assert ([batch.id for batch in behind.data], behind.has_more) == (newest[3:], False)
        before = await batches.list(limit=2, before_id=newest[4])
        assert ([batch.id for batch in before.data], before.has_more) == (newest[2:4], True)
        assert [batch.id async for batch in batches.list(limit=2, before_id=newest[4])] == [
            *newest[2:4], *newest[:2],
        ]  # fmt: skip
        for wrong in ({"limit": 0}, {"limit": 1_001}, {"after_id": "msgbatch_none"}):
            with pytest.raises(anthropic.BadRequestError):
                await batches.list(**wrong)


@pytest.mark.parametrize(("in_flight", "succeeded"), [(0, 30), (5, 35), (1_000, 100)])
async def test_after_a_cancel_what_is_in_flight_may_still_succeed_and_be_billed(
    in_flight, succeeded
):
    async with stand_in(clock=lambda: NOON) as claude:
        batches = claude.client.messages.batches
        await claude.post("batches", items_per_second=10, in_flight=in_flight)
        batch = await batches.create(requests=requests(100))
        await claude.post("clock", advance=3)
        canceled = await batches.cancel(batch.id)
        assert canceled.processing_status == "canceling"
        assert counts(canceled) == {"processing": 100}
        if in_flight:
            assert await batches.cancel(batch.id) == canceled, "twice is as good as once"
        await claude.post("clock", advance=8)
        late = await batches.retrieve(batch.id)
        with pytest.raises(anthropic.BadRequestError, match="ended"):
            await batches.cancel(batch.id)
        found = await results(claude, batch.id)
        totals = await claude.get("totals")
    assert late.processing_status == "ended"
    assert late.cancel_initiated_at == noon(3)
    assert late.ended_at == noon(succeeded / 10)
    expected = {"succeeded": succeeded, "canceled": 100 - succeeded}
    assert counts(late) == {name: count for name, count in expected.items() if count}
    kinds = [result.type for result in found.values()]
    assert (kinds.count("succeeded"), kinds.count("canceled")) == (succeeded, 100 - succeeded)
    assert totals["billable"]["requests"] == succeeded


async def test_what_has_had_no_turn_after_a_day_expires():
    async with stand_in(clock=lambda: NOON) as claude:
        batches = claude.client.messages.batches
        await claude.post("batches", items_per_second=43.5 / (24 * HOUR))
        batch = await batches.create(requests=requests(100))
        await claude.post("clock", now=NOON + 24 * HOUR - 1)
        assert counts(await batches.retrieve(batch.id)) == {"processing": 100}
        await claude.post("clock", now=NOON + 30 * HOUR)
        late = await batches.retrieve(batch.id)
        found = await results(claude, batch.id)
        totals = await claude.get("totals")
    assert counts(late) == {"succeeded": 43, "expired": 57}
    assert late.ended_at == late.expires_at == noon(24 * HOUR)
    expired = {name for name, result in found.items() if result.type == "expired"}
    assert expired != {f"item-{number}" for number in range(43, 100)}, "no tail of the requests"
    assert totals["billable"]["requests"] == 43
    assert totals["not_served"] == {"batch item expired": 57}


async def test_the_pace_can_be_set_while_a_batch_is_under_way():
    async with stand_in(clock=lambda: NOON) as claude:
        batches = claude.client.messages.batches
        assert (await claude.post("batches", items_per_second=10))["in_flight"] == 100
        batch = await batches.create(requests=requests(100))
        await claude.post("clock", advance=4)
        await claude.post("batches", items_per_second=0)
        await claude.post("clock", advance=HOUR)
        assert (await batches.retrieve(batch.id)).processing_status == "in_progress"
        await claude.post("batches", items_per_second=30)
        await claude.post("clock", advance=10)
        assert (await batches.retrieve(batch.id)).ended_at == noon(4 + HOUR + 2)
        bad = await claude.control.post("/_sandbox/batches", json={"items_per_second": -1})
        assert bad.status_code == 400


async def test_left_alone_a_batch_ends_soon_in_real_time():
    async with stand_in() as claude:
        batches = claude.client.messages.batches
        batch = await batches.create(requests=requests(3))
        while batch.processing_status != "ended":
            batch = await batches.retrieve(batch.id)
        assert len(await results(claude, batch.id)) == 3


async def test_results_are_kept_for_29_days_and_the_batch_for_longer():
    async with stand_in(clock=lambda: NOON) as claude:
        batches = claude.client.messages.batches
        batch = await ended(claude, requests(2))
        await claude.post("clock", now=NOON + 29 * 24 * HOUR - 1)
        assert len(await results(claude, batch.id)) == 2
        await claude.post("clock", advance=1)
        old = await batches.retrieve(batch.id)
        gone = await claude.control.get(batch.results_url, headers=HEADERS)
    assert (old.archived_at, old.results_url) == (noon(29 * 24 * HOUR), None)
    assert counts(old) == {"succeeded": 2}
    assert gone.status_code == 404


async def test_a_batch_is_deleted_only_once_it_ended_and_stays_in_the_journal():
    async with stand_in(clock=lambda: NOON) as claude:
        batches = claude.client.messages.batches
        batch = await batches.create(requests=requests(2))
        with pytest.raises(anthropic.BadRequestError, match="cancel it first"):
            await batches.delete(batch.id)
        await claude.post("clock", advance=60)
        deleted = await batches.delete(batch.id)
        assert (deleted.id, deleted.type) == (batch.id, "message_batch_deleted")
        for call in (batches.retrieve, batches.cancel, batches.delete, batches.results):
            with pytest.raises(anthropic.NotFoundError):
                await call(batch.id)
        assert (await batches.list()).data == []
        assert [row["batch_id"] for row in await claude.rows()] == [batch.id] * 2


async def test_a_new_batch_may_be_hidden_for_a_while():
    async with stand_in(clock=lambda: NOON) as claude:
        batches = claude.client.messages.batches
        await claude.post("batches", hidden_for=5)
        batch = await batches.create(requests=requests(1))
        with pytest.raises(anthropic.NotFoundError):
            await batches.retrieve(batch.id)
        assert (await batches.list()).data == []
        await claude.post("clock", advance=5)
        assert (await batches.retrieve(batch.id)).processing_status == "ended"
        assert [each.id for each in (await batches.list()).data] == [batch.id]


@pytest.mark.parametrize(("hits", "least", "most"), [(1, 39, 39), (0, 0, 0), (0.5, 10, 30)])
async def test_caching_inside_a_batch_is_best_effort_and_shared_with_single_requests(
    hits, least, most
):
    system = [
        {"type": "text", "text": "s" * 8_000, "cache_control": {"type": "ephemeral", "ttl": "1h"}}
    ]
    async with stand_in(clock=lambda: NOON) as claude:
        await claude.post("batches", cache_hits=hits)
        batch = await ended(claude, requests(40, system=system))
        usages = [each.message.usage for each in (await results(claude, batch.id)).values()]
        single = await claude.create("What else?", system=system)
    reads = [usage for usage in usages if usage.cache_read_input_tokens]
    assert least <= len(reads) <= most
    for usage in usages:
        written = usage.cache_creation.ephemeral_1h_input_tokens
        assert {usage.cache_read_input_tokens, written} == {0, 2_000}
    assert single.usage.cache_read_input_tokens == 2_000


async def test_the_journal_has_each_served_item_to_the_token():
    async with stand_in(key="sk-ant-test-abcd", clock=lambda: NOON) as claude:
        await claude.order("refusal", match='"item-3"')
        await claude.order("midstream_refusal", match='"item-4"')
        await claude.order("compaction", match='"item-5"')
        await claude.order("item_errored", match='"item-6"')
        single = await claude.create("A single one")
        batch = await ended(claude, requests(10))
        unread = await claude.get("totals")
        found = await results(claude, batch.id)
        rows, totals = await claude.rows(), await claude.get("totals")
    assert rows[0]["message_id"] == single.id
    by_id = {row["custom_id"]: row for row in rows[1:]}
    assert by_id.keys() == found.keys() - {"item-6"}
    for custom_id, row in by_id.items():
        message = found[custom_id].message
        assert row["message_id"] == message.id
        assert row["usage"] == message.usage.to_dict()
        assert (row["model"], row["stop_reason"]) == (message.model, message.stop_reason)
        assert (row["batch_id"], row["key_last4"]) == (batch.id, "abcd")
        assert row["served_at"] == batch.ended_at.timestamp()
        assert row["delivered"] == "yes"
    assert set(by_id["item-3"]["billable"].values()) == {0}
    assert found["item-4"].message.stop_reason == "refusal"
    assert by_id["item-4"]["billable"]["output"] == found["item-4"].message.usage.output_tokens
    assert by_id["item-5"]["billable"]["input"] == 5_000 + by_id["item-5"]["usage"]["input_tokens"]
    for kind in ("input", "output", "cache_read", "cache_write_5m", "cache_write_1h"):
        assert totals["served"][kind] == sum(row["served"][kind] for row in rows)
        assert totals["billable"][kind] == sum(row["billable"][kind] for row in rows)
        assert totals["billable_in_batches"][kind] == sum(
            row["billable"][kind] for row in by_id.values()
        )
    assert [totals[name]["requests"] for name in ("served", "billable", "billable_in_batches")] == [
        10, 9, 8,
    ]  # fmt: skip
    assert unread["billable_by_delivery"]["unknown"] == totals["billable_in_batches"]
    assert totals["billable_by_delivery"]["yes"] == totals["billable"]


async def test_a_clock_that_was_set_stands_still():
    async with stand_in(clock=lambda: NOON) as claude:
        assert await claude.get("clock") == {"now": NOON, "running": True}
        assert await claude.post("clock", advance=90) == {"now": NOON + 90, "running": False}
        assert await claude.post("clock", now=NOON + 99) == {"now": NOON + 99, "running": False}
        for wrong in (
            {},
            {"now": 1, "advance": 1},
            {"now": "soon"},
            {"advance": -1},
            {"now": NOON},
        ):
            answer = await claude.control.post("/_sandbox/clock", json=wrong)
            assert answer.status_code == 400
        assert await claude.get("clock") == {"now": NOON + 99, "running": False}
