"""Batches with faults: lost creates and their twins, items that fail, files that are cut."""

import asyncio
import json
from collections import Counter

import anthropic
import httpx
import httpx2
import pytest

from tests.sandbox.claude_batches import HEADERS, NOON, counts, ended, requests, results
from tests.sandbox.claude_stand_in import StandIn, ask, stand_in

CREATE = "POST /v1/messages/batches?"
RESULTS = "/results?"


async def test_a_create_whose_answer_is_lost_has_made_a_batch_and_a_second_makes_a_twin():
    async with stand_in(clock=lambda: NOON) as claude:
        batches = claude.client.messages.batches
        await claude.order("undelivered", match=CREATE)
        with pytest.raises(anthropic.APIConnectionError):
            await batches.create(requests=requests(4))
        (lost,) = (await batches.list()).data
        assert counts(lost) == {"processing": 4}
        assert lost.created_at.timestamp() == NOON
        twin = await batches.create(requests=requests(4))
        assert [each.id for each in (await batches.list()).data] == [twin.id, lost.id]
        await claude.post("clock", advance=60)
        totals = await claude.get("totals")
    assert totals["billable"]["requests"] == 8, "both are served, and both are billed"


async def test_a_batch_may_land_after_its_client_has_given_up():
    async with stand_in() as claude:
        batches = claude.client.messages.batches
        await claude.order("slow", match=CREATE, seconds=1.5)
        with pytest.raises(anthropic.APITimeoutError):
            await batches.create(requests=requests(2), timeout=0.2)
        assert (await batches.list()).data == []
        async with asyncio.timeout(30):
            while not (await batches.list()).data:
                pass


@pytest.mark.parametrize(
    ("fault", "raised"),
    [
        ("rate_limited", anthropic.RateLimitError),
        ("error_500", anthropic.InternalServerError),
        ("error_529", anthropic.OverloadedError),
        ("reset", anthropic.APIConnectionError),
    ],
)
async def test_a_refused_create_makes_no_batch(fault, raised):
    async with stand_in() as claude:
        batches = claude.client.messages.batches
        await claude.order(fault, match=CREATE)
        await claude.create("a single request passes a rule for batches by")
        with pytest.raises(raised):
            await batches.create(requests=requests(2))
        assert (await batches.list()).data == []
        assert (await batches.create(requests=requests(2))).id


async def test_a_batch_is_there_while_its_create_is_held_before_the_answer():
    async with stand_in() as claude:
        batches = claude.client.messages.batches
        before = await claude.hold(match='"item-1"', at="received")
        after = await claude.hold(match='"item-1"', at="served")
        asked = asyncio.create_task(batches.create(requests=requests(2)))
        await claude.caught(before)
        assert (await batches.list()).data == []
        await claude.control.delete(f"/_sandbox/holds/{before}")
        await claude.caught(after)
        (there,) = (await batches.list()).data
        assert not asked.done()
        await claude.control.delete(f"/_sandbox/holds/{after}")
        assert (await asked).id == there.id


async def test_shares_of_items_fail_each_in_its_way_and_the_same_when_repeated():
    rates = {"item_errored": 0.2, "item_invalid": 0.1, "item_expired": 0.1, "refusal": 0.2}
    fates = []
    for _ in range(2):
        async with stand_in(clock=lambda: NOON) as claude:
            await claude.post("faults", rates=rates, seed=7)
            batch = await ended(claude, requests(400))
            found = await results(claude, batch.id)
            totals = await claude.get("totals")
            again = await ended(claude, requests(400))
            second = await results(claude, again.id)
        fates.append({name: _fate(result) for name, result in found.items()})
    assert fates[0] == fates[1]
    tally = Counter(fates[0].values())
    assert tally.keys() == {
        "overloaded_error", "invalid_request_error", "expired", "refusal", "end_turn",
    }  # fmt: skip
    for fate, share in (
        ("overloaded_error", 0.2),
        ("invalid_request_error", 0.1),
        ("expired", 0.1),
        ("refusal", 0.2),
    ):
        assert share / 2 < tally[fate] / 400 < share * 2
    assert counts(batch)["succeeded"] == tally["refusal"] + tally["end_turn"]
    assert totals["billable"]["requests"] == tally["end_turn"], "refusals without content are free"
    failed = [name for name, fate in fates[0].items() if fate == "overloaded_error"]
    assert any(second[name].type == "succeeded" for name in failed), "sent again it draws anew"


def _fate(result) -> str:
    if result.type == "succeeded":
        return result.message.stop_reason
    return result.error.error.type if result.type == "errored" else result.type


async def test_an_item_is_hit_by_its_rule_and_a_rule_for_items_is_spent_on_nothing_else():
    async with stand_in(clock=lambda: NOON) as claude:
        await claude.order("item_errored", error="api_error")
        await claude.order("cut_results")
        assert (await claude.create()).stop_reason == "end_turn"
        batch = await ended(claude, requests(3))
        await claude.control.delete("/_sandbox/faults")
        found = await results(claude, batch.id)
    assert [result.type for result in found.values()].count("errored") == 1
    assert found["item-0"].error.error.type == "api_error"


async def test_the_file_of_results_can_be_cut_at_any_byte():
    async with stand_in(clock=lambda: NOON) as claude:
        batch = await ended(claude, requests(3))
        url = batch.results_url
        whole = (await claude.control.get(url, headers=HEADERS)).content
        first = whole.index(b"\n") + 1
        ends = {first, whole.index(b"\n", first) + 1, len(whole)}
        await claude.control.delete("/_sandbox/faults")
        for cut in sorted({0, 1, *range(5, len(whole), 301), *ends}):
            for fault, error in (
                ({"fault": "cut_results", "how": "reset"}, httpx.ReadError),
                ({"fault": "cut_results", "how": "close"}, httpx.RemoteProtocolError),
                ({"fault": "truncated_results"}, None),
            ):
                await claude.order(**fault, match=RESULTS, after_bytes=cut)
                assert await _read(claude.control, url) == (whole[:cut], error)
        assert await _read(claude.control, url) == (whole, None)


async def _read(http: httpx.AsyncClient, url: str) -> tuple[bytes, type[Exception] | None]:
    """What arrived of an answer, and how it broke off."""
    arrived = b""
    try:
        async with http.stream("GET", url, headers=HEADERS) as answer:
            async for chunk in answer.aiter_raw():
                arrived += chunk
    except httpx.TransportError as error:
        return arrived, type(error)
    return arrived, None


async def test_the_sdk_sees_each_kind_of_cut_in_its_own_way():
    async with stand_in(clock=lambda: NOON) as claude:
        batch = await ended(claude, requests(300))
        for fault, options, raised in (
            ("cut_results", {"how": "reset"}, httpx2.ReadError),
            ("cut_results", {"how": "close"}, httpx2.RemoteProtocolError),
            ("truncated_results", {"after_bytes": 20_011}, json.JSONDecodeError),
        ):
            seen: set[str] = set()
            await claude.order(fault, match=RESULTS, **options)
            with pytest.raises(raised):
                await _read_into(seen, claude, batch.id)
            assert 0 < len(seen) < 300
        await claude.order("truncated_results", match=RESULTS)
        cut = await results(claude, batch.id)
        assert len(cut) == 100, "a cut behind a line ends in silence"
        unread = await claude.get("totals")
        assert unread["billable_by_delivery"]["yes"]["requests"] == 0
        assert len(await results(claude, batch.id)) == 300
        totals = await claude.get("totals")
    assert totals["billable_by_delivery"]["yes"]["requests"] == 300


async def _read_into(seen: set[str], claude: StandIn, batch_id: str, **how: float) -> None:
    async for line in await claude.client.messages.batches.results(batch_id, **how):
        seen.add(line.custom_id)


async def test_results_may_stall_or_be_refused_and_come_whole_the_next_time():
    async with stand_in(clock=lambda: NOON) as claude:
        batch = await ended(claude, requests(120))
        await claude.order("stalled_results", match=RESULTS, seconds=30)
        await claude.order("error_503", match=RESULTS)
        await claude.order("error_404", match=f"GET /v1/messages/batches/{batch.id}?")
        seen: set[str] = set()
        with pytest.raises(anthropic.NotFoundError):
            await claude.client.messages.batches.retrieve(batch.id)
        with pytest.raises(httpx2.ReadTimeout):
            await _read_into(seen, claude, batch.id, timeout=0.5)
        assert 90 < len(seen) <= 100
        with pytest.raises(anthropic.ServiceUnavailableError):
            await claude.client.messages.batches.results(batch.id)
        assert len(await results(claude, batch.id)) == 120


@pytest.mark.parametrize("at", ["received", "served"])
async def test_a_cancel_whose_answer_is_lost_may_or_may_not_have_canceled(at):
    fault = "reset" if at == "received" else "undelivered"
    async with stand_in(clock=lambda: NOON) as claude:
        batches = claude.client.messages.batches
        await claude.post("batches", items_per_second=1, in_flight=0)
        batch = await batches.create(requests=requests(5))
        await claude.order(fault, match="/cancel?")
        with pytest.raises(anthropic.APIConnectionError):
            await batches.cancel(batch.id)
        await claude.post("clock", advance=60)
        late = await batches.retrieve(batch.id)
    assert counts(late) == ({"succeeded": 5} if at == "received" else {"canceled": 5})


async def test_single_requests_and_batches_share_the_faults_of_replies():
    async with stand_in(clock=lambda: NOON) as claude:
        await claude.order("refusal", match="decline this", times=2)
        single = await claude.create("decline this")
        batch = await ended(claude, [{"custom_id": "a", "params": ask("decline this")}])
        found = await results(claude, batch.id)
    assert single.content == found["a"].message.content == []
    assert found["a"].message.stop_reason == "refusal"
