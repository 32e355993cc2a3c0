"""`tallystick reconcile`: by hand, over hours that are over, and what a person decides about it."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from tallystick.embedded import free_port
from tallystick.ledger import discrepancies, reconciliations
from tallystick.ledger.database import Ledger
from tallystick.metering import CHARGE_METER, meter_identifier
from tallystick.reconciling.findings import Cause, Finding, Kind, Pair
from tests.cli.conftest import Production
from tests.support.past import hours_ago

MINUTE = timedelta(minutes=1)


def _hours(first: int, last: int) -> tuple[str, ...]:
    """Return the options for the hours from so many hours ago until so many hours ago."""
    return "--from", hours_ago(first).isoformat(), "--to", hours_ago(last).isoformat()


async def test_a_lost_call_is_booked_by_itself_and_told_step_by_step(
    production: Production,
) -> None:
    customer, shell = await production.customer(), production.shell
    lost = await production.past.lose(customer, hours_ago(5) + 10 * MINUTE)
    reconcile = ("reconcile", *_hours(5, 4))
    told = await shell(*reconcile)
    assert "compare meter events with what Stripe counts: " in told.err
    assert told.err.endswith("nothing is left that differs by more than is tolerated\n")
    assert "book the lost call as our cost (done, automatic)" in told.out

    (found,) = (await shell(*reconcile, "--json")).json["differences"]
    assert (found["pair"], found["cause"], found["state"]) == (
        "claude-ledger",
        "lost_call",
        "settled",
    )
    assert found["requests"][0]["request_id"] == lost.request_id
    number = str(found["discrepancy_id"])
    shown = await shell("reconcile", "show", number)
    assert "a lost call was served" in shown.out


async def test_an_event_that_stripe_lost_is_sent_again_once_a_person_says_so(
    production: Production,
) -> None:
    customer, shell = await production.customer(), production.shell
    key = await production.past.use_and_lose_the_charge(
        production.stripe, customer, hours_ago(9) + 10 * MINUTE
    )
    reconcile = ("reconcile", *_hours(9, 8), "--json")
    # Stripe knows the identifier still: what can be done by itself is refused.
    told = await shell.attempt(*reconcile)
    assert (told.code, told.json["over_tolerance"]) == (1, 1)
    (found,) = told.json["differences"]
    assert (found["cause"], found["customer_id"]) == ("lost_event", customer)
    number = str(found["discrepancy_id"])
    apply = ("reconcile", "apply", number)
    dry = await shell(*apply)
    assert dry.err.endswith("nothing is done; --yes does it\n")
    done = await shell(*apply, "--yes", "--json")
    (subject,) = done.json["subjects"]
    assert (subject["outcome"], subject["before"]) == ("done", False)
    assert meter_identifier(*key.model_dump().values(), CHARGE_METER) in subject["subject"]
    (found,) = (await shell(*reconcile)).json["differences"]
    assert found["state"] == "settled"
    again = await shell(*apply, "--yes")
    assert "settled; done already" in again.err + again.out


async def test_what_a_person_has_to_decide_makes_the_command_fail_until_it_is_decided(
    production: Production,
) -> None:
    await production.past.reported(hours_ago(7) + MINUTE, 5_000, 0)
    reconcile = ("reconcile", *_hours(7, 6))
    told = await production.shell.attempt(*reconcile, "--json")
    assert (told.code, told.json["over_tolerance"]) == (1, 1)
    (found,) = told.json["differences"]
    assert (found["pair"], found["cause"], found["tokens"]) == (
        "claude-ledger",
        "outside_usage",
        5_000,
    )
    number = str(found["discrepancy_id"])
    plain = await production.shell.attempt(*reconcile)
    assert plain.code == 1
    assert f"No. {number}, open: " in plain.out

    applied = await production.shell("reconcile", "apply", number)
    assert "nothing is proposed" in applied.err
    await production.shell("reconcile", "dismiss", number, "--reason", "my own experiments")
    assert (await production.shell(*reconcile, "--json")).json["over_tolerance"] == 0
    history = (await production.shell("reconcile", "show", number, "--json")).json["history"]
    assert history[-1]["words"] == "an operator leaves it as it is: my own experiments"
    twice = await production.shell.attempt("reconcile", "dismiss", number, "--reason", "again")
    assert twice.error == f"ID: difference {number} is dismissed; there is nothing to be left open"


async def test_differences_are_listed_by_customer_and_state_and_drawn_on_a_page(
    production: Production, tmp_path: Path
) -> None:
    customer = await production.customer()
    start = hours_ago(40)
    first = await _found(production.ledger, customer, start)
    await _found(production.ledger, customer, start + 5 * MINUTE, explained=True)
    span = ("--from", start.isoformat(), "--to", hours_ago(39).isoformat())

    async def listed(*options: str) -> list[Any]:
        told = await production.shell("reconcile", "show", *span, "--json", *options)
        return [each["discrepancy_id"] for each in told.json["differences"]]

    assert len(await listed("--customer", customer)) == 2
    assert await listed("--customer", customer, "--open") == [first]
    other = await production.customer()
    assert await listed("--customer", other) == []
    shown = await production.shell("reconcile", "show", *span, "--customer", customer)
    assert "$1.50" in shown.out
    path = tmp_path / "page.html"
    written = await production.shell("reconcile", "show", *span, "--html", str(path))
    assert written.err == f"written to {path}\n"
    assert "Stripe is short." in path.read_text()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--from", "2026-03-01T00:30"], "--from: 2026-03-01 00:30:00 UTC is not on a whole hour"),
        (["--to", "2100-01-01"], "--to: the hours until 2100-01-01 00:00 UTC are not over yet"),
        (["--json", "show"], "show: options belong behind it"),
        (["show", "999999"], "ID: there is no difference 999999"),
        (["dismiss", "999999", "--reason", " "], "--reason: say why"),
        (["show", "--html", "/nowhere/page.html"], "--html: '/nowhere/page.html' cannot be"),
    ],
)
async def test_bad_input_is_named(production: Production, arguments: list[str], words: str) -> None:
    told = await production.shell.attempt("reconcile", *arguments)
    assert told.error.startswith(words), told


async def test_a_temporal_that_is_away_is_named(production: Production) -> None:
    nowhere = {"TEMPORAL_ADDRESS": f"127.0.0.1:{free_port()}"}
    told = await production.shell.attempt("reconcile", **nowhere)
    assert told.error.startswith("no Temporal server answers at ")


async def _found(ledger: Ledger, customer: str, at: datetime, **changes: Any) -> int:
    now = datetime.now(UTC)
    finding = Finding(
        pair=Pair.OUTBOX_STRIPE,
        kind=Kind.NOT_COUNTED,
        start=at,
        end=at + MINUTE,
        place={"customer_id": customer, "meter": CHARGE_METER},
        amounts={"charge_nano_usd": {"outbox": 1_500_000_000, "stripe": 0}},
        cause=Cause.UNKNOWN,
        words="Stripe is short.",
        usd=Decimal("1.5"),
        **changes,
    )
    async with ledger.begin() as tx:
        run = await reconciliations.open_run(
            tx, run=f"by hand {customer}", kind="manual", start=at, end=at + MINUTE, at=now
        )
        row = await discrepancies.report(
            tx, finding, reconciliation_id=run, settles=timedelta(0), at=now
        )
    assert row.discrepancy_id is not None
    return row.discrepancy_id
