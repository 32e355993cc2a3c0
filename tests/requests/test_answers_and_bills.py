"""What an answered request leaves behind: a reply, a bill, a record, and events at Stripe."""

from decimal import Decimal

from tallystick.ledger import reports
from tallystick.metering import CHARGE_METER
from tests.support.house import House

ORDINARY_PATH = 21
"""History events of a request that goes well (what the design aims at)."""


async def test_an_answer_comes_with_its_bill(house: House) -> None:
    reply = await house.ask("r-1")
    (record,) = await house.records("r-1")
    assert reply.content[0].type == "text"
    assert reply.request_id == "r-1"
    assert reply.bill.cost_usd == sum(line.amount_usd for line in reply.bill.lines)
    # sonnet-5-5: $2 in, $10 out a million; the plan pass-through adds 20 %.
    cost = Decimal(2 * reply.usage.input_tokens + 10 * reply.usage.output_tokens) / 1_000_000
    assert reply.bill.cost_usd == cost == record.cost_usd
    assert reply.bill.charge_usd == cost * Decimal("1.2")
    assert record.charge_nano_usd == int(cost * Decimal("1.2") * 10**9)


async def test_the_same_request_returns_the_first_reply_and_bill(house: House) -> None:
    first = await house.ask("r-1")
    await house.done("r-1")
    again = await house.ask("r-1")
    assert (again.id, again.bill) == (first.id, first.bill)
    assert len(await house.claude.journal()) == 1
    assert len(await house.records("r-1")) == 1


async def test_the_record_holds_the_evidence_and_no_text(house: House) -> None:
    reply = await house.ask(
        "r-1", conversation_id="c-9", customer_metadata={"team": "blue"}, max_tokens=5
    )
    (record,) = await house.records("r-1")
    (attempt,) = await house.attempts("r-1")
    assert record.customer_id == house.customer
    assert record.conversation_id == "c-9"
    assert record.caller_metadata == {"team": "blue"}
    assert record.attempts == 1
    assert record.message_id == reply.id == attempt.message_id
    assert record.claude_request_id == attempt.claude_request_id
    assert record.claude_request_id is not None
    assert record.stop_reason == "max_tokens"
    assert record.partial
    assert record.output_tokens == reply.usage.output_tokens == 5
    assert record.prompt_chars > 0
    assert record.response_chars == len(reply.content[0].text)  # type: ignore[union-attr]
    assert record.price_book == reply.bill.price_book
    assert record.evidence["usage"]["output_tokens"] == 5
    assert reply.content[0].text not in str(record.model_dump())  # type: ignore[union-attr]
    assert attempt.reply is None
    assert attempt.usage == record.evidence["usage"]


async def test_every_token_kind_is_recorded_and_metered_on_its_own(house: House) -> None:
    long = "tally " * 3_000
    system = [
        {"type": "text", "text": long, "cache_control": {"type": "ephemeral", "ttl": "1h"}},
        {"type": "text", "text": long, "cache_control": {"type": "ephemeral"}},
    ]
    await house.ask("writes", system=system)
    await house.ask("reads", system=system)
    await house.done("writes")
    await house.done("reads")
    (writes,), (reads,) = await house.records("writes"), await house.records("reads")
    assert writes.cache_write_1h_tokens > 0
    assert writes.cache_write_5m_tokens > 0
    assert reads.cache_read_tokens == writes.cache_write_1h_tokens + writes.cache_write_5m_tokens
    sums = (await house.stripe.get("totals"))["by_event_name"]
    for kind in ("input", "output", "cache_write_5m", "cache_write_1h", "cache_read"):
        column = f"{kind}_tokens"
        charged = getattr(writes, column) + getattr(reads, column)
        assert int(sums[f"tallystick_{kind}_tokens"]["sum"]) == charged > 0
    charge = int(sums[CHARGE_METER]["sum"])
    assert charge == writes.charge_nano_usd + reads.charge_nano_usd  # type: ignore[operator]


async def test_one_chain_of_ids_joins_customer_to_meter_event(house: House) -> None:
    reply = await house.ask("r-1")
    await house.done("r-1")
    async with house.ledger.begin() as tx:
        (record,) = [row async for row in reports.records(tx, house.customer)]
    accepted = {row["identifier"]: row for row in await house.stripe.journal()}
    assert record["message_id"] == reply.id
    assert len(record["meter_events"]) == 3  # charge, input, output
    for event in record["meter_events"]:
        at_stripe = accepted[event["identifier"]]
        assert at_stripe["customer"] == event["stripe_customer_id"]
        assert int(at_stripe["value"]) == event["value"]
        assert at_stripe["effective"]
        assert event["delivered_at"] is not None


async def test_a_meter_event_is_dated_by_the_instant_of_use(house: House) -> None:
    await house.ask("r-1")
    await house.done("r-1")
    (record,) = await house.records("r-1")
    served = int(record.served_at.timestamp())
    assert {row["timestamp"] for row in await house.stripe.journal()} == {served}


async def test_a_long_answer_is_streamed_and_bills_alike(house: House) -> None:
    await house.ask("whole", max_tokens=20_000, messages=[{"role": "user", "content": "same"}])
    await house.ask("streamed", max_tokens=30_000, messages=[{"role": "user", "content": "same"}])
    (whole,), (streamed,) = await house.records("whole"), await house.records("streamed")
    served = {row["message_id"]: row["streamed"] for row in await house.claude.journal()}
    assert served == {whole.message_id: False, streamed.message_id: True}
    assert streamed.cost_usd == whole.cost_usd
    assert streamed.response_chars == whole.response_chars


async def test_a_streamed_answer_keeps_cache_writes_by_lifetime(house: House) -> None:
    system = [
        {
            "type": "text",
            "text": "tally " * 3_000,
            "cache_control": {"type": "ephemeral", "ttl": "1h"},
        }
    ]
    await house.ask("r-1", max_tokens=30_000, system=system)
    (record,) = await house.records("r-1")
    assert record.cache_write_1h_tokens > 0
    assert record.cache_write_5m_tokens == 0


async def test_a_refusal_without_output_is_answered_and_not_billed(house: House) -> None:
    await house.claude.order("refusal", match="<r-1>")
    reply = await house.ask("r-1")
    await house.done("r-1")
    (record,) = await house.records("r-1")
    assert reply.stop_reason == "refusal"
    assert reply.bill.status == "not_billed"
    assert (record.cost_usd, record.charge_nano_usd, record.input_tokens) == (0, 0, 0)
    assert record.evidence["usage"]["input_tokens"] > 0
    assert await house.meter_events("r-1") == []
    assert await house.stripe.journal() == []


async def test_a_refusal_after_output_is_billed(house: House) -> None:
    await house.claude.order("midstream_refusal", match="<r-1>")
    reply = await house.ask("r-1")
    assert reply.stop_reason == "refusal"
    assert reply.bill.cost_usd
    assert reply.usage.output_tokens > 0


async def test_a_reply_without_a_price_is_answered_parked_and_never_free(house: House) -> None:
    await house.claude.order("unknown_model", match="<r-1>", model="claude-unheard-of-9")
    reply = await house.ask("r-1")
    await house.done("r-1")
    (record,) = await house.records("r-1")
    assert reply.bill.status == record.status == "unpriced"
    assert (record.cost_usd, record.charge_nano_usd) == (None, None)
    assert "claude-unheard-of-9" in record.reason
    assert await house.meter_events("r-1") == []
    assert await house.billing_state("r-1") == "unpriced"


async def test_the_price_follows_the_reply_and_not_the_request(house: House) -> None:
    await house.claude.order("differs", match="<r-1>", model="claude-haiku-4-5-20251001")
    reply = await house.ask("r-1")
    # haiku-4-5: $1 in, $5 out.
    expected = Decimal(reply.usage.input_tokens + 5 * reply.usage.output_tokens) / 1_000_000
    assert reply.bill.cost_usd == expected


async def test_the_ordinary_path_stays_short_in_history(house: House) -> None:
    await house.ask("r-1")
    await house.done("r-1")
    assert len(await house.events("r-1")) <= ORDINARY_PATH


async def test_a_request_started_by_name_is_served_like_any_other(house: House) -> None:
    handle = await house.temporal.start_workflow(
        "ClaudeRequest",
        {
            "customer_id": house.customer,
            "request_id": "by-name",
            "params": {
                "model": "claude-haiku-5-5",
                "max_tokens": 16,
                "messages": [{"role": "user", "content": "hello"}],
            },
        },
        id=f"claude-request/{house.customer}/by-name",
        task_queue="tallystick",
    )
    early = await handle.execute_update("reply")
    result = await handle.result()
    assert early == result
    assert set(result) == {"request_id", "message", "bill"}
    assert isinstance(result["bill"]["charge_usd"], str)
    attributes = (await handle.describe()).typed_search_attributes
    assert {p.key.name: p.value for p in attributes}["CustomerId"] == house.customer


async def test_an_uncommon_reply_is_billed_alike_whole_and_streamed(house: House) -> None:
    for fault in ("compaction", "advisor", "fallback", "midstream_refusal"):
        replies = {}
        for name, max_tokens in ((f"{fault}-whole", 20_000), (f"{fault}-as-it-comes", 30_000)):
            await house.claude.order(fault, match=f"<{name}>")
            same_prompt = [{"role": "user", "content": f"<{name}>".ljust(40)}]
            replies[name] = await house.ask(name, max_tokens=max_tokens, messages=same_prompt)
        served = {row["message_id"]: row["billable"] for row in await house.claude.journal()}
        for name, reply in replies.items():
            (record,) = await house.records(name)
            assert record.model == reply.model
            assert {line["model"] for line in record.lines} >= {reply.model}
            for kind in ("input", "output"):
                assert getattr(record, f"{kind}_tokens") == served[reply.id][kind]
        whole, streamed = replies.values()
        assert streamed.model == whole.model
        assert [(line.kind, line.model) for line in streamed.bill.lines] == [
            (line.kind, line.model) for line in whole.bill.lines
        ]
