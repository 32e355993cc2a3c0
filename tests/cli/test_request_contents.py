"""`customer content` and `ledger content`: switched on, read, and why there is nothing to read."""

from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import insert, text, update
from sqlmodel import col

from tallystick.ledger.content_tables import ContentTerms
from tallystick.ledger.tables import UsageRecord
from tests.cli.conftest import Production


async def _show(production: Production, customer: str) -> Any:
    return (await production.shell("customer", "show", customer, "--json")).json


async def test_content_is_switched_on_read_and_erased_at_a_terminal(production: Production) -> None:
    customer, shell = await production.customer(), production.shell
    await production.ask(customer, "before")
    told = await shell("customer", "content", customer, "--days", "30")
    assert told.err == f"customer '{customer}': kept for 30 days\n"
    reply = await production.ask(customer, "on")

    read = (await shell("ledger", "content", customer, "on", "--by", "ada", "--json")).json
    assert read["params"]["messages"][0]["content"] == "<on> What is a tally stick?"
    assert read["reply"]["id"] == reply.id
    shown = await shell("ledger", "content", customer, "on")
    assert "user:\n<on> What is a tally stick?" in shown.out
    assert f"reply:\n{reply.content[0].text}" in shown.out
    assert "kept for 30 days; requests kept: 1" in (await shell("customer", "show", customer)).out
    facts = await _show(production, customer)
    assert (facts["content"]["days"], facts["content"]["requests"]) == (30, 1)
    first = facts["operator_actions"][-1]
    assert (first["by"], first["action"], first["subject"]) == (
        "ada",
        "read",
        f"usage/{customer}/on",
    )

    async def why(request_id: str) -> str:
        return (await shell.attempt("ledger", "content", customer, request_id, "--json")).error

    assert "no recorded request 'never'" in await why("never")
    assert "keeping was not switched on when it was recorded" in await why("before")
    off = await shell("customer", "content", customer, "--off", "--json")
    assert (off.json["days"], off.json["requests"]) == (None, 1)
    erased = await shell("customer", "content", customer, "--erase", "--by", "ada")
    assert "requests whose content is removed: 1;" in erased.err
    assert "when it was erased" in await why("on")
    facts = await _show(production, customer)
    assert facts["content"] == {"days": None, "requests": 0, "last_goes_at": None}
    outcome = facts["operator_actions"][0]["outcome"]
    assert outcome == "content removed of requests: 1; results of batch jobs: 0"


async def test_what_is_past_its_date_says_since_when_it_is_gone(production: Production) -> None:
    customer = await production.customer()
    await production.ask(customer, "old")
    then = datetime.now(UTC) - timedelta(days=40)
    async with production.ledger.begin() as tx:
        # Nobody can write the past otherwise.
        await tx.execute(text("SET LOCAL session_replication_role = replica"))
        of_customer = col(UsageRecord.customer_id) == customer
        await tx.execute(update(UsageRecord).where(of_customer).values(recorded_at=then))
        row = {"customer_id": customer, "valid_from": then, "days": 30, "erases": False}
        await tx.execute(insert(ContentTerms).values(row))
    since = f"{then + timedelta(days=30):%Y-%m-%d %H:%M} UTC"
    told = await production.shell.attempt("ledger", "content", customer, "old")
    assert told.error == f"REQUEST: its content is gone since {since}, after 30 days"


async def test_days_that_make_no_sense_are_refused(production: Production) -> None:
    customer = await production.customer()
    told = await production.shell.attempt("customer", "content", customer, "--days", "3", "--off")
    assert told.error == "--off: leaves no days to keep anything for"
    told = await production.shell.attempt("customer", "content", customer, "--days", "3651")
    assert "less than or equal to 3650" in told.err
