"""Statements as they are read: real ones, in every format, for the customer and for us."""

import asyncio
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict
from datetime import datetime
from decimal import Decimal
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from tallystick.cli.app import app
from tallystick.ledger import invoices
from tallystick.ledger.account_tables import GrantKind
from tallystick.ledger.database import Ledger
from tallystick.ledger.invoices import Purpose, Seen
from tallystick.ledger.tables import Outcome
from tallystick.plans.statement import Statement
from tallystick.statements.grid import Grid
from tallystick.statements.sheet import InvoiceSeen, Sheet
from tallystick.statements.text import as_text
from tests.rerate.stand import UNKNOWN, another_book, dearer_sonnet
from tests.statements.reading import FEES, numbers, papers, reads_right
from tests.statements.stand import ANCHOR, DAY, HOUR, Account, add_plans

DECEMBER = ANCHOR + 30 * DAY
JANUARY = DECEMBER + 31 * DAY
MILLION = 1_000_000
HOSTILE = '</title><script src="//evil">alert(1)</script> & =1+1'
"""A name that is markup, and a formula in what it says."""
TIERED = {
    "model": "pass-through",
    "markup": "0.123457",
    "commitment_usd": "50",
    "tiers": {
        "mode": "graduated",
        "brackets": [
            {"up_to_usd": "10", "factor": "1"},
            {"up_to_usd": "20", "factor": "0.9"},
            {"factor": "0.85"},
        ],
    },
}


HYBRID = {
    "small": {"base_fee_usd": "30", "allowance": {"usd": "30"}},
    "large": {
        "base_fee_usd": "90",
        "allowance": {"usd": "60"},
        "tiers": {
            "mode": "volume",
            "brackets": [{"up_to_usd": "40", "factor": "1"}, {"factor": "0.5"}],
        },
    },
    # A formula and markup: a plan's name is in descriptions too.
    "=1+<b>1</b>": {"base_fee_usd": "9.99", "allowance": {"tokens": {"input": 400_000}}},
}


def paid(cents: int, at: datetime, **more: Any) -> InvoiceSeen:
    seen = {"purpose": "period", "currency": "usd", "tax_cents": 0} | more
    return InvoiceSeen(
        "in_1", status="paid", total_cents=cents, paid_cents=cents, paid_at=at, **seen
    )


def keeps_our_figures_to_us(statement: Statement, seen: Sequence[InvoiceSeen] = ()) -> None:
    """Check that what we pay and earn is in our copy, and in no format of the customer's."""
    own = statement.operator
    assert own is not None
    costs = {own.cost_usd, *(each.cost_usd for each in own.costs)}
    fees = sum(FEES.fee(each.paid_cents) for each in seen)
    secret = {*costs, own.margin_usd, own.margin_usd - fees, fees} - {Decimal(0)}
    theirs = statement.for_customer()
    for shown in papers(statement, seen).each():
        assert costs <= numbers(shown)
        assert "Margin of this period" in shown
    for shown in (*papers(theirs, seen).each(), theirs.model_dump_json()):
        assert not {abs(each) for each in secret} & numbers(shown)
        for word in ("Margin of", "Claude's price", "earned", "processing", "operator's"):
            assert word not in shown


# --- Every model, in every format -----------------------------------------------------------------
async def test_tiers_a_commitment_late_usage_and_corrections(ledger: Ledger) -> None:
    await add_plans(ledger, tiered=TIERED)
    acme = await Account(ledger).open("tiered", name=HOSTILE)
    await acme.use(ANCHOR - DAY, 1_000_001)
    await acme.use(ANCHOR, 12 * MILLION, 123_457, conversation="talk")
    await acme.use(ANCHOR + DAY, 500_003, 7, service_tier="batch", cache_read_input_tokens=MILLION)
    await acme.use(ANCHOR + DAY, 7, 3, model=UNKNOWN)
    await acme.lose(ANCHOR + DAY, Outcome.INDETERMINATE)
    late = await acme.answered(DECEMBER - HOUR, 1_001, 103)
    november = await acme.close(1)
    seen = [paid(5950, DECEMBER + DAY, tax_cents=950)]
    tables = reads_right(november, seen)
    assert list(tables) == [
        "What is collected",
        "Invoices, as Stripe shows them",
        "Usage",
        "Usage of earlier periods, recorded later",
        "Volume prices (graduated)",
        "Savings in these charges",
        "Margin of this period's service",
        "Claude's price",
    ]
    assert [row[:2] for row in tables["Volume prices (graduated)"].rows[:3]] == [
        ["up to $10.00", "1.00"],
        ["up to $20.00", "0.90"],
        ["without limit", "0.85"],
    ]
    keeps_our_figures_to_us(november, seen)
    shown = papers(november)
    assert HOSTILE in shown.text
    # Markup would have met the reader of the page, which takes no script.
    assert "&lt;/title&gt;&lt;script src=&quot;//evil&quot;&gt;" in shown.html

    await acme.record(late)
    await acme.reprice(another_book(dearer_sonnet, "dearer"))
    december = await acme.close(2)
    corrections = reads_right(december)["Corrections of earlier usage"]
    assert corrections.columns == ["model", "kind", "$"]  # no quantity: only a price was wrong
    assert corrections.rows[-1][0] == "3 corrections"
    keeps_our_figures_to_us(december)


async def test_a_change_of_plan_and_a_total_that_is_given_back(ledger: Ledger) -> None:
    for name, terms in HYBRID.items():
        await add_plans(ledger, **{name: {"model": "hybrid", "markup": "0.25", **terms}})
    acme = await Account(ledger).open("small")
    opening = await acme.settle(0)
    assert opening is not None
    assert list(reads_right(opening)) == ["What is collected"]
    assert "period    opening on 2040-11-01 00:00 UTC\n" in papers(opening).text
    # What the first fee was paid by costs a fee, before anything was earned.
    tables = reads_right(opening, [paid(3000, ANCHOR, purpose="opening")])
    assert tables["Margin of this period's service"].rows[-1] == ["margin", "-1.17"]

    await acme.use(ANCHOR + DAY, 10 * MILLION)
    await acme.move(ANCHOR + 10 * DAY, "large")
    await acme.use(ANCHOR + 11 * DAY, 45 * MILLION)
    november = await acme.close(1)
    # $25 and $112.50; 30/3 + 60 x 2/3 = 50 are included.
    assert reads_right(november)["What of the usage is left to pay"].rows == [
        ["Usage", "137.50"],
        ["included usage of $50.00", "-50.00"],
        ["left to pay", "87.50"],
    ]
    assert reads_right(november)["Volume prices, averaged by time"].rows == [
        ["small", "10 days, 0:00:00", "without limit", "1.00", "87.50", "87.500000000"],
        ["large (volume)", "20 days, 0:00:00", "without limit", "0.50", "87.50", "43.750000000"],
        ["average", "", "", "", "87.50", "58.333333333"],
    ]
    keeps_our_figures_to_us(november)

    await acme.move(DECEMBER + DAY, "=1+<b>1</b>")
    await acme.use(DECEMBER + 2 * DAY, 1_300_003)
    await acme.cancel(DECEMBER + 12.4 * DAY)
    december = await acme.close(2)
    tables = reads_right(december)
    assert december.due_cents < 0
    assert Decimal(tables["What is collected"].rows[-1][-1]) * 100 == december.due_cents
    assert tables["Tokens that the plan includes"].rows[0][:2] == ["input tokens", "147097"]
    keeps_our_figures_to_us(december)
    assert (
        "The plan includes prompts of about 588 pages of text; they came to about 5,200 pages of "
        "text." in december.summary
    )
    text = papers(december.for_customer()).text
    assert f"given back  ${-december.due_cents / 100:.2f}\n" in text
    assert "$-" not in text


async def test_credit_in_a_time_zone_with_an_overdraft(ledger: Ledger) -> None:
    await add_plans(ledger, credit={"model": "prepaid", "markup": "0.777777"})
    acme = await Account(ledger).open("credit", time_zone="Asia/Kolkata")
    await acme.give(5, '=HYPERLINK("//evil")', ANCHOR, kind=GrantKind.PROMOTIONAL)
    await acme.give(50, "top-up:1", ANCHOR + DAY)
    await acme.use(ANCHOR + DAY, 21 * MILLION, 3)
    november = await acme.close(1)
    # 42.00003 x 1.777777 = 74.66668733331, of which 55 was there.
    bought = paid(5950, ANCHOR + DAY, tax_cents=950, purpose="top_up")
    tables = reads_right(november, [bought])
    assert "What is collected" not in tables
    assert tables["Invoices, as Stripe shows them"].rows == [
        ["in_1", "credit", "paid 2040-11-02 05:30 IST", "USD", "59.50", "9.50", "59.50"]
    ]
    assert tables["What of the usage is left to pay"].rows[-1] == ["left to pay", "0.000000000"]
    assert tables["Balance"].rows == [
        ["at the beginning", "", "", "0.000000000"],
        ["granted", '=HYPERLINK("//evil")', "1", "5.000000000"],
        ["granted", "top-up:1", "1", "50.000000000"],
        ["usage", '=HYPERLINK("//evil")', "1", "-5.000000000"],
        ["usage", "top-up:1", "1", "-50.000000000"],
        ["usage", "overdraft", "1", "-19.666687333"],
        ["at the end", "", "", "-19.666687333"],
    ]
    keeps_our_figures_to_us(november, [bought])
    text = papers(november.for_customer()).text
    assert "period    2040-11-01 05:30 IST to 2040-12-01 05:30 IST\n" in text
    assert "The balance is -$19.67.\n" in text


async def test_the_text_of_a_statement(ledger: Ledger) -> None:
    await add_plans(ledger, metered={"model": "pass-through", "markup": "0.2"})
    acme = await Account(ledger).open("metered")
    await acme.use(ANCHOR - DAY, MILLION)  # $2, $2.40
    await acme.use(ANCHOR, 1_000_003, 100_000)  # $3.000006, $3.6000072
    november = await acme.close(1)
    # 2.9 % of the $7.14 that were paid with tax are 0.20706.
    invoice = paid(714, DECEMBER + DAY, tax_cents=114)
    assert papers(november, [invoice]).text == THE_TEXT


THE_TEXT = """\
Statement 1 of Acme
===================
copy      the operator's, with cost and margin
customer  acme
period    2040-11-01 00:00 UTC to 2040-12-01 00:00 UTC
plan      metered
to pay    $6.00

1 request from 2040-11-01 to 2040-12-01 came to $3.60: the prompts were about
4,000 pages of text and the answers about 400 pages of text (250 tokens a page).
Usage of earlier periods that was recorded later adds $2.40.
To pay: $6.00.

What is collected
line                             as                      $  due $
-------------------------------  -------------  ----------  -----
Claude usage, 2040-11-01 to      metered price   3.6000072   3.60
2040-12-01
Claude usage before 2040-11-01,  invoice item    2.4000000   2.40
recorded later
rounding to cents                               -0.0000072
-------------------------------  -------------  ----------  -----
due                                              6.0000000   6.00

Invoices, as Stripe shows them
invoice  status                     currency  total  tax in it  paid
-------  -------------------------  --------  -----  ---------  ----
in_1     paid 2040-12-02 00:00 UTC  USD        7.14       1.14  7.14

Usage
model              kind            quantity          $
-----------------  -------------  ---------  ---------
claude-sonnet-5-5  input tokens   1,000,003  2.4000072
claude-sonnet-5-5  output tokens    100,000  1.2000000
-----------------  -------------  ---------  ---------
1 request                                    3.6000072

Usage of earlier periods, recorded later
model              kind           quantity     $
-----------------  ------------  ---------  ----
claude-sonnet-5-5  input tokens  1,000,000  2.40
-----------------  ------------  ---------  ----
1 request                                   2.40

Margin of this period's service
line                                       $
--------------------------------  ----------
earned                             6.0000072
Claude's price for the answers    -5.0000060
processing fees on what was paid  -0.5070600
--------------------------------  ----------
margin                             0.4929412

Claude's price
section                             model              kind                  $
----------------------------------  -----------------  -------------  --------
Usage                               claude-sonnet-5-5  input tokens   2.000006
Usage                               claude-sonnet-5-5  output tokens  1.000000
Usage of earlier periods, recorded  claude-sonnet-5-5  input tokens   2.000000
later
----------------------------------  -----------------  -------------  --------
in all                                                                5.000006
"""


def test_wide_letters_keep_their_columns_and_control_characters_are_left_out() -> None:
    grid = Grid("Usage", ("model", "$"), (("語語語", Decimal(1)), ("a\x1b[2Jb\nc", Decimal("-0"))))
    text = as_text(Sheet("Statement 1 of 語\x1b", (("customer", "a\nb"),), (), (grid,)))
    assert text.splitlines() == [
        "Statement 1 of 語",
        "=================",
        "customer  a b",
        "",
        "",
        "Usage",
        "model        $",
        "--------  ----",
        "語語語    1.00",
        "a [2Jb c  0.00",
    ]


# --- At a terminal --------------------------------------------------------------------------------
Run = Callable[..., Any]


@pytest.fixture
def run(database_url: str, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run `tallystick statement` and return what it prints, or the error that ends it."""
    monkeypatch.setenv("DATABASE_URL", database_url)

    async def command(*arguments: str, fails: bool = False) -> str:
        command = ["statement", *arguments]
        result: Result = await asyncio.to_thread(CliRunner().invoke, app, command)
        assert (result.exit_code != 0) == fails, result.output
        assert not (fails and result.stdout)
        return result.stderr if fails else result.stdout_bytes.decode()

    return command


async def note(
    ledger: Ledger, invoice_id: str, purpose: Purpose, ordinal: int | None, at: datetime
) -> InvoiceSeen:
    """Have the ledger know an invoice of $10 that was paid at an instant."""
    seen = Seen(
        stripe_invoice_id=invoice_id,
        status="paid",
        currency="usd",
        total_cents=1000,
        tax_cents=160,
        amount_due_cents=1000,
        amount_paid_cents=1000,
        created_at=at - HOUR,
        finalized_at=at - HOUR,
        due_at=None,
        paid_at=at,
        failing=False,
        failure=None,
        attempt_count=1,
        next_payment_attempt=None,
        hosted_url=None,
        checked_at=at,
    )
    async with ledger.begin() as tx:
        await invoices.note(tx, seen, "acme", purpose=purpose, ordinal=ordinal)
    return InvoiceSeen(invoice_id, purpose, "paid", "usd", 1000, 160, 1000, None, at)


async def test_the_command_writes_every_format(
    ledger: Ledger, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    await add_plans(ledger, metered={"model": "pass-through", "markup": "0.2"})
    acme = await Account(ledger).open("metered", name=HOSTILE)
    await acme.use(ANCHOR, 1_000_003)
    november = await acme.close(1)
    december = await acme.close(2)
    seen = [
        await note(ledger, "in_opening", "opening", 1, ANCHOR + DAY),
        await note(ledger, "in_period", "period", 1, DECEMBER + DAY),
        # Credit counts by when it was paid: on the last day before December, or on its first.
        await note(ledger, "in_credit", "top_up", None, DECEMBER - HOUR),
    ]
    await note(ledger, "in_next", "top_up", None, DECEMBER)

    ours, theirs = papers(november, seen), papers(november.for_customer(), seen)
    assert await run("acme", "1") == theirs.text
    assert await run("acme", "1", "--format", "csv") == theirs.csv
    assert await run("acme", "1", "--format", "html") == theirs.html
    assert await run("acme", "1", "--operator") == ours.text
    assert await run("acme", "1", "--operator", "--format", "csv") == ours.csv
    as_json = json.loads(await run("acme", "1", "--format", "json"))
    shown = [json.loads(json.dumps(asdict(each), default=datetime.isoformat)) for each in seen]
    assert as_json.pop("invoices") == shown
    assert as_json == november.for_customer().model_dump(mode="json")
    assert await run("acme", "1", "--json") == await run("acme", "1", "--format", "json")
    # Three payments of $10: 3 x (0.29 + 0.30), and with other terms 3 x (0.50 + 0.30).
    as_json = json.loads(await run("acme", "1", "--operator", "--json"))
    assert as_json["processing_fees_usd"] == "1.77"
    assert as_json["operator"] == november.model_dump(mode="json")["operator"]
    monkeypatch.setenv("TALLYSTICK_FEE_PERCENT", "5")
    assert "processing fees on what was paid  -2.4000000\n" in await run("acme", "1", "--operator")

    # The latest statement, without a number.
    assert (await run("acme")).startswith("Statement 2 of ")
    assert "in_next" in await run("acme")
    assert (
        await run("acme", "--list")
        == """\
period  from                  to                    plan       usage $  due $
------  --------------------  --------------------  -------  ---------  -----
     1  2040-11-01 00:00 UTC  2040-12-01 00:00 UTC  metered  2.4000072   2.40
     2  2040-12-01 00:00 UTC  2041-01-01 00:00 UTC  metered  0.0000000   0.00
"""
    )
    whole = json.loads(await run("acme", "--list", "--operator", "--json"))
    assert whole == [each.model_dump(mode="json") for each in (november, december)]
    told = json.loads(await run("acme", "--list", "--format", "json"))
    assert told == [each.for_customer().model_dump(mode="json") for each in (november, december)]


async def test_the_command_says_what_there_is_not(ledger: Ledger, run: Run) -> None:
    assert "no customer 'nobody'" in await run("nobody", fails=True)
    await add_plans(ledger, metered={"model": "pass-through"})
    acme = await Account(ledger).open("metered")
    assert "customer 'acme' has no statement yet" in await run("acme", fails=True)
    await acme.close(1)
    assert "no statement 2; see them with --list" in await run("acme", "2", fails=True)
    assert "Invalid value for 'PERIOD'" in await run("acme", "november", fails=True)
    assert "'pdf' is not one of" in await run("acme", "--format", "pdf", fails=True)
    told = await run("acme", "--list", "--format", "html", fails=True)
    assert "--format: html is for one statement" in told
