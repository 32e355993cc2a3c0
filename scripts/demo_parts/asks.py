"""The requests of the demo: five customers, cheap and dear models, cached prompts, long replies.

The bodies are the same in every run, so faults drawn by a seed strike the same requests each time.
The ids are not: a request id names one answer for ever, also in a Stripe account that outlives the
run.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from .documents import Document

MODELS = ("claude-haiku-5-5", "claude-sonnet-5-5", "claude-opus-5-5", "claude-fable-5-2")
CUSTOMERS = {
    "acme": "pass-through",
    "birch": "pass-through",
    "cobalt": "pass-through",
    "delta": "pass-through",
    "ember": "at-cost",
}
"""Name to plan."""

_REFERENCE = 20_000
"""Characters of the shared system prompt, above the length from which every model caches."""
_SHORT, _USUAL, _STREAMED = 100, 600, 32_000
"""Values of `max_tokens`: cut short, enough, and so many that the call has to stream."""

_CACHED_TASK = "Summarise this section of the manual in two sentences."
UNCACHED_TASK = "Summarise this text in two sentences."


@dataclass(frozen=True, slots=True)
class Ask:
    """One request: who, under which id, and the Messages API parameters."""

    customer_id: str
    request_id: str
    params: dict[str, Any]


def asks(run: str, count: int, documents: Sequence[Document]) -> list[Ask]:
    """Return the requests of one run. `run` makes their ids and customers its own."""
    reference = "\n\n".join(document.text for document in documents)[:_REFERENCE]
    customers = [customer_id(name, run) for name in CUSTOMERS]
    return [
        Ask(
            customers[number % len(customers)],
            f"{run}-{number:03}",
            _params(number, documents[number % len(documents)], reference),
        )
        for number in range(count)
    ]


def customer_id(name: str, run: str) -> str:
    """Return the id of a customer in one run."""
    return f"{name}-{run}"


def _params(number: int, document: Document, reference: str) -> dict[str, Any]:
    # Two of three share a long system prompt: the first to ask writes it to the cache, for five
    # minutes or an hour, and those after it read it.
    ttl = ("5m", "1h", None)[number % 3]
    task = UNCACHED_TASK if ttl is None else _CACHED_TASK
    params: dict[str, Any] = {
        "model": MODELS[number % len(MODELS)],
        "max_tokens": {2: _STREAMED, 7: _SHORT}.get(number % 10, _USUAL),
        "messages": [
            {"role": "user", "content": f"{task}\n\n# {document.name}\n\n{document.text}"}
        ],
    }
    if ttl is not None:
        block = {
            "type": "text",
            "text": f"You know this manual, kept for {ttl}.\n\n{reference}",
            "cache_control": {"type": "ephemeral", "ttl": ttl},
        }
        params["system"] = [block]
    return params
