"""Streams as the SDK accumulates them, whole and broken."""

import anthropic
import httpx2
import pytest

from tallystick.sandbox.claude import Latency
from tests.sandbox.claude_stand_in import ask, stand_in


async def collect(claude, seen, text="What is a tally stick?", **more):
    """Append the stream's events to `seen`, so that they outlive an error."""
    stream = await claude.client.messages.create(**ask(text, stream=True, **more))
    async for event in stream:
        seen.append(event)


async def final(claude, **more):
    async with claude.client.messages.stream(**ask(**more)) as stream:
        return await stream.get_final_message()


async def test_a_stream_adds_up_to_the_reply_that_would_not_have_been_streamed():
    async with stand_in() as claude:
        whole, streamed = await claude.create(), await final(claude)
    assert streamed.content[0].text == whole.content[0].text
    assert streamed.stop_reason == whole.stop_reason
    assert streamed.usage.to_dict() == whole.usage.to_dict()


async def test_the_events_come_in_the_order_of_the_real_stream():
    async with stand_in() as claude:
        seen = []
        await collect(claude, seen)
        raw = await claude.client.messages.with_raw_response.create(**ask(stream=True))
        wire = await raw.http_response.aread()
    kinds = [event.type for event in seen]
    assert kinds[:2] == ["message_start", "content_block_start"]
    assert set(kinds[2:-3]) == {"content_block_delta"}
    assert kinds[-3:] == ["content_block_stop", "message_delta", "message_stop"]
    assert b"event: ping\n" in wire
    assert seen[0].message.usage.output_tokens == 1
    assert seen[0].message.content == []
    assert seen[0].message.stop_reason is None
    assert seen[-2].usage.output_tokens > 1
    assert raw.headers["content-type"].startswith("text/event-stream")
    assert raw.headers["request-id"].startswith("req_")


async def test_growing_input_is_told_by_cumulative_deltas():
    async with stand_in() as claude:
        await claude.order("growing_input", tokens=8_000, times=2)
        seen = []
        await collect(claude, seen, "x" * 400)
        message = await final(claude, text="x" * 400)
        (row, _) = await claude.rows()
    inputs = [seen[0].message.usage.input_tokens]
    inputs += [event.usage.input_tokens for event in seen if event.type == "message_delta"]
    assert inputs == [100, 4_100, 8_100]
    assert message.usage.input_tokens == 8_100
    assert row["usage"]["input_tokens"] == 8_100


async def test_a_cut_stream_is_a_transport_error_after_its_beginning():
    async with stand_in() as claude:
        await claude.order("cut_stream", after=2)
        seen = []
        with pytest.raises(httpx2.ReadError):
            await collect(claude, seen)
        (row,) = await claude.rows()
    assert seen[0].type == "message_start"
    assert seen[-1].type != "message_stop"
    assert (row["delivered"], row["fault"]) == ("no", "cut_stream")


async def test_a_truncated_stream_ends_without_an_error_and_without_a_stop():
    async with stand_in() as claude:
        await claude.order("truncated_stream", after=3)
        message = await final(claude)
        (row,) = await claude.rows()
    assert message.stop_reason is None
    assert message.usage.output_tokens == 1
    assert len(message.content[0].text) == 3 * 16 * 4
    assert row["delivered"] == "no"
    assert row["usage"]["output_tokens"] > 1


async def test_an_error_event_raises_in_the_middle():
    async with stand_in() as claude:
        await claude.order("stream_error")
        seen = []
        with pytest.raises(anthropic.APIStatusError) as caught:
            await collect(claude, seen)
        (row,) = await claude.rows()
    assert caught.value.status_code == 200
    assert caught.value.type == "overloaded_error"
    assert seen[-1].type == "content_block_delta"
    assert row["delivered"] == "no"


async def test_faults_of_streams_pass_other_requests_by():
    async with stand_in() as claude:
        await claude.order("truncated_stream")
        assert (await claude.create()).stop_reason == "end_turn"
        assert (await final(claude)).stop_reason is None
        assert (await claude.get("faults"))["applied"] == {"truncated_stream": 1}


async def test_a_client_that_leaves_a_stream_is_journalled_as_not_reached():
    async with stand_in(latency=Latency(per_token=0.005)) as claude:
        stream = await claude.client.messages.create(**ask(stream=True))
        async for _ in stream:
            assert (await claude.rows())[0]["delivered"] == "unknown"
            break
        await stream.close()
        (row,) = await claude.settled(1)
    assert row["delivered"] == "no"
    assert row["usage"]["output_tokens"] > 1
