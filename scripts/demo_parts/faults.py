"""What goes wrong during the demo: some of everything by chance, and each kind once for certain.

Chance is drawn from a seed and the request, so every run meets the same faults (the stand-ins'
README says how). The single ones are rules: they hit the first call that they fit.
"""

from collections.abc import Mapping
from typing import Any

import httpx

from tallystick.local import LocalStack

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


async def arm(local: LocalStack, http: httpx.AsyncClient) -> None:
    """Set the stand-ins' pace and faults; real services are left alone."""
    if local.claude_url and "claude" in local.sandboxed:
        await post(http, f"{local.claude_url}/_sandbox/latency", _PACE)
        await post(http, f"{local.claude_url}/_sandbox/faults", _CLAUDE)
    if local.stripe_url and "stripe" in local.sandboxed:
        await post(http, f"{local.stripe_url}/_sandbox/faults", _STRIPE)


async def disarm(local: LocalStack, http: httpx.AsyncClient) -> Applied:
    """End the faults and return which ones struck."""
    urls = {"claude": local.claude_url, "stripe": local.stripe_url}
    applied: dict[str, Mapping[str, int]] = {}
    for service in sorted(local.sandboxed):
        path = f"{urls[service]}/_sandbox/faults"
        applied[service] = (await http.get(path)).raise_for_status().json()["applied"]
        (await http.delete(path)).raise_for_status()
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


async def post(http: httpx.AsyncClient, url: str, body: Mapping[str, Any]) -> None:
    """Tell a stand-in something."""
    (await http.post(url, json=body)).raise_for_status()
