"""Replies as Claude sends them, built for the tests of prices."""

from datetime import UTC, datetime
from typing import Any

NOW = datetime(2026, 11, 20, 12, tzinfo=UTC)


def day(text: str) -> datetime:
    """Return an instant from `2026-10-07` or `2026-10-07T12:00`, UTC."""
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def usage(
    input: int = 0,
    output: int = 0,
    write_5m: int = 0,
    write_1h: int = 0,
    read: int = 0,
    **more: Any,
) -> dict[str, Any]:
    """Return a usage object with every count that Claude always sends."""
    return {
        "input_tokens": input,
        "output_tokens": output,
        "cache_creation_input_tokens": write_5m + write_1h,
        "cache_read_input_tokens": read,
        "cache_creation": {
            "ephemeral_5m_input_tokens": write_5m,
            "ephemeral_1h_input_tokens": write_1h,
        },
        **more,
    }


def reply(model: str, used: dict[str, Any], **more: Any) -> dict[str, Any]:
    """Return a finished reply with some text."""
    return {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "model": model,
        "content": [{"type": "text", "text": "Hello."}],
        "stop_reason": "end_turn",
        "stop_sequence": None,
        "usage": used,
        **more,
    }
