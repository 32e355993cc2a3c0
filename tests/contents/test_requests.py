"""The content of single requests: kept where that is switched on, as it was said, and sealed."""

import base64
import os
from datetime import timedelta
from typing import Any

from sqlalchemy import text
from temporalio.client import Client as TemporalClient

from tallystick.contracts import RequestKey
from tallystick.embedded import TemporalServer
from tallystick.payloads.keys import Keyring
from tallystick.temporal import connect_temporal
from tests.contents.stand import keep, kept, stored
from tests.payloads.replies import Saying
from tests.payloads.stage import new_key
from tests.support.house import House, open_house

KEY = new_key("a")
MARKER = f"prompt_{os.urandom(16).hex()}"
DOCUMENT = base64.b64encode(os.urandom(1 << 20)).decode()
"""Larger than what a history holds by itself."""
ASKED: dict[str, Any] = {
    "system": [{"type": "text", "text": f"Speak of {MARKER}."}],
    "messages": [
        {
            "role": "user",
            "content": [
                {
                    "type": "document",
                    "source": {
                        "type": "base64",
                        "media_type": "application/pdf",
                        "data": DOCUMENT,
                    },
                },
                {"type": "text", "text": f"\0 {MARKER} \u00e9\U0001f33f?"},
            ],
        }
    ],
}


def _key(house: House, request_id: str) -> RequestKey:
    return RequestKey(customer_id=house.customer, request_id=request_id)


async def test_what_was_said_comes_back_as_it_was_and_lies_sealed(
    temporal_server: TemporalServer, database_url: str
) -> None:
    application = await connect_temporal(temporal_server.address, keys=Keyring.parse([KEY]))
    claude = Saying(f"\0{MARKER}")  # PostgreSQL's JSON takes no NUL
    async with open_house(
        application, database_url, "kept", claude_app=claude, payload_keys=[KEY]
    ) as house:
        await keep(house.ledger, "kept", 30)
        await house.ask("r-1", **ASKED)
        told = await house.workflow("r-1").result()
        found = await kept(house.ledger, _key(house, "r-1"), KEY)
        assert found is not None
        params, reply = found
        assert params == {"model": "claude-sonnet-5-5", "max_tokens": 64, **ASKED}
        assert reply == told["message"]
        assert reply["content"][0]["text"] == f"\0{MARKER}"
        (row,) = await stored(house.ledger)
        assert MARKER not in row
        assert DOCUMENT[:100] not in row
        (record,) = await house.records("r-1")
        async with house.ledger.begin() as tx:
            goes_at = (await tx.execute(text("SELECT goes_at FROM request_contents"))).scalar_one()
        assert goes_at == record.recorded_at + timedelta(days=30)
        (attempt,) = await house.attempts("r-1")
        assert attempt.reply is None


async def test_nothing_is_kept_but_what_was_asked_while_it_was_on(
    temporal: TemporalClient, database_url: str
) -> None:
    async with open_house(temporal, database_url, "switched") as house:
        await house.ask("before")
        await keep(house.ledger, "switched", 1)
        await house.ask("on")
        await keep(house.ledger, "switched", None)
        await house.ask("after")
        assert [row.split(",")[1] for row in await stored(house.ledger)] == ["on"]
        await house.done("on")
        assert await kept(house.ledger, _key(house, "on")) is not None
        assert (await house.ask("on")).bill.status == "priced"  # the same once more
        assert len(await stored(house.ledger)) == 1


async def test_a_history_grows_by_nothing_for_what_is_kept(
    temporal: TemporalClient, database_url: str
) -> None:
    async with open_house(temporal, database_url, "historic") as house:
        texts: list[int] = []
        for request_id, days in (("not-kept", None), ("kept", 1)):
            await keep(house.ledger, "historic", days)
            await house.ask(request_id)
            await house.done(request_id)
            events = (await house.workflow(request_id).fetch_history()).events
            said = b"".join(event.SerializeToString() for event in events)
            texts.append(said.count(b"What is a tally stick?"))
        assert len(await stored(house.ledger)) == 1
        assert texts == [2, 2]  # as it was sent, and called with
