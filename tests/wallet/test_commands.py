"""Credit at a terminal, on a real ledger; telling the account's cycle has tests of its own."""

import asyncio
import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from typer.testing import CliRunner

from tallystick.cli.app import app
from tallystick.embedded import free_port
from tallystick.ledger import accounts, customers
from tallystick.ledger.database import Ledger
from tallystick.ledger.tables import Customer
from tests.wallet.purse import Purse, add_plan

Run = Callable[..., Any]


@pytest.fixture
def run(ledger: Ledger, database_url: str, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run a command and return what it prints: JSON, or the error that ends it."""
    monkeypatch.setenv("DATABASE_URL", database_url)
    monkeypatch.setenv("TEMPORAL_ADDRESS", f"localhost:{free_port()}")  # nobody is told

    async def command(*arguments: str, fails: bool = False) -> Any:
        result = await asyncio.to_thread(CliRunner().invoke, app, ["wallet", *arguments])
        assert (result.exit_code != 0) == fails, result.output
        return result.stderr if fails else json.loads(result.stdout or "null")

    return command


async def test_credit_is_given_taken_back_and_shown_with_every_movement(
    ledger: Ledger, run: Run
) -> None:
    purse = await Purse(ledger).open()
    await run("grant", "acme", "10", "--source", "bank:1", "--json")
    again = await run("grant", "acme", "10", "--source", "bank:1", "--json")
    assert again == {"customer_id": "acme", "source": "bank:1", "balance_usd": "10"}
    await run(
        *("grant", "acme", "5", "--promotional", "--priority", "1", "--source", "spring"),
        *("--expires", "2099-01-01", "--note", "for good luck"),
    )
    record = (await purse.use(6, at=datetime.now(UTC))).recorded.record
    taken = await run("revoke", "acme", "bank:1", "--json")
    assert taken["balance_usd"] == "0"

    shown = await run("show", "acme", "--json")
    assert (shown["balance_usd"], shown["reserved_usd"], shown["opening_usd"]) == ("0", "0", "0")
    spring = next(each for each in shown["grants"] if each["source"] == "spring")
    assert {name: spring[name] for name in ("kind", "priority", "amount_usd", "left_usd")} == {
        "kind": "promotional", "priority": 1, "amount_usd": "5", "left_usd": "0"
    }  # fmt: skip
    assert (spring["expires_at"], spring["note"]) == ("2099-01-01T00:00:00+00:00", "for good luck")
    assert [
        (each["kind"], each["source"], each["request_id"], each["amount_usd"], each["balance_usd"])
        for each in shown["movements"]
    ] == [
        ("granted", "bank:1", None, "10", "10"),
        ("granted", "spring", None, "5", "15"),
        ("usage", "spring", record.request_id, "-5", "10"),
        ("usage", "bank:1", record.request_id, "-1", "9"),
        ("revoked", "bank:1", None, "-9", "0"),
    ]
    tomorrow = (datetime.now(UTC) + timedelta(days=1)).date().isoformat()
    assert (await run("show", "acme", "--since", tomorrow, "--json"))["movements"] == []


async def test_a_top_up_is_asked_for_once_at_a_time(ledger: Ledger, run: Run) -> None:
    purse = await Purse(ledger).open()
    asked = await run("top-up", "acme", "25.50", "--json")
    assert asked["amount_usd"] == "25.5"
    (opened,) = await purse.top_ups()
    assert (opened.top_up_id, opened.automatic) == (asked["top_up_id"], False)
    assert "under way" in await run("top-up", "acme", "25.50", fails=True)
    assert await purse.balance() == 0


@pytest.mark.parametrize(
    ("arguments", "names"),
    [
        (("grant", "acme", "lots"), "USD"),
        (("grant", "acme", "0"), "USD"),
        (("grant", "acme", "0.0000000001"), "USD"),
        (("grant", "acme", "1", "--expires", "2020-01-01"), "--expires"),
        (("grant", "acme", "1", "--expires", "soon"), "--expires"),
        (("grant", "nobody", "1"), "CUSTOMER"),
        (("top-up", "acme", "0.99"), "USD"),
        (("top-up", "acme", "1.001"), "USD"),
        (("revoke", "acme", "unheard-of"), "SOURCE"),
        (("show", "bolt"), "tallystick customer open bolt"),
        (("grant", "bolt", "1"), "tallystick customer open bolt"),
        (("top-up", "metered", "5"), "no prepaid plan"),
    ],
)
async def test_what_makes_no_sense_is_refused(
    ledger: Ledger, run: Run, arguments: tuple[str, ...], names: str
) -> None:
    purse = await Purse(ledger).open()
    await add_plan(ledger, "metered", {"model": "pass-through"})
    async with ledger.begin() as tx:
        for name, plan in (("bolt", "credits"), ("metered", "metered")):
            await customers.add(tx, Customer(customer_id=name, name=name, plan=plan))
        now = datetime.now(UTC)
        await accounts.open_account(tx, "metered", now, "UTC", now)
    assert names in await run(*arguments, fails=True)
    assert await purse.moved() == []
    assert await purse.top_ups() == []
