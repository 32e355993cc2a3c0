"""Faults on demand: what each does to the SDK, and what the journal says of it."""

import anthropic
import pytest

from tallystick.sandbox.faults import BadFaultOrderError, FaultOrder
from tests.sandbox.claude_stand_in import MODEL, ask, stand_in


@pytest.mark.parametrize(
    ("fault", "raised", "status", "kind"),
    [
        ("error_400", anthropic.BadRequestError, 400, "invalid_request_error"),
        ("error_401", anthropic.AuthenticationError, 401, "authentication_error"),
        ("error_402", anthropic.PaymentRequiredError, 402, "billing_error"),
        ("error_403", anthropic.PermissionDeniedError, 403, "permission_error"),
        ("error_500", anthropic.InternalServerError, 500, "api_error"),
        ("error_503", anthropic.ServiceUnavailableError, 503, "api_error"),
        ("error_529", anthropic.OverloadedError, 529, "overloaded_error"),
        ("rate_limited", anthropic.RateLimitError, 429, "rate_limit_error"),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
async def test_an_error_on_demand_raises_its_class_and_serves_nothing(
    fault, raised, status, kind, stream
):
    async with stand_in() as claude:
        await claude.order(fault)
        with pytest.raises(raised) as caught:
            await claude.create(stream=stream)
        assert caught.value.status_code == status
        assert caught.value.type == kind
        assert caught.value.error_code is None
        assert caught.value.request_id == caught.value.response.headers["request-id"]
        totals = await claude.get("totals")
        assert totals["served"]["requests"] == 0
        assert totals["not_served"] == {f"{status} {kind}": 1}


async def test_a_rate_limit_says_when_to_come_back_and_a_spend_limit_does_not():
    async with stand_in() as claude:
        await claude.order("rate_limited", retry_after=7)
        await claude.order("spend_limit")
        await claude.order("spend_limit", code="contract_spend_limit_reached")
        with pytest.raises(anthropic.RateLimitError) as rate:
            await claude.create()
        with pytest.raises(anthropic.EnforcedSpendLimitReachedError) as enforced:
            await claude.create()
        with pytest.raises(anthropic.ContractSpendLimitReachedError):
            await claude.create()
    assert rate.value.response.headers["retry-after"] == "7"
    assert enforced.value.error_code == "enforced_spend_limit_reached"
    assert "retry-after" not in enforced.value.response.headers


async def test_a_reset_before_the_work_serves_nothing():
    async with stand_in() as claude:
        await claude.order("reset")
        with pytest.raises(anthropic.APIConnectionError):
            await claude.create()
        totals = await claude.get("totals")
    assert totals["served"]["requests"] == 0
    assert totals["not_served"] == {"connection reset": 1}


@pytest.mark.parametrize("stream", [False, True])
async def test_a_reply_may_be_served_and_never_delivered(stream):
    async with stand_in() as claude:
        await claude.order("undelivered")
        with pytest.raises(anthropic.APIConnectionError):
            await claude.create(stream=stream)
        (row,) = await claude.rows()
        totals = await claude.get("totals")
    assert row["delivered"] == "no"
    assert row["usage"]["output_tokens"] > 0
    assert totals["billable"]["requests"] == 1
    assert totals["billable_by_delivery"]["no"] == totals["billable"]


async def test_a_slow_answer_lands_after_the_client_has_given_up():
    async with stand_in(timeout=0.2) as claude:
        await claude.order("slow", seconds=0.6)
        with pytest.raises(anthropic.APITimeoutError):
            await claude.create()
        assert await claude.rows() == []
        (row,) = await claude.settled(1)
    assert row["delivered"] == "no"


async def test_a_refusal_without_output_is_free_although_usage_shows_tokens():
    async with stand_in() as claude:
        await claude.order("refusal", times=2)
        reply = await claude.create("x" * 400)
        async with claude.client.messages.stream(**ask("x" * 400)) as stream:
            streamed = await stream.get_final_message()
        totals = await claude.get("totals")
    for each in (reply, streamed):
        assert each.content == []
        assert each.stop_reason == "refusal"
        assert each.stop_details.type == "refusal"
        assert (each.usage.input_tokens, each.usage.output_tokens) == (100, 1)
    assert set(totals["billable"].values()) == {0}
    assert (totals["served"]["input"], totals["served"]["output"]) == (200, 2)


async def test_a_refusal_in_the_middle_is_billed_for_what_came_out():
    async with stand_in() as claude:
        plain = await claude.create()
        await claude.order("midstream_refusal", times=2)
        reply = await claude.create()
        async with claude.client.messages.stream(**ask()) as stream:
            streamed = await stream.get_final_message()
        rows = await claude.rows()
    assert reply.stop_reason == streamed.stop_reason == "refusal"
    assert 0 < reply.usage.output_tokens < plain.usage.output_tokens
    assert streamed.usage.output_tokens == reply.usage.output_tokens
    assert plain.content[0].text.startswith(reply.content[0].text)
    assert rows[1]["billable"]["output"] == reply.usage.output_tokens


async def test_a_response_may_differ_from_its_request():
    async with stand_in() as claude:
        told = {
            "model": "claude-opus-5-5",
            "inference_geo": "us",
            "speed": "fast",
            "service_tier": "priority",
        }
        await claude.order("differs", **told)
        await claude.order("unknown_model")
        reply = await claude.create()
        unheard = await claude.create()
        rows = await claude.rows()
    usage = reply.usage
    got = (reply.model, usage.inference_geo, usage.speed, usage.service_tier)
    assert got == tuple(told.values())
    assert unheard.model not in anthropic.types.model.Model.__args__
    assert [row["model"] for row in rows] == [reply.model, unheard.model]


async def test_iterations_outside_the_top_level_are_billed_too():
    async with stand_in() as claude:
        await claude.order("compaction", input_tokens=5_000, output_tokens=400)
        await claude.order(
            "advisor", model="claude-opus-5-5", input_tokens=2_000, output_tokens=300
        )
        compacted = await claude.create("x" * 400)
        advised = await claude.create("x" * 400)
        rows = await claude.rows()
    for reply, row, kind, extra in (
        (compacted, rows[0], "compaction", (5_000, 400)),
        (advised, rows[1], "advisor_message", (2_000, 300)),
    ):
        entries = {each["type"]: each for each in reply.usage.to_dict()["iterations"]}
        assert set(entries) == {"message", kind}
        assert entries["message"]["input_tokens"] == reply.usage.input_tokens == 100
        assert (entries[kind]["input_tokens"], entries[kind]["output_tokens"]) == extra
        assert row["billable"]["input"] == 100 + extra[0]
        assert row["billable"]["output"] == reply.usage.output_tokens + extra[1]
    assert "model" not in compacted.usage.to_dict()["iterations"][0]
    assert advised.usage.to_dict()["iterations"][1]["model"] == "claude-opus-5-5"


async def test_a_fallback_names_each_attempt_and_charges_for_output_only():
    async with stand_in() as claude:
        await claude.order("fallback", model="claude-opus-4-8")
        await claude.order("fallback", model="claude-opus-4-8", declined_output=50)
        free = await claude.client.beta.messages.create(**ask("x" * 400))
        charged = await claude.client.beta.messages.create(**ask("x" * 400))
        rows = await claude.rows()
    assert free.model == "claude-opus-4-8"
    assert [each.type for each in free.content] == ["fallback", "text"]
    kinds = [(each.type, each.model) for each in free.usage.iterations]
    assert kinds == [("message", MODEL), ("fallback_message", "claude-opus-4-8")]
    assert rows[0]["billable"]["input"] == 100
    assert rows[0]["served"]["input"] == 200
    assert rows[1]["billable"]["input"] == 200
    assert rows[1]["billable"]["output"] == charged.usage.output_tokens + 50


async def test_streamed_iterations_appear_only_at_the_end_and_only_in_beta():
    async with stand_in() as claude:
        await claude.order("fallback", times=None)
        async with claude.client.beta.messages.stream(**ask()) as stream:
            events = [event async for event in stream]
            beta = await stream.get_final_message()
        async with claude.client.messages.stream(**ask()) as stream:
            general = await stream.get_final_message()
    start = next(event for event in events if event.type == "message_start")
    assert start.message.model == MODEL
    assert start.message.usage.iterations is None
    assert len(beta.usage.iterations) == 2
    assert "iterations" not in general.usage.to_dict()


async def test_a_rule_hits_only_bodies_with_its_text_and_only_so_often():
    async with stand_in() as claude:
        await claude.order("error_529", match="poison", times=2)
        assert (await claude.create("harmless")).stop_reason == "end_turn"
        for _ in range(2):
            with pytest.raises(anthropic.OverloadedError):
                await claude.create("a poison b")
        assert (await claude.create("a poison b")).stop_reason == "end_turn"


async def test_deleting_the_faults_ends_them():
    async with stand_in(faults=FaultOrder(rates={"error_500": 1.0})) as claude:
        with pytest.raises(anthropic.InternalServerError):
            await claude.create()
        assert (await claude.control.delete("/_sandbox/faults")).status_code == 200
        assert (await claude.create()).stop_reason == "end_turn"


async def outcomes(claude, numbers):
    hit = {}
    for number in numbers:
        try:
            await claude.create(f"request {number}")
            hit[number] = None
        except anthropic.APIStatusError as error:
            hit[number] = error.status_code
    return hit


async def test_rates_repeat_with_the_seed_in_any_order_and_a_retry_draws_anew():
    order = FaultOrder(rates={"error_529": 0.3, "error_500": 0.2}, seed=5)
    async with stand_in(faults=order) as one, stand_in(faults=order) as two:
        first = await outcomes(one, range(60))
        assert await outcomes(two, reversed(range(60))) == first
        again = await outcomes(one, range(60))
    other = FaultOrder(rates=order.rates, seed=6)
    async with stand_in(faults=other) as three:
        assert await outcomes(three, range(60)) != first
    assert again != first
    hits = list(first.values())
    assert 8 <= hits.count(529) <= 28
    assert 4 <= hits.count(500) <= 22


async def test_a_wrong_order_is_refused_in_words_and_arms_nothing():
    with pytest.raises(BadFaultOrderError, match="no fault 'nonsense'"):
        async with stand_in(faults=FaultOrder(rates={"nonsense": 0.5})):
            pass
    async with stand_in() as claude:
        for body, words in (
            ({"rules": [{"fault": "error_500"}, {"fault": "nonsense"}]}, "no fault 'nonsense'"),
            ({"rules": [{"fault": "slow", "options": {"minutes": 1}}]}, "slow: minutes"),
            ({"rules": [{"fault": "differs"}]}, "say what differs"),
            ({"rates": {"differs": 0.5}}, "say what differs"),
            ({"rates": {"error_500": 0.6, "error_529": 0.6}}, "more than 1"),
            ({"rules": [{"fault": "reset", "times": 0}]}, "times"),
            ({"rulez": []}, "rulez"),
        ):
            answer = await claude.control.post("/_sandbox/faults", json=body)
            assert answer.status_code == 400, body
            assert words in answer.text
        assert (await claude.get("faults"))["rules"] == []
        assert (await claude.create()).stop_reason == "end_turn"


async def test_every_fault_explains_its_options():
    async with stand_in() as claude:
        known = (await claude.get("faults"))["known"]
    assert "retry_after" in known["rate_limited"]["properties"]
    assert all(schema.get("description") for schema in known.values())
