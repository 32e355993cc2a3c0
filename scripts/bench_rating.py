"""How many replies a second we rate, beside genai-prices on the same replies in the same run.

Prints figures and judges nothing: machines differ, the ratio hardly does.
"""

import argparse
import json
import random
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from tallystick.pricing import price_book, rate

AT = datetime(2026, 11, 1, 12, tzinfo=UTC)
MODELS = (
    "claude-opus-5-5",
    "claude-sonnet-5-5",
    "claude-haiku-5-5",
    "claude-haiku-4-5-20251001",
    "claude-fable-5-1",
)


def replies(count: int, seed: int = 7) -> list[dict[str, Any]]:
    """Return replies as the API sends them: some cached, some with searches, all complete."""
    pick = random.Random(seed)  # noqa: S311
    made: list[dict[str, Any]] = []
    for _ in range(count):
        five_minutes = pick.choice((0, 0, 1_200, 40_000))
        one_hour = pick.choice((0, 0, 0, 8_000))
        made.append(
            {
                "id": "msg_bench",
                "type": "message",
                "role": "assistant",
                "model": pick.choice(MODELS),
                "content": [{"type": "text", "text": "..."}],
                "stop_reason": "end_turn",
                "usage": {
                    "input_tokens": pick.randrange(1, 20_000),
                    "output_tokens": pick.randrange(1, 4_000),
                    "cache_creation_input_tokens": five_minutes + one_hour,
                    "cache_read_input_tokens": pick.choice((0, 0, 5_000, 60_000)),
                    "cache_creation": {
                        "ephemeral_5m_input_tokens": five_minutes,
                        "ephemeral_1h_input_tokens": one_hour,
                    },
                    "server_tool_use": {
                        "web_search_requests": pick.choice((0, 0, 0, 2)),
                        "web_fetch_requests": 0,
                    },
                    "service_tier": "standard",
                    "inference_geo": "global",
                },
            }
        )
    return made


def per_second(price: Callable[[dict[str, Any]], object], objects: list[dict[str, Any]]) -> float:
    """Return how many objects a second a function prices."""
    started = time.perf_counter()
    for item in objects:
        price(item)
    return len(objects) / (time.perf_counter() - started)


def measure(count: int = 100_000, theirs_count: int | None = None) -> dict[str, float | int]:
    """Rate `count` replies with both and return the rates and their ratio.

    Args:
        count: replies that we rate.
        theirs_count: replies that genai-prices prices; all of them unless told.
    """
    from genai_prices import extract_usage

    def theirs(reply: dict[str, Any]) -> object:
        usage = extract_usage(reply, provider_id="anthropic")
        return usage.calc_price(genai_request_timestamp=AT).total_price

    def ours(reply: dict[str, Any]) -> object:
        return rate(reply, at=AT).cost_usd

    price_book()
    objects = replies(count)
    for reply in objects[:200]:
        if ours(reply) != theirs(reply):
            raise SystemExit(f"the two disagree on the price of {json.dumps(reply)}")
    our_rate = per_second(ours, objects)
    their_rate = per_second(theirs, objects[: theirs_count or count])
    return {
        "replies": count,
        "tallystick_per_second": round(our_rate),
        "genai_prices_per_second": round(their_rate),
        "ratio": round(our_rate / their_rate, 2),
    }


def main() -> None:
    """Print both rates and the ratio."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=100_000, help="replies to rate")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    options = parser.parse_args()
    figures = measure(options.count)
    if options.json:
        print(json.dumps(figures))
        return
    print(f"tallystick    {figures['tallystick_per_second']:>9,} replies/s")
    print(f"genai-prices  {figures['genai_prices_per_second']:>9,} replies/s")
    print(f"ratio         {figures['ratio']:>9}")


if __name__ == "__main__":
    main()
