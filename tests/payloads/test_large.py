"""Documents of megabytes go through and come back; no history holds one, and what is kept goes.

The application here has what an application has: Temporal's address, a key, no way to PostgreSQL.
"""

import base64
import os
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import func, select, update
from sqlmodel import col
from temporalio.client import Client
from temporalio.service import RPCError
from temporalio.testing import ActivityEnvironment

import tallystick
from activities.payloads import PayloadActivities
from tallystick.contracts import PayloadPart
from tallystick.embedded import TemporalServer
from tallystick.errors import ClaudeError, UnavailableError
from tallystick.ledger import payloads
from tallystick.ledger.database import Ledger
from tallystick.ledger.payload_tables import PayloadRow
from tallystick.payloads import worker_storage
from tallystick.payloads.keys import Keyring
from tallystick.temporal import connect_temporal
from tests.payloads.replies import Saying
from tests.support.house import open_house

MIB = 1 << 20
KEYS = [f"a:{base64.b64encode(os.urandom(32)).decode()}"]


@pytest.mark.parametrize(
    ("customer", "keys", "copies"),
    # Equal payloads are kept once, unless they are encrypted and do not look equal: the request as
    # it was sent, asked again, admitted and called with; the reply as brought, told and returned.
    [("plain", [], 3), ("sealed", KEYS, 7)],
)
async def test_five_mebibytes_there_and_back(
    temporal_server: TemporalServer, database_url: str, customer: str, keys: list[str], copies: int
) -> None:
    application = await connect_temporal(temporal_server.address, keys=Keyring.parse(keys))
    claude = Saying(f"\0{_random(5 * MIB)}")  # PostgreSQL's JSON takes no NUL
    async with open_house(
        application, database_url, customer, claude_app=claude, payload_keys=keys
    ) as house:
        asked = _about(_random(5 * MIB))
        reply = await house.ask("large", **asked)
        assert reply.content[0].text == claude.text
        assert (await house.ask("large", **asked)).id == reply.id
        await house.done("large")
        assert len(await house.records("large")) == len(await house.claude.journal()) == 1
        history = await house.workflow("large").fetch_history()
        assert sum(event.ByteSize() for event in history.events) < 16_000
        kept = await _kept(house.ledger)
        assert kept.keys() == {f"claude-request/{customer}/large"}
        assert sum(kept.values()) < (copies + 0.1) * 5 * MIB

        claude.text = "x" * 16_000_000
        with pytest.raises(ClaudeError, match="bytes, over the 16,000,000 that can be carried"):
            await house.ask("too-large")


async def test_a_document_that_no_worker_takes_is_said_not_to_be_taken(
    temporal: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker_storage, "PATIENCE", timedelta(seconds=1))
    asked = {"model": "claude-sonnet-5-5", "max_tokens": 64, **_about(_random(3 * MIB))}
    with pytest.raises(UnavailableError, match="within 1 s; see that one runs"):
        await tallystick.Client(temporal).messages.create(
            customer_id="nobody-there", request_id="large", **asked
        )
    with pytest.raises(RPCError, match="not found"):
        await temporal.get_workflow_handle("claude-request/nobody-there/large").describe()


async def test_payloads_go_when_temporal_has_forgotten_their_workflow(
    temporal: Client, ledger: Ledger, database_url: str
) -> None:
    sweep = PayloadActivities(ledger, temporal).sweep_payloads
    async with open_house(
        temporal, database_url, "swept", claude_app=Saying(_random(MIB))
    ) as house:
        await house.ask("known")
        assert await ActivityEnvironment().run(sweep) == 0
        async with ledger.begin() as tx:
            for workflow_id in ("claude-request/swept/forgotten", ""):
                part = PayloadPart(workflow_id=workflow_id, digest="d", part=0)
                await payloads.keep(tx, part, b"x")
            long_ago = datetime.now(UTC) - timedelta(days=400)
            await tx.execute(update(PayloadRow).values(needed_at=long_ago))
        assert len(await _kept(ledger)) == 3
        assert await ActivityEnvironment().run(sweep) == 2
        assert (await _kept(ledger)).keys() == {"claude-request/swept/known"}
        assert await ActivityEnvironment().run(sweep) == 0  # and is not asked for again so soon


def _random(size: int) -> str:
    return base64.b64encode(os.urandom(size * 3 // 4)).decode()


def _about(document: str) -> dict[str, Any]:
    """Return what a request about a document has instead of a plain prompt."""
    source = {"type": "base64", "media_type": "application/pdf", "data": document}
    return {"messages": [{"role": "user", "content": [{"type": "document", "source": source}]}]}


async def _kept(ledger: Ledger) -> dict[str, int]:
    """Return how many bytes are kept for which workflow."""
    statement = select(
        col(PayloadRow.workflow_id), func.sum(func.octet_length(col(PayloadRow.content)))
    ).group_by(col(PayloadRow.workflow_id))
    async with ledger.each() as tx:
        rows: Sequence[Any] = (await tx.execute(statement)).all()
    return {row[0]: row[1] for row in rows}
