"""`tallystick web` as a process: what it needs to start, and how it ends."""

import json
import re
from pathlib import Path

import httpx
import pytest
from stripe import WebhookSignature

from tallystick.ledger import inbox
from tallystick.ledger.database import Ledger
from tallystick.settings import SANDBOX_WEBHOOK_SECRET
from tests.cli.shell import Shell, told_by, until_said
from tests.web.conftest import invoice_event

NOWHERE = "127.0.0.1:9"  # the discard port: no Temporal answers there
KEYS = {
    "ANTHROPIC_API_KEY": "sk-ant-x",
    "STRIPE_API_KEY": "sk_test_x",
    "STRIPE_API_BASE": "http://127.0.0.1:9",
    "STRIPE_METER_EVENTS_BASE": "http://127.0.0.1:9",
}


@pytest.fixture
def shell(tmp_path: Path, database_url: str) -> Shell:
    """A terminal with a database and no Temporal."""
    return Shell(tmp_path / "home", DATABASE_URL=database_url, TEMPORAL_ADDRESS=NOWHERE)


async def test_it_takes_webhooks_without_temporal_and_ends_well(
    shell: Shell, ledger: Ledger
) -> None:
    web = await shell.start("web", "--port", "0")
    said = await until_said(web, "serving on")
    (url,) = re.findall(r"http://\S+", said)
    body = json.dumps(invoice_event("evt_1"))
    header = WebhookSignature.generate_signature_header(body, SANDBOX_WEBHOOK_SECRET)
    async with httpx.AsyncClient(base_url=url, timeout=60) as http:
        answer = await http.post(
            "/webhooks/stripe", content=body, headers={"Stripe-Signature": header}
        )
        assert answer.status_code == 200
        assert (await http.get("/health")).json()["inbox"]["waiting"] == 1
        await until_said(web, "events wait to be forwarded")
    web.terminate()
    assert (await told_by(web)).code == 0
    async with ledger.begin() as tx:
        assert (await inbox.depth(tx)).waiting == 1


async def test_a_real_stripe_needs_a_signing_secret(shell: Shell) -> None:
    told = await shell.attempt("web", **KEYS)
    assert told.error.startswith("STRIPE_WEBHOOK_SECRET is not set; ")


async def test_an_address_that_cannot_be_listened_on_is_named(shell: Shell) -> None:
    told = await shell.attempt("web", "--host", "192.0.2.1")
    assert told.error.startswith("--host, --port: cannot listen on 192.0.2.1:8080: ")
