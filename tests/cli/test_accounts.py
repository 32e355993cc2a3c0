"""Accounts at a terminal: opened, moved, cancelled, and shown with what happens next."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from temporalio.client import WorkflowExecutionStatus

from tallystick.contracts import cycle_workflow_id
from tallystick.embedded import free_port
from tallystick.ledger import accounts, customers
from tallystick.ledger.tables import Customer
from tallystick.temporal import connect_temporal
from tests.cli.conftest import Production


async def _shown(production: Production, customer: str) -> Any:
    return (await production.shell("customer", "show", customer, "--json")).json


def _at(text: str) -> datetime:
    return datetime.fromisoformat(text)


async def _runs(production: Production, customer: str) -> bool:
    client = await connect_temporal(production.shell.environment["TEMPORAL_ADDRESS"])
    cycle = await client.get_workflow_handle(cycle_workflow_id(customer)).describe()
    return cycle.status == WorkflowExecutionStatus.RUNNING


async def test_a_customer_is_added_with_an_account_and_its_cycle(production: Production) -> None:
    before = datetime.now(UTC)
    await production.shell("customer", "add", "opened", "--time-zone", "Asia/Tokyo")
    shown = await _shown(production, "opened")
    account, period = shown["account"], shown["period"]
    assert account["time_zone"] == "UTC"  # as Stripe counts its subscription
    assert before - timedelta(minutes=1) <= _at(account["anchor"]) <= datetime.now(UTC)
    assert (period["ordinal"], period["start"]) == (1, account["anchor"])
    assert (period["requests"], period["charge_usd"]) == (0, "0")
    assert await _runs(production, "opened")

    bill = (await production.ask("opened", "r-1")).bill
    table = await production.shell("customer", "show", "opened")
    assert f"used in it $ {bill.charge_usd} " in " ".join(table.out.split())
    assert "What happens next; the account is active" in table.out


async def test_a_prepaid_account_is_counted_in_the_customers_zone_from_its_anchor(
    production: Production,
) -> None:
    anchor = (datetime.now(UTC) - timedelta(days=9)).date()
    add = ("customer", "add", "tokyo", "--plan", "prepaid", "--time-zone", "Asia/Tokyo")
    await production.shell(*add, "--anchor", anchor.isoformat())
    shown = await _shown(production, "tokyo")
    assert shown["account"]["time_zone"] == "Asia/Tokyo"
    assert _at(shown["account"]["anchor"]) == _at(f"{anchor}T00:00:00+09:00")
    assert shown["balance_usd"] == "0"


@pytest.mark.parametrize(
    ("days", "words"), [(40, "is more than a month ago"), (-1, "is still to come")]
)
async def test_a_first_period_that_is_not_open_is_refused(
    production: Production, days: int, words: str
) -> None:
    anchor = (datetime.now(UTC) - timedelta(days=days)).isoformat()
    told = await production.shell.attempt("customer", "add", "unborn", "--anchor", anchor)
    assert told.error.startswith("--anchor: the first period has to be open now; ")
    assert told.error.endswith(words)
    shown = await production.shell.attempt("customer", "show", "unborn")
    assert shown.error.startswith("CUSTOMER: no customer 'unborn'")


async def test_a_customer_from_before_there_were_accounts_is_given_one(
    production: Production,
) -> None:
    customer = await production.customer()
    shown = await production.shell("customer", "show", customer)
    assert f"none; `tallystick customer open {customer}` opens one" in shown.out
    assert (await _shown(production, customer))["agenda"] is None
    await production.shell("customer", "open", customer)
    assert (await _shown(production, customer))["account"]
    again = await production.shell("customer", "open", customer)
    assert again.err.startswith(f"customer {customer!r} has an account since ")
    assert await _runs(production, customer)


async def test_an_account_is_opened_while_temporal_is_away_and_what_is_next_is_known(
    production: Production,
) -> None:
    nowhere = {"TEMPORAL_ADDRESS": f"127.0.0.1:{free_port()}"}
    added = await production.shell("customer", "add", "alone", **nowhere)
    assert "`tallystick customer open alone` has it looked at at once" in added.err
    shown = await production.shell("customer", "show", "alone", "--json", **nowhere)
    assert shown.err.startswith("the account's cycle does not answer; ")
    agenda = shown.json["agenda"]
    assert _at(agenda["period_end"]) == _at(shown.json["period"]["end"])
    assert agenda["dues"]
    await production.shell("customer", "open", "alone")
    assert await _runs(production, "alone")


async def test_a_move_within_the_model_is_at_once_and_another_waits_for_the_period(
    production: Production,
) -> None:
    await production.shell("customer", "add", "mover")
    period_end = (await _shown(production, "mover"))["period"]["end"]

    moved = (await production.shell("customer", "move", "mover", "at-cost", "--json")).json
    assert _at(moved["valid_from"]) <= datetime.now(UTC)
    bill = (await production.ask("mover", "r-1")).bill
    assert bill.charge_usd == bill.cost_usd

    moved = (await production.shell("customer", "move", "mover", "prepaid", "--json")).json
    assert moved["valid_from"] == period_end
    shown = await _shown(production, "mover")
    assert (shown["plan"], shown["moves_to"]["plan"]) == ("at-cost", "prepaid")
    again = await production.shell.attempt("customer", "move", "mover", "prepaid")
    assert again.error == (
        "PLAN: customer 'mover' is not moved: it moves to plan 'prepaid' already"
    )

    back = await production.shell("customer", "move", "mover", "at-cost")
    assert f"its move to plan 'prepaid' at {period_end} is off" in back.err
    shown = await _shown(production, "mover")
    assert (shown["plan"], shown["moves_to"]) == ("at-cost", None)
    unknown = await production.shell.attempt("customer", "move", "mover", "none")
    assert unknown.error.startswith("PLAN: no plan 'none' is in force; ")


async def test_an_account_is_cancelled_with_its_period_or_within_the_minute(
    production: Production,
) -> None:
    await production.shell("customer", "add", "leaver")
    period_end = (await _shown(production, "leaver"))["period"]["end"]
    told = (await production.shell("customer", "cancel", "leaver", "--json")).json
    assert told["cancel_at"] == period_end
    moved = await production.shell.attempt("customer", "move", "leaver", "prepaid")
    assert moved.error.endswith(f"its account ends first, at {period_end}")
    again = await production.shell.attempt("customer", "cancel", "leaver", "--at-period-end")
    assert again.error == f"CUSTOMER: the account of 'leaver' ends at {period_end} already"

    before = datetime.now(UTC)
    told = (await production.shell("customer", "cancel", "leaver", "--now", "--json")).json
    ends = _at(told["cancel_at"])
    assert before < ends <= datetime.now(UTC) + timedelta(minutes=1)
    assert ends.second == 0
    assert _at((await _shown(production, "leaver"))["period"]["end"]) == ends


async def test_what_has_ended_stays_so_whatever_is_tried(production: Production) -> None:
    customer, now = await production.customer(), datetime.now(UTC)
    reason = customers.ended_words(now)
    async with production.ledger.begin() as tx:
        await accounts.open_account(tx, customer, now - timedelta(days=1), "UTC", now)
        await accounts.set_cancel_at(tx, customer, now)
    refused = await production.shell.attempt("request", customer, "Anyone there?")
    assert refused.error == f"customer {customer!r} is suspended: {reason}"
    for command in (["resume", customer], ["suspend", customer, "--reason", "unpaid"]):
        told = await production.shell.attempt("customer", *command)
        assert told.error.endswith(reason)


async def test_terms_are_not_agreed_for_what_is_closed(production: Production) -> None:
    name = "shut"
    row = Customer(customer_id=name, name=name, plan="at-cost", stripe_customer_id="cus_closed")
    now = datetime.now(UTC)
    async with production.ledger.begin() as tx:
        await customers.add(tx, row)
        await accounts.open_account(tx, name, now - timedelta(days=9), "UTC", now)
        await accounts.close_until(tx, name, now - timedelta(days=1))
    day = (now - timedelta(days=3)).date().isoformat()
    agree = ("customer", "terms", name, "--markup", "0.1", "--from")
    assert (await production.shell.attempt(*agree, day)).error.startswith("--from: all before ")
    await production.shell(*agree, now.isoformat())


async def test_a_customer_of_stripe_is_one_customer_of_ours(production: Production) -> None:
    await production.shell("customer", "add", "first", "--stripe-customer", "cus_shared")
    told = await production.shell.attempt(
        "customer", "add", "second", "--stripe-customer", "cus_shared"
    )
    assert told.error == "--stripe-customer: cus_shared is customer 'first' already"
