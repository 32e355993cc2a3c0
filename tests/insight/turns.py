"""Turns as the ledger would tell them: rated by the shipped book, charged at a markup."""

import itertools
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

from tallystick.insight import Turn
from tallystick.money import from_nano_usd, to_nano_usd
from tallystick.pricing import rate

NOON = datetime(2026, 11, 10, 12, tzinfo=UTC)
SONNET, OPUS = "claude-sonnet-5-5", "claude-opus-5-5"  # $2 and $10, $4 and $20 a million
_numbers = itertools.count(1)


def usage(
    prompt: int = 0, answer: int = 0, *, write: int = 0, write_1h: int = 0, read: int = 0
) -> dict[str, Any]:
    return {
        "input_tokens": prompt,
        "output_tokens": answer,
        "cache_read_input_tokens": read,
        "cache_creation_input_tokens": write + write_1h,
        "cache_creation": {
            "ephemeral_5m_input_tokens": write,
            "ephemeral_1h_input_tokens": write_1h,
        },
    }


def turn(
    prompt: int = 0,
    answer: int = 0,
    *,
    model: str = SONNET,
    conversation: str | None = "chat",
    minutes: float = 0,
    markup: str = "0",
    at: datetime = NOON,
    searches: int = 0,
    **cached: int,
) -> Turn:
    reply = {
        "model": model,
        "stop_reason": "end_turn",
        "content": [{"type": "text"}],
        "usage": {
            **usage(prompt, answer, **cached),
            "server_tool_use": {"web_search_requests": searches},
        },
    }
    served_at = at + timedelta(minutes=minutes)
    rating = rate(reply, at=served_at)
    charge = (
        None
        if rating.cost_usd is None
        else from_nano_usd(to_nano_usd(rating.cost_usd * (1 + Decimal(markup))))
    )
    return Turn(
        request_id=f"r{next(_numbers)}",
        conversation_id=conversation,
        served_at=served_at,
        model=model,
        tokens=rating.tokens,
        lines=rating.lines,
        cost_usd=rating.cost_usd,
        charge_usd=charge,
    )
