"""The operator's side: caps, negotiated terms, and what calls without an answer may have cost."""

import asyncio
import json
from collections.abc import Callable
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest
from typer.testing import CliRunner

from tallystick.cli.app import app
from tallystick.contracts import RequestKey
from tallystick.ledger import attempts, customers
from tallystick.ledger.attempts import Begun, Completion, NewAttempt
from tallystick.ledger.database import Ledger
from tallystick.ledger.tables import Customer, Outcome
from tests.guards.room import charge_at

Run = Callable[..., Any]
MODEL = "claude-sonnet-5-5"  # $2 in and $10 out a million
LONG_AGO = "2026-01-01"


@pytest.fixture
def run(ledger: Ledger, database_url: str, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run a command and return what it prints: JSON, or the error that ends it."""
    monkeypatch.setenv("DATABASE_URL", database_url)

    async def command(*arguments: str, fails: bool = False) -> Any:
        result = await asyncio.to_thread(CliRunner().invoke, app, arguments)
        assert (result.exit_code != 0) == fails, result.output
        return result.stderr if fails else json.loads(result.stdout or "null")

    return command


async def _acme(ledger: Ledger) -> None:
    async with ledger.begin() as tx:
        row = Customer(
            customer_id="acme", name="acme", plan="pass-through", time_zone="Europe/Berlin"
        )
        await customers.add(tx, row)


async def test_a_cap_is_set_shown_and_lifted(ledger: Ledger, run: Run) -> None:
    await _acme(ledger)
    key = RequestKey(customer_id="acme", request_id="r-1")
    await charge_at(ledger, key, datetime.now(UTC), 1_500_000_000)
    await run("customer", "cap", "acme", "--spend-cap", "12.50")
    shown = await run("customer", "show", "acme", "--json")
    assert {name: shown[name] for name in ("spend_cap_usd", "month_charged_usd")} == {
        "spend_cap_usd": "12.5",
        "month_charged_usd": "1.5",
    }
    await run("customer", "cap", "acme", "--spend-cap", "none")
    assert (await run("customer", "show", "acme", "--json"))["spend_cap_usd"] is None
    for bad in ("-1", "lots", "NaN"):
        assert "--spend-cap" in await run("customer", "cap", "acme", "--spend-cap", bad, fails=True)
    assert "CUSTOMER" in await run("customer", "cap", "bolt", "--spend-cap", "1", fails=True)


async def test_terms_are_dated_rows_that_replace_each_other(ledger: Ledger, run: Run) -> None:
    await _acme(ledger)
    command = ("customer", "terms", "acme", "--json")
    first = await run(*command, "--markup", "0.1", "--markup-on", "output=0.3", "--from", LONG_AGO)
    assert first == [
        {
            "customer_id": "acme",
            "valid_from": "2025-12-31T23:00:00+00:00",  # midnight in Berlin
            "terms": {"markup": "0.1", "markup_by_kind": {"output": "0.3"}},
        }
    ]
    shown = await run("customer", "show", "acme", "--json")
    assert shown["terms"]["markup_by_kind"] == {"output": "0.3"}
    assert len(await run(*command, "--discount", "0.05", "--from", "2099-01-01")) == 2
    assert (await run("customer", "show", "acme", "--json"))["terms"] == shown["terms"]
    await run(*command, "--as-plan")
    assert (await run("customer", "show", "acme", "--json"))["terms"]["markup"] == "0.2"
    assert len(await run(*command)) == 3


@pytest.mark.parametrize(
    ("options", "names"),
    [
        (("--markup", "much"), "terms.markup"),
        (("--markup-on", "ouput=0.3"), "terms.markup_by_kind.ouput"),
        (("--discount", "1.5"), "terms.discount"),
        (("--markup", "0.1", "--from", "soon"), "--from"),
        (("--markup", "0.1", "--as-plan"), "--as-plan"),
    ],
)
async def test_terms_that_make_no_sense_are_refused(
    ledger: Ledger, run: Run, options: tuple[str, ...], names: str
) -> None:
    await _acme(ledger)
    assert names in await run("customer", "terms", "acme", *options, fails=True)
    assert await run("customer", "terms", "acme", "--json") == []


async def test_an_instant_that_has_terms_keeps_them(ledger: Ledger, run: Run) -> None:
    await _acme(ledger)
    command = ("customer", "terms", "acme", "--from", LONG_AGO, "--json", "--discount")
    kept = await run(*command, "0.05")
    assert "never changed" in await run(*command, "0.5", fails=True)
    assert await run("customer", "terms", "acme", "--json") == kept


async def test_calls_without_an_answer_show_as_our_cost(ledger: Ledger, run: Run) -> None:
    told = {"input_tokens": 1_000, "output_tokens": 20}
    ends = [
        Completion(Outcome.FAILED, error_type="ClaudeOverloaded"),
        Completion(Outcome.INDETERMINATE, usage=told),  # 0.002 + 0.0002
        Completion(Outcome.INDETERMINATE),  # 3,000 tokens likely: 0.006
        None,  # in flight
    ]
    for number, end in enumerate(ends):
        key = RequestKey(customer_id="acme", request_id=f"r-{number}")
        now = datetime.now(UTC)
        async with ledger.begin() as tx:
            begun = await attempts.begin(
                tx, NewAttempt(key, "f", MODEL, None, 3_000, 9_000), now, max_unknown=5
            )
            assert isinstance(begun, Begun)
            if end is not None:
                await attempts.complete(tx, begun.attempt_id, end, now)
    (row,) = await run("usage", "--json")
    assert row["customer_id"] == "acme"
    assert (row["requests"], row["charge_usd"]) == (0, "0")
    lost = row["calls_without_answer"]
    assert (lost["failed"], lost["unknown"]) == (1, 2)
    assert Decimal(lost["estimated_cost_usd"]) == Decimal("0.0082")
    assert "'bolt'" in await run("usage", "--customer", "bolt", fails=True)
