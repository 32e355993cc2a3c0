"""The journal, the totals, the holds and the latency."""

import asyncio
import hashlib

import anthropic
import httpx2
import pytest

from tests.sandbox.claude_stand_in import ask, stand_in

SECRET = "the secret of the prompt"


async def test_a_row_says_what_was_served_and_nothing_of_what_was_said():
    bodies = []

    async def keep(request):
        bodies.append(request.content)

    async with stand_in(key="sk-ant-test-abcd", clock=lambda: 1_800_000_000.0) as claude:
        watched = httpx2.AsyncClient(event_hooks={"request": [keep]})
        client = claude.client.with_options(http_client=watched)
        reply = await client.messages.create(**ask(SECRET, stream=False))
        await watched.aclose()
        answer = await claude.control.get("/_sandbox/journal")
        (row,) = answer.json()["rows"]
    assert row == {
        "request_id": reply._request_id,
        "message_id": reply.id,
        "model": reply.model,
        "served_at": 1_800_000_000.0,
        "usage": reply.usage.to_dict(),
        "served": {
            "input": reply.usage.input_tokens,
            "cache_write_5m": 0,
            "cache_write_1h": 0,
            "cache_read": 0,
            "output": reply.usage.output_tokens,
        },
        "billable": row["served"],
        "stop_reason": "end_turn",
        "streamed": False,
        "delivered": "yes",
        "fault": None,
        "body_sha256": hashlib.sha256(bodies[0]).hexdigest(),
        "key_last4": "abcd",
    }
    assert "secret" not in answer.text
    assert reply.content[0].text[:20] not in answer.text
    assert "sk-ant-test" not in answer.text


async def test_nothing_of_a_prompt_reaches_the_log(caplog):
    caplog.set_level("DEBUG")
    async with stand_in() as claude:
        await claude.create(SECRET)
        await claude.order("error_500")
        with pytest.raises(anthropic.InternalServerError):
            await claude.create(SECRET)
    ours = [
        record for record in caplog.records if not record.name.startswith(("anthropic", "http"))
    ]
    assert not any(SECRET in record.getMessage() for record in ours)


async def test_the_journal_is_paged_in_the_order_served():
    async with stand_in() as claude:
        ids = [(await claude.create(f"{number}")).id for number in range(7)]
        found, after = [], 0
        while after is not None:
            page = await claude.get(f"journal?after={after}&limit=3")
            assert len(page["rows"]) <= 3
            found += [row["message_id"] for row in page["rows"]]
            after = page["next"]
        assert (await claude.control.get("/_sandbox/journal?after=x")).status_code == 400
    assert found == ids


async def test_totals_are_the_sum_of_the_rows():
    system = [{"type": "text", "text": "s" * 8_000, "cache_control": {"type": "ephemeral"}}]
    async with stand_in() as claude:
        await claude.order("refusal", match="refuse me")
        await claude.order("undelivered", match="lose me")
        await claude.order("compaction", match="compact me")
        for text in ("one", "two", "refuse me", "compact me"):
            await claude.create(text, system=system)
        with pytest.raises(anthropic.APIConnectionError):
            await claude.create("lose me", system=system)
        rows, totals = await claude.rows(), await claude.get("totals")
    for kind in ("input", "cache_write_5m", "cache_write_1h", "cache_read", "output"):
        for name in ("served", "billable"):
            assert totals[name][kind] == sum(row[name][kind] for row in rows)
        delivery = totals["billable_by_delivery"]
        assert totals["billable"][kind] == sum(part[kind] for part in delivery.values())
    assert totals["served"]["cache_write_5m"] == 2_000
    assert totals["served"]["cache_read"] == 8_000
    assert (totals["served"]["requests"], totals["billable"]["requests"]) == (5, 4)
    assert totals["billable_by_delivery"]["no"]["requests"] == 1


@pytest.mark.parametrize(("at", "rows_while_held"), [("received", 0), ("served", 1)])
async def test_a_held_request_waits_before_or_after_it_is_served(at, rows_while_held):
    async with stand_in() as claude:
        hold = await claude.hold(match="hold me", at=at)
        asked = asyncio.create_task(claude.create("hold me"))
        await claude.caught(hold)
        assert (await claude.create("not me")).stop_reason == "end_turn"
        rows = [row for row in await claude.rows() if row["delivered"] == "unknown"]
        assert len(rows) == rows_while_held
        assert not asked.done()
        released = await claude.control.delete(f"/_sandbox/holds/{hold}")
        assert released.json() == {"released": 1}
        assert (await asked).stop_reason == "end_turn"
        assert {row["delivered"] for row in await claude.settled(2)} == {"yes"}
        assert (await claude.control.delete(f"/_sandbox/holds/{hold}")).status_code == 404


async def test_a_held_request_whose_client_died_is_served_to_nobody():
    async with stand_in() as claude:
        hold = await claude.hold(times=1)
        asked = asyncio.create_task(claude.create("first"))
        await claude.caught(hold)
        asked.cancel()
        await asyncio.wait([asked])
        assert (await claude.create("second")).stop_reason == "end_turn", "one time only"
        await claude.control.delete("/_sandbox/holds")
        rows = await claude.settled(2)
    assert [row["delivered"] for row in rows] == ["yes", "no"]


async def test_a_stand_in_that_stops_resets_what_it_still_holds():
    async with stand_in() as claude:
        hold = await claude.hold()
        client = anthropic.AsyncAnthropic(api_key="k", base_url=claude.url, max_retries=0)
        asked = asyncio.create_task(client.messages.create(**ask()))
        await claude.caught(hold)
    with pytest.raises(anthropic.APIConnectionError):
        await asked
    await client.close()


async def test_latency_can_be_set_and_taken_back_while_it_runs():
    async with stand_in(timeout=0.2) as claude:
        answer = await claude.control.post("/_sandbox/latency", json={"seconds": 5})
        assert answer.json() == {"seconds": 5.0, "per_token": 0.0}
        with pytest.raises(anthropic.APITimeoutError):
            await claude.create()
        await claude.control.post("/_sandbox/latency", json={"per_token": 5})
        with pytest.raises(anthropic.APITimeoutError):
            await claude.create()
        events = await claude.create(stream=True)
        assert (await anext(events)).type == "message_start"
        assert (await anext(events)).type == "content_block_start"
        with pytest.raises(httpx2.ReadTimeout):
            await anext(events)
        await claude.control.post("/_sandbox/latency", json={})
        assert (await claude.create()).stop_reason == "end_turn"
        assert (await claude.get("latency")) == {"seconds": 0.0, "per_token": 0.0}
        bad = await claude.control.post("/_sandbox/latency", json={"seconds": -1})
        assert bad.status_code == 400
