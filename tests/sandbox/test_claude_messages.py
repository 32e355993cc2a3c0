"""The Messages API as the unmodified SDK sees it: replies, refusals by status, headers."""

import anthropic
import httpx
import pytest

from tallystick.sandbox.claude.bodies import CountedBody, MessagesBody
from tallystick.sandbox.claude.http import MAX_BODY
from tests.sandbox.claude_stand_in import MODEL, ask, stand_in


async def test_a_reply_is_a_message_with_its_whole_usage():
    async with stand_in() as claude:
        raw = await claude.client.messages.with_raw_response.create(**ask("x" * 400))
        message = await raw.parse()
    assert message.type == "message"
    assert message.role == "assistant"
    assert message.model == MODEL
    assert message.stop_reason == "end_turn"
    assert message.id.startswith("msg_")
    text = message.content[0].text
    usage = message.usage.to_dict()
    assert usage == {
        "input_tokens": 100,
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": 0,
        "cache_creation": {"ephemeral_5m_input_tokens": 0, "ephemeral_1h_input_tokens": 0},
        "output_tokens": -(-len(text) // 4),
        "output_tokens_details": {"thinking_tokens": 0},
        "server_tool_use": None,
        "service_tier": "standard",
        "inference_geo": "global",
        "speed": "standard",
    }
    assert raw.headers["request-id"] == message._request_id
    for kind in ("requests", "tokens", "input-tokens", "output-tokens"):
        for what in ("limit", "remaining", "reset"):
            assert f"anthropic-ratelimit-{kind}-{what}" in raw.headers


async def test_the_same_request_gets_the_same_answer_under_a_new_id():
    async with stand_in() as claude:
        first, second = await claude.create("hello"), await claude.create("hello")
        other = await claude.create("something else")
    assert first.content == second.content
    assert first.id != second.id
    assert first._request_id != second._request_id
    assert other.content != first.content


async def test_output_grows_with_max_tokens_up_to_what_the_prompt_deserves():
    async with stand_in() as claude:
        replies = [await claude.create(max_tokens=limit) for limit in (0, 7, 30, 1_000, 2_000)]
    outputs = [reply.usage.output_tokens for reply in replies]
    assert outputs[:3] == [0, 7, 30]
    assert 30 < outputs[3] == outputs[4] <= 400
    reasons = [reply.stop_reason for reply in replies]
    assert reasons == ["max_tokens", "max_tokens", "max_tokens", "end_turn", "end_turn"]
    assert replies[0].content == []


async def test_counting_agrees_with_what_is_then_used():
    system = [{"type": "text", "text": "Be brief, please."}]
    tools = [{"name": "look", "description": "Look it up", "input_schema": {"type": "object"}}]
    messages = [
        {"role": "user", "content": "Look at this"},
        {
            "role": "assistant",
            "content": [{"type": "tool_use", "id": "t1", "name": "look", "input": {}}],
        },
        {
            "role": "user",
            "content": [
                {"type": "tool_result", "tool_use_id": "t1", "content": "y" * 41},
                {
                    "type": "image",
                    "source": {"type": "base64", "media_type": "image/png", "data": "aGk="},
                },
            ],
        },
    ]
    async with stand_in() as claude:
        counted = await claude.client.messages.count_tokens(
            model=MODEL, system=system, tools=tools, messages=messages
        )
        reply = await claude.client.messages.create(
            model=MODEL, max_tokens=10, system=system, tools=tools, messages=messages
        )
        assert counted.input_tokens == reply.usage.input_tokens
        assert counted.input_tokens > 1_500
        assert len(await claude.rows()) == 1, "counting serves nothing"


async def test_a_prompt_can_be_put_exactly_on_the_price_cliff():
    async with stand_in() as claude:
        for size in (100_000, 100_001):
            reply = await claude.create("z" * (4 * size), model="claude-haiku-5-5", max_tokens=1)
            assert reply.usage.input_tokens == size


async def test_an_alias_answers_as_its_dated_model():
    async with stand_in() as claude:
        reply = await claude.create(model="claude-haiku-4-5")
    assert reply.model == "claude-haiku-4-5-20251001"
    assert reply.usage.inference_geo == "not_available"


async def test_geography_and_speed_that_were_asked_for_are_told_in_the_response():
    async with stand_in() as claude:
        reply = await claude.create(inference_geo="us", speed="fast")
        assert (reply.usage.inference_geo, reply.usage.speed) == ("us", "fast")
        with pytest.raises(anthropic.BadRequestError, match="inference_geo"):
            await claude.create(model="claude-opus-4-5", inference_geo="us")


@pytest.mark.parametrize(
    ("change", "names"),
    [
        ({"max_tokens": None}, "max_tokens"),
        ({"messages": []}, "messages"),
        ({"messages": None}, "messages"),
        ({"model": None}, "model"),
        ({"max_tokens": -1}, "max_tokens"),
        ({"max_tokens": "100"}, "max_tokens"),
        ({"max_tokens": 1_000_000}, "max_tokens"),
        ({"messages": [{"role": "robot", "content": "hi"}]}, "messages.0.role"),
        ({"messages": [{"role": "user", "content": ""}]}, "messages.0.content"),
        (
            {"messages": [{"role": "user", "content": [{"text": "hi"}]}]},
            "messages.0.content.0.type",
        ),
        ({"messages": [{"role": "user", "content": [{"type": "text", "text": ""}]}]}, "non-empty"),
        ({"temperature": 1.0}, "temperature"),
        ({"top_p": 1.0}, "top_p"),
        ({"top_k": 5}, "top_k"),
        ({"customer_id": "acme"}, "customer_id"),
        ({"messages": [{"role": "assistant", "content": [{"type": "document"}]}]}, "document"),
        (
            {
                "messages": [
                    {"role": "user", "content": [{"type": "text", "text": "a", "citations": [1]}]}
                ]
            },
            "citations",
        ),
    ],
)
async def test_a_malformed_body_is_refused_by_field(change, names):
    body = {key: value for key, value in {**ask(), **change}.items() if value is not None}
    async with stand_in() as claude:
        with pytest.raises(anthropic.BadRequestError) as caught:
            await claude.client.post("/v1/messages", cast_to=object, body=body)
        assert names in caught.value.message
        assert caught.value.type == "invalid_request_error"
        assert caught.value.request_id.startswith("req_")
        assert await claude.rows() == []
        assert (await claude.get("totals"))["not_served"] == {"400 invalid_request_error": 1}


def test_every_parameter_that_the_sdk_knows_is_accepted():
    general, beta = anthropic.types, anthropic.types.beta
    for body, known in (
        (MessagesBody, general.message_create_params.MessageCreateParamsBase),
        (MessagesBody, beta.message_create_params.MessageCreateParamsBase),
        (CountedBody, general.MessageCountTokensParams),
        (CountedBody, beta.MessageCountTokensParams),
    ):
        assert set(known.__annotations__) - {"betas"} <= set(body.model_fields), known


async def test_an_unknown_model_is_not_found():
    async with stand_in() as claude:
        with pytest.raises(anthropic.NotFoundError) as caught:
            await claude.create(model="claude-sonnet-4")
        assert caught.value.type == "not_found_error"


async def test_a_request_without_bearer_or_version_is_refused():
    async with stand_in() as claude:
        url = f"{claude.url}/v1/messages"
        bearer = {"authorization": "Bearer k", "anthropic-version": "2026-10-21"}
        async with httpx.AsyncClient(timeout=60) as plain:
            old = await plain.post(
                url, json=ask(), headers={**bearer, "authorization": "", "x-api-key": "k"}
            )
            unversioned = await plain.post(url, json=ask(), headers={"authorization": "Bearer k"})
            fine = await plain.post(url, json=ask(), headers=bearer)
            garbled = await plain.post(url, content=b"{", headers=bearer)
    assert old.status_code == 401
    assert old.json()["error"]["type"] == "authentication_error"
    assert old.json()["request_id"] == old.headers["request-id"]
    assert unversioned.status_code == 400
    assert "anthropic-version" in unversioned.json()["error"]["message"]
    assert fine.status_code == 200
    assert garbled.status_code == 400


async def test_a_body_over_32_megabytes_is_too_large():
    async with stand_in() as claude:
        with pytest.raises(anthropic.APIStatusError) as caught:
            await claude.create("x" * (MAX_BODY + 1))
        assert caught.value.status_code == 413
        assert (await claude.create("still there")).stop_reason == "end_turn"


async def test_the_models_are_listed_and_found():
    async with stand_in() as claude:
        listed = [model.id async for model in claude.client.models.list()]
        one = await claude.client.models.retrieve(MODEL)
        with pytest.raises(anthropic.NotFoundError):
            await claude.client.models.retrieve("claude-1")
    assert MODEL in listed
    assert one.id == MODEL


async def test_a_route_that_is_not_there_answers_in_the_apis_manner():
    async with stand_in() as claude:
        with pytest.raises(anthropic.NotFoundError) as caught:
            await claude.client.post("/v1/nothing", cast_to=object, body={})
    assert caught.value.type == "not_found_error"
