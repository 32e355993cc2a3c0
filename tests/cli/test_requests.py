"""`tallystick request` and what can be looked at afterwards."""

import asyncio
import json
from decimal import Decimal
from typing import Any

import pytest

from tallystick.cli import requests
from tests.cli.conftest import Production
from tests.cli.shell import Told


async def test_the_answer_is_on_stdout_and_its_bill_beside_it(production: Production) -> None:
    customer = await production.customer()
    ask = ("request", customer, "What is a tally stick?", "--id", "r-1")
    told, again = await production.shell(*ask), await production.shell(*ask, "--json")
    assert again.json.keys() == {"request_id", "message", "bill"}
    (block,) = again.json["message"]["content"]
    assert told.out == block["text"] + "\n"  # not broken at 80 columns
    assert "request r-1: " in told.err
    assert f"charged ${again.json['bill']['charge_usd']}" in told.err
    assert f"cost ${again.json['bill']['cost_usd']}" in told.err
    refused = await production.shell.attempt("request", customer, "Why oak?", "--id", "r-1")
    assert refused.error.startswith("request_id: 'r-1' was used before with a different body")
    (record,) = _lines(await _export(production, customer))
    assert record["message_id"] == again.json["message"]["id"]


async def test_a_dash_takes_the_prompt_from_stdin(production: Production) -> None:
    customer = await production.customer()
    prompt = "Was kostet der Weg über Köln?\n"
    ask = ("request", customer, "-", "--id", "r-1", "--json")
    piped = await production.shell(*ask, stdin=prompt.encode())
    # The same id with any other body would be refused.
    again = await production.client.messages.create(
        customer_id=customer,
        request_id="r-1",
        model="claude-sonnet-5-5",
        max_tokens=1_024,
        messages=[{"role": "user", "content": prompt}],
    )
    assert again.id == piped.json["message"]["id"]
    refused = await production.shell.attempt(*ask, stdin=b"caf\xe9")
    assert refused.error == "PROMPT: standard input is not UTF-8 text (byte 3)"


async def test_a_person_who_waits_is_told_what_may_be_missing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(requests, "_SLOW", 0.01)
    served = asyncio.Event()
    waiting = asyncio.create_task(requests._told_when_slow(served.wait()))  # type: ignore[arg-type]
    said = ""
    while "tallystick worker" not in said:
        await asyncio.sleep(0.01)
        said += capsys.readouterr().err
    served.set()
    assert await waiting


async def test_a_message_rated_by_hand_costs_what_its_bill_says(production: Production) -> None:
    customer = await production.customer()
    reply = await production.ask(customer, "r-1")
    (record,) = _lines(await _export(production, customer))
    message = json.loads(reply.to_json())
    line = {"id": "r-1", "at": record["served_at"], "message": message}
    rated = await production.shell("rate", "-", stdin=json.dumps(line).encode())
    assert Decimal(rated.json["cost_usd"]) == reply.bill.cost_usd == Decimal(record["cost_usd"])


async def test_usage_adds_up_what_was_asked(production: Production) -> None:
    customer = await production.customer()
    bills = [(await production.ask(customer, f"r-{number}")).bill for number in range(3)]
    (used,) = (await production.shell("usage", "--customer", customer, "--json")).json
    assert used["requests"] == 3
    assert Decimal(used["cost_usd"]) == sum(bill.cost_usd or 0 for bill in bills)
    assert Decimal(used["charge_usd"]) == sum(bill.charge_usd or 0 for bill in bills)
    output = [line for bill in bills for line in bill.lines if line.kind == "output"]
    assert used["tokens"]["output"] == sum(line.quantity for line in output)
    shown = await production.shell("usage", "--customer", customer)
    assert {used["charge_usd"], used["cost_usd"]} <= set(shown.out.split())
    assert max(map(len, shown.out.splitlines())) <= 80


async def test_an_export_has_one_record_a_line(production: Production) -> None:
    customer = await production.customer()
    for number in range(3):
        await production.ask(customer, f"r-{number}")
    records = _lines(await _export(production, customer))
    assert [record["request_id"] for record in records] == ["r-0", "r-1", "r-2"]
    assert all(record["meter_events"] for record in records)
    table = await production.shell("ledger", "export", "--customer", customer)
    assert all(record["effective_charge_usd"] in table.out.split() for record in records)


async def test_a_reader_who_leaves_early_is_no_error_of_the_database(
    production: Production,
) -> None:
    await production.ask(await production.customer(), "r-1")
    leaving = await production.shell.start("ledger", "export", "--json")
    assert leaving.stdout is not None
    assert leaving.stderr is not None
    leaving.stdout._transport.close()  # type: ignore[attr-defined] - as `head` does
    assert await leaving.stderr.read() == b""
    assert await leaving.wait() == 1


async def test_what_stripe_has_not_acknowledged_is_stuck(production: Production) -> None:
    customer = await production.customer()
    await production.stripe.order("server_error", times=None)
    try:
        reply = await production.ask(customer, "r-1")
        told = await production.shell("stuck", "--minutes", "0", "--json")
        (row,) = [row for row in told.json if row["customer_id"] == customer]
        assert row["request_id"] == "r-1"
        assert Decimal(row["at_stake_usd"]) == reply.bill.charge_usd
        assert customer in (await production.shell("stuck", "--minutes", "0")).out
        assert customer not in (await production.shell("stuck")).out  # not for five minutes yet
    finally:
        await production.stripe.disarm()


async def _export(production: Production, customer: str) -> Told:
    return await production.shell("ledger", "export", "--customer", customer, "--json")


def _lines(told: Told) -> list[dict[str, Any]]:
    return [json.loads(line) for line in told.out.splitlines()]
