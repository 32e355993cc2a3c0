"""Prompt caching: what is written, read, forgotten, and to whom it belongs."""

import anthropic
import pytest

from tests.sandbox.claude_stand_in import MODEL, ask, stand_in

LONG = "a" * 8_000  # 2,000 tokens
MORE = "b" * 6_000  # 1,500 tokens
SHORT = "c" * 400  # 100 tokens


class Clock:
    def __init__(self):
        self.now = 1_800_000_000.0

    def __call__(self):
        return self.now


def block(text, ttl=None):
    control = {} if ttl is None else {"cache_control": {"type": "ephemeral", "ttl": ttl}}
    return {"type": "text", "text": text, **control}


async def kinds(claude, system, messages, **more):
    reply = await claude.create(system=system, messages=messages, max_tokens=1, **more)
    usage = reply.usage
    split = usage.cache_creation
    assert usage.cache_creation_input_tokens == (
        split.ephemeral_5m_input_tokens + split.ephemeral_1h_input_tokens
    )
    return (
        usage.input_tokens,
        split.ephemeral_5m_input_tokens,
        split.ephemeral_1h_input_tokens,
        usage.cache_read_input_tokens,
    )


def user(*blocks):
    return [{"role": "user", "content": list(blocks)}]


async def test_a_prefix_is_written_then_read_then_expires():
    clock = Clock()
    async with stand_in(clock=clock) as claude:
        prompt = [block(LONG, "5m")], user(block(SHORT))
        assert await kinds(claude, *prompt) == (100, 2_000, 0, 0)
        assert await kinds(claude, *prompt) == (100, 0, 0, 2_000)
        clock.now += 299
        assert await kinds(claude, *prompt) == (100, 0, 0, 2_000)
        clock.now += 299  # the read renewed it
        assert await kinds(claude, *prompt) == (100, 0, 0, 2_000)
        clock.now += 301
        assert await kinds(claude, *prompt) == (100, 2_000, 0, 0)


async def test_an_hour_is_an_hour():
    clock = Clock()
    async with stand_in(clock=clock) as claude:
        prompt = [block(LONG, "1h")], user(block(SHORT))
        assert await kinds(claude, *prompt) == (100, 0, 2_000, 0)
        clock.now += 3_599
        assert await kinds(claude, *prompt) == (100, 0, 0, 2_000)
        clock.now += 3_601
        assert await kinds(claude, *prompt) == (100, 0, 2_000, 0)


async def test_both_lifetimes_in_one_request_are_told_apart():
    async with stand_in() as claude:
        first = [block(LONG, "1h")], user(block(MORE, "5m"), block(SHORT))
        assert await kinds(claude, *first) == (100, 1_500, 2_000, 0)
        changed = [block(LONG, "1h")], user(block("B" * 6_000, "5m"), block(SHORT))
        assert await kinds(claude, *changed) == (100, 1_500, 0, 2_000)


async def test_a_growing_conversation_reads_what_it_wrote_before():
    async with stand_in() as claude:
        turns = user(block(LONG, "5m"))
        assert await kinds(claude, [], turns) == (0, 2_000, 0, 0)
        turns = [
            *user(block(LONG)),
            {"role": "assistant", "content": SHORT},
            *user(block(MORE, "5m"), block(SHORT)),
        ]
        assert await kinds(claude, [], turns) == (100, 1_600, 0, 2_000)


async def test_the_automatic_breakpoint_is_the_last_block():
    async with stand_in() as claude:
        control = {"cache_control": {"type": "ephemeral"}}
        assert await kinds(claude, LONG, user(block(SHORT)), **control) == (0, 2_100, 0, 0)
        assert await kinds(claude, LONG, user(block(SHORT)), **control) == (0, 0, 0, 2_100)


async def test_tools_come_first_in_the_prefix():
    tools = [
        {
            "name": "look",
            "description": LONG,
            "input_schema": {"type": "object"},
            "cache_control": {"type": "ephemeral"},
        }
    ]
    async with stand_in() as claude:
        fresh = await kinds(claude, "one system", user(block(SHORT)), tools=tools)
        again = await kinds(claude, "another one", user(block(SHORT)), tools=tools)
    assert fresh[1] == again[3] > 2_000


async def test_below_the_minimum_nothing_is_cached():
    async with stand_in() as claude:
        for _ in range(2):
            assert await kinds(claude, [block(SHORT, "5m")], user(block(SHORT))) == (200, 0, 0, 0)
    async with stand_in(minimum_cached_tokens=100) as claude:
        assert await kinds(claude, [block(SHORT, "5m")], user(block(SHORT))) == (100, 100, 0, 0)


async def test_a_cache_belongs_to_one_key_and_one_model():
    prompt = [block(LONG, "5m")], user(block(SHORT))
    async with stand_in() as claude:
        assert await kinds(claude, *prompt) == (100, 2_000, 0, 0)
        assert await kinds(claude, *prompt, model="claude-opus-5-5") == (100, 2_000, 0, 0)
        other = claude.client.with_options(api_key="sk-ant-other")
        reply = await other.messages.create(**ask(system=prompt[0], messages=prompt[1]))
        assert reply.usage.cache_read_input_tokens == 0
        assert await kinds(claude, *prompt) == (100, 0, 0, 2_000)


async def test_breakpoints_are_at_most_four_and_long_ones_come_first():
    async with stand_in() as claude:
        with pytest.raises(anthropic.BadRequestError, match="at most 4"):
            await claude.create(messages=user(*[block(f"{i}", "5m") for i in range(5)]))
        with pytest.raises(anthropic.BadRequestError, match="must not come after"):
            await claude.create(messages=user(block("a", "5m"), block("b", "1h")))


async def test_a_stream_tells_the_lifetimes_only_at_its_start():
    async with stand_in() as claude:
        events = await claude.client.messages.create(
            model=MODEL,
            max_tokens=5,
            stream=True,
            system=[block(LONG, "1h")],
            messages=user(block(SHORT)),
        )
        events = [event async for event in events]
    start, delta = events[0].message.usage, events[-2].usage
    assert start.cache_creation.ephemeral_1h_input_tokens == 2_000
    assert start.cache_creation_input_tokens == delta.cache_creation_input_tokens == 2_000
    assert "cache_creation" not in delta.to_dict()
