"""What the tests of message batches share: requests, and results as the official SDK reads them."""

from typing import Any

from tests.sandbox.claude_stand_in import StandIn, ask

NOON = 1_800_000_000.0
HOUR = 3_600.0
HEADERS = {"authorization": "Bearer k", "anthropic-version": "2026-10-21"}
"""For calls past the SDK."""


def requests(count: int, **more: Any) -> list[Any]:
    """Requests named `item-0`, `item-1` ..., each with a prompt of its own."""
    return [
        {"custom_id": f"item-{number}", "params": ask(f"Tell me about {number}", **more)}
        for number in range(count)
    ]


def counts(batch: Any) -> dict[str, int]:
    """The request counts that are not zero."""
    return {name: count for name, count in batch.request_counts.to_dict().items() if count}


async def results(claude: StandIn, batch_id: str) -> dict[str, Any]:
    """Every result by its custom id."""
    found = {}
    async for line in await claude.client.messages.batches.results(batch_id):
        assert line.custom_id not in found
        found[line.custom_id] = line.result
    return found


async def ended(claude: StandIn, batch: list[Any]) -> Any:
    """A batch that was created and has ended; the stand-in's clock is advanced for it."""
    created = await claude.client.messages.batches.create(requests=batch)
    await claude.post("clock", advance=60)
    return await claude.client.messages.batches.retrieve(created.id)
