"""What goes wrong during the demo: some of everything by chance, and each kind once for certain.

Chance is drawn from a seed and the request, so every run meets the same faults (the stand-ins'
README says how). The single ones are rules: they hit the first call that they fit.
"""

from collections.abc import Mapping
from typing import Any

from tallystick.sandbox.remote import Control

from .asks import UNCACHED_TASK

_SEED = 7
_CLAUDE: dict[str, Any] = {
    "rules": [
        {"fault": "rate_limited"},
        {"fault": "error_500"},
        {"fault": "error_529"},
        # Not on a prompt that is cached: the write would be the lost call's, at our cost.
        {"fault": "undelivered", "match": UNCACHED_TASK},
        {"fault": "refusal", "match": UNCACHED_TASK},
        {"fault": "cut_stream"},
        {"fault": "truncated_stream"},
    ],
    "rates": {
        "rate_limited": 0.05,
        "error_500": 0.04,
        "error_529": 0.04,
        "undelivered": 0.04,
        "refusal": 0.02,
    },
    "seed": _SEED,
}
_STRIPE: dict[str, Any] = {
    "rules": [
        {"fault": name, "match": "/meter_event_stream"}
        for name in ("rate_limited", "no_answer", "server_error")
    ],
    "rates": {"rate_limited": 0.05, "server_error": 0.05, "no_answer": 0.05},
    "seed": _SEED,
}
_PACE = {"seconds": 0.2, "per_token": 0.002}
"""About as long as a quick model takes, so that there is something to watch."""

_IN_WORDS = {
    "rate_limited": "429",
    "error_500": "500",
    "error_529": "529",
    "server_error": "500",
    "undelivered": "reply lost",
    "item_errored": "item failed",
    "cut_results": "results cut",
    "cut_stream": "stream cut",
    "truncated_stream": "stream ended early",
    "refusal": "refusal",
    "no_answer": "accepted without an answer",
}

Applied = Mapping[str, Mapping[str, int]]
"""How often each fault struck, by service."""


async def arm(stand_ins: Mapping[str, Control]) -> None:
    """Set the stand-ins' pace and faults; real services are left alone."""
    if "claude" in stand_ins:
        await stand_ins["claude"].post("latency", _PACE)
        await stand_ins["claude"].post("faults", _CLAUDE)
    if "stripe" in stand_ins:
        await stand_ins["stripe"].post("faults", _STRIPE)


async def disarm(stand_ins: Mapping[str, Control]) -> Applied:
    """End the faults and return which ones struck."""
    applied: dict[str, Mapping[str, int]] = {}
    for service, control in stand_ins.items():
        applied[service] = (await control.get("faults"))["applied"]
        await control.disarm()
    return applied


def in_words(applied: Applied) -> str:
    """Say in one line what was survived."""
    services = [
        f"{service.capitalize()}: "
        + ", ".join(f"{_IN_WORDS[name]} ×{times}" for name, times in struck.items())
        for service, struck in applied.items()
        if struck
    ]
    return f"faults survived: {'; '.join(services) or 'none were injected'}"
