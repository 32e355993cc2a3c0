"""What is kept of an event, how often, and what becomes of one that cannot be kept."""

import asyncio
import tempfile
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from tallystick.embedded import embedded_postgres, kill_postgres, restart_postgres
from tallystick.ledger import inbox, setup
from tallystick.ledger.database import Ledger
from tallystick.stripe_events import Form, UnreadableEventError, read_event
from tests.cli.shell import Shell
from tests.support.house import PATIENCE
from tests.web.conftest import NEW, NOW, OLD, Door, invoice_event, open_door

THIN = {
    "id": "evt_thin",
    "object": "v2.core.event",
    "type": "v1.invoice.paid",
    "created": "2026-11-20T11:59:00.123Z",
    "livemode": True,
    "related_object": {"id": "in_1", "type": "invoice", "url": "/v1/invoices/in_1"},
}


async def test_an_event_is_kept_once_however_often_and_wherever_it_comes(door: Door) -> None:
    for secret in (OLD, NEW, NEW):
        answer = await door.deliver(invoice_event("evt_1"), secret=secret)
        assert answer.status_code == 200
    (event,) = await door.events()
    assert (event.type, event.form, event.object_id) == ("invoice.paid", "snapshot", "in_1")
    assert "arker" not in event.model_dump_json()  # no address, no card
    assert (event.stripe_customer_id, event.api_version) == ("cus_1", "2026-10-28.endive")
    assert event.received_at == NOW
    metrics = await door.metrics()
    assert 'tallystick_webhooks_total{outcome="received"} 1\n' in metrics
    assert 'tallystick_webhooks_total{outcome="duplicate"} 2\n' in metrics
    assert len(door.woken) == 1


async def test_a_thin_event_is_told_from_a_snapshot(door: Door) -> None:
    await door.deliver(THIN)
    (event,) = await door.events()
    assert (event.form, event.object_id, event.api_version) == (Form.THIN, "in_1", None)
    assert event.created_at.isoformat() == "2026-11-20T11:59:00.123000+00:00"


@pytest.mark.parametrize(
    ("subject", "customer"),
    [
        ({"object": "customer", "id": "cus_7"}, "cus_7"),
        ({"object": "payment_method", "id": "pm_1", "customer": None}, None),
        ({"object": "invoice", "id": "in_1", "customer": {"id": "cus_8", "name": "x"}}, "cus_8"),
    ],
)
def test_whose_an_event_is_stands_in_its_object(
    subject: dict[str, Any], customer: str | None
) -> None:
    event = read_event(invoice_event("evt_1", type="any.type", data={"object": subject}))
    assert event.stripe_customer_id == customer


@pytest.mark.parametrize("event_type", ["invoice.upcoming", "v1.product.created", "some.day.new"])
async def test_what_nothing_depends_on_is_done_with_at_once(door: Door, event_type: str) -> None:
    data = {"object": {"object": "invoice", "customer": "cus_1"}}
    await door.deliver(invoice_event("evt_1", type=event_type, data=data))
    (event,) = await door.events()
    assert (event.applied_at, event.reason) == (NOW, inbox.NO_CONCERN)


async def test_another_version_of_the_api_is_understood_by_its_envelope(door: Door) -> None:
    event = invoice_event("evt_1", api_version="2019-12-03")
    event["data"]["object"] = {"id": "in_1", "object": "invoice", "billing": "charge_automatically"}
    await door.deliver(event)
    (kept,) = await door.events()
    assert (kept.object_id, kept.stripe_customer_id, kept.parked_at) == ("in_1", None, None)


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ("{", "not JSON"),
        ("[]", "dictionary"),
        ({"id": "evt_1", "object": "event.v9", "type": "invoice.paid"}, "object"),
        (invoice_event("evt_1", type=None), "type"),
        (invoice_event("evt_1", id=4242), "id"),
        (invoice_event("evt_1", id="evt_\x00"), "id"),
        (invoice_event("evt_1", created="4242 4242"), "created"),
        (invoice_event("evt_1", created=2**60), "created"),
        (invoice_event("evt_1", data={}), "data.object"),
        (invoice_event("evt_1", data={"object": {"object": "invoice"}}), "what it happened to"),
        ({**THIN, "created": "2026-11-20"}, "created"),
    ],
)
def test_what_is_no_event_as_we_know_them_says_so_and_quotes_nothing(body: Any, words: str) -> None:
    with pytest.raises(UnreadableEventError, match=words) as caught:
        read_event(body if isinstance(body, dict) else body.encode())
    assert "4242" not in str(caught.value)


async def test_what_cannot_be_read_is_parked_for_a_person_once(door: Door) -> None:
    nameless = {**invoice_event("x"), "id": None}
    for event in (nameless, invoice_event("evt_1", data={}), nameless):
        assert (await door.deliver(event)).status_code == 200
    known, unknown = await door.events()
    assert (known.event_id, known.parked_at) == ("evt_1", NOW)
    assert unknown.event_id.startswith("unreadable-")
    assert "data.object" in (known.reason or "")
    notices = await door.notices()
    assert {(each.audience, each.customer_id) for each in notices} == {("operator", None)}
    assert sorted(each.facts["event_id"] for each in notices) == ["evt_1", unknown.event_id]
    health = await door.health()
    assert health["why"] == ["2 events are parked; `tallystick stuck` says why"]
    assert health["inbox"] == {"waiting": 0, "oldest_seconds": 0, "parked": 2}
    assert 'tallystick_inbox_events{state="parked"} 2\n' in await door.metrics()


async def test_a_person_retries_what_is_parked_or_skips_it_with_a_reason(
    door: Door, database_url: str, tmp_path: Path
) -> None:
    shell = Shell(tmp_path / "home", DATABASE_URL=database_url)
    await door.deliver(invoice_event("evt_refused"))
    await door.deliver(invoice_event("evt_unreadable", data={}))
    async with door.ledger.begin() as tx:
        await inbox.park(tx, ["evt_refused"], None, "Stripe refused", NOW)
    await shell("event", "retry", "evt_refused")
    told = await shell.attempt("event", "retry", "evt_unreadable")
    assert told.error == "EVENT: no event 'evt_unreadable' is parked that could be read"
    await shell("event", "skip", "evt_unreadable", "seen in the dashboard")
    refused, unreadable = await door.events()
    assert (refused.parked_at, refused.reason, refused.applied_at) == (None, None, None)
    assert (unreadable.parked_at, unreadable.reason) == (None, "skipped: seen in the dashboard")
    assert unreadable.applied_at is not None
    told = await shell.attempt("event", "skip", "evt_refused", "again")
    assert told.error == "EVENT: no event 'evt_refused' is parked"


async def test_health_alerts_over_its_thresholds(door: Door) -> None:
    assert (await door.health())["alert"] is False
    async with door.ledger.begin() as tx:
        await inbox.receive(tx, [read_event(invoice_event("evt_1"))], NOW - timedelta(seconds=301))
    health = await door.health()
    assert health["alert"] is True
    assert health["why"] == ["the oldest event has waited 301 s, over 300 s"]
    assert health["inbox"] == {"waiting": 1, "oldest_seconds": 301, "parked": 0}
    assert "tallystick_inbox_oldest_seconds 301.0\n" in await door.metrics()

    async with door.ledger.begin() as tx:
        await inbox.mark_applied(tx, ["evt_1"], NOW)
    for number in range(3):
        await door.deliver(invoice_event(f"evt_{number}_waits"))
    assert (await door.health())["why"] == ["3 events wait, over 2"]
    assert 'tallystick_inbox_events{state="waiting"} 3\n' in await door.metrics()


async def test_a_database_that_is_away_makes_stripe_deliver_again() -> None:
    # Not in pytest's own folder: a socket's path has a length limit (see tests/conftest.py).
    with (
        tempfile.TemporaryDirectory(prefix="tallystick-") as folder,
        embedded_postgres(Path(folder) / "data") as url,
    ):
        await asyncio.to_thread(setup.prepare, url)
        async with open_door(Ledger(url)) as door:
            assert (await door.deliver(invoice_event("evt_before"))).status_code == 200
            kill_postgres(Path(folder) / "data")
            assert (await door.deliver(invoice_event("evt_1"))).status_code == 503
            health = await door.http.get("/health")
            assert (health.status_code, health.json()["alert"]) == (503, True)
            assert "tallystick_ledger_up 0\n" in await door.metrics()
            restart_postgres(Path(folder) / "data")
            async with asyncio.timeout(PATIENCE):
                while (await door.deliver(invoice_event("evt_1"))).status_code != 200:
                    await asyncio.sleep(0.05)
            assert [event.event_id for event in await door.events()] == ["evt_1", "evt_before"]
