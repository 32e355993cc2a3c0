"""One account of each model in a real ledger, every figure worked out beside it."""

from decimal import Decimal

from tallystick.ledger import outbox
from tallystick.ledger.account_tables import GrantKind
from tallystick.ledger.database import Ledger
from tallystick.ledger.tables import Outcome
from tallystick.plans.periods import Period
from tallystick.plans.statement import LostAttempts, Section, Statement
from tallystick.plans.writing import NONE_LOST
from tests.rerate.stand import UNKNOWN, another_book, dearer_sonnet, knows_the_unknown
from tests.statements.stand import ANCHOR, DAY, HOUR, Account, add_plans

DECEMBER = ANCHOR + 30 * DAY
JANUARY = DECEMBER + 31 * DAY
MILLION = 1_000_000


def lines(statement: Statement) -> list[tuple[str, str, str, int]]:
    """What each line collects: kind, collector, dollars, cents."""
    return [
        (line.kind, line.collected_by, f"{line.amount_usd.normalize():f}", line.amount_cents)
        for line in statement.lines
    ]


def used(section: Section) -> list[tuple[str, int, str]]:
    """What was used: kind, quantity, dollars."""
    return [
        (line.kind.value, line.quantity, f"{line.charge_usd.normalize():f}")
        for line in section.lines
    ]


async def test_pass_through(ledger: Ledger) -> None:
    await add_plans(ledger, metered={"model": "pass-through", "markup": "0.2"})
    acme = await Account(ledger).open("metered")
    assert await acme.settle(0) is None  # there is no fee to begin with

    # November. Sonnet 5.5 is $2 a million in and $10 out, $0.10 read from the cache; x 1.2.
    await acme.use(ANCHOR - DAY, MILLION)  # before the account was opened: $2.40, late
    await acme.use(ANCHOR, MILLION, 100_000)  # $2 + $1 = $3, $3.60
    await acme.use(ANCHOR + DAY, 500_000, service_tier="batch")  # $1 / 2, $0.60; saved $0.60
    await acme.use(  # $0.10, $0.12; as input it would have been $2.40, so it saved $2.28
        ANCHOR + DAY, 0, 0, cache_read_input_tokens=MILLION
    )
    late = await acme.answered(DECEMBER - HOUR, 1_000, 100)  # $0.002 + $0.001 = $0.003, $0.0036
    await acme.use(DECEMBER, MILLION)  # December's, and recorded before November is closed
    november = await acme.close(1)
    assert {name: used(section) for name, section in november.sections.items()} == {
        "usage": [
            ("input", 1_500_000, "3"),
            ("output", 100_000, "1.2"),
            ("cache_read", MILLION, "0.12"),
        ],
        "late_usage": [("input", MILLION, "2.4")],
    }
    assert lines(november) == [
        ("usage", "metered", "4.32", 432),
        ("late_usage", "item", "2.4", 240),
    ]
    assert (november.savings.cache_usd, november.savings.batch_usd) == (
        Decimal("2.28"),
        Decimal("0.6"),
    )
    assert november.operator is not None
    # Cost 2 + 3 + 0.5 + 0.1 = 5.6, of 6.72.
    assert (november.operator.cost_usd, november.operator.margin_usd) == (
        Decimal("5.6"),
        Decimal("1.12"),
    )

    # December: late usage, a reply of a model whose price is learnt later, and a correction.
    await acme.record(late)
    await acme.use(DECEMBER + DAY, MILLION, model=UNKNOWN)
    assert await acme.reprice(another_book(knows_the_unknown, "knows")) == 1  # $2, $2.40
    # Output becomes $12 instead of $10: +$2 a million on the 100,000 of November and the 100 that
    # came late, x 1.2: $0.24 and $0.00024.
    assert await acme.reprice(another_book(dearer_sonnet, "dearer")) == 2
    december = await acme.close(2)
    assert {name: used(section) for name, section in december.sections.items()} == {
        # $2.40 by now, and the first price is no correction.
        "usage": [("input", MILLION, "2.4"), ("input", MILLION, "2.4")],
        "late_usage": [("input", 1_000, "0.0024"), ("output", 100, "0.0012")],
        "adjustments": [("output", 0, "0.24024")],
    }
    assert [line.model for line in december.sections["usage"].lines] == [
        "claude-sonnet-5-5",
        UNKNOWN,
    ]
    assert december.sections["adjustments"].records == 2
    # 4.80 -> 480. So far 4.8036 -> 480: 0. So far 5.04384 -> 504: 24.
    assert lines(december) == [
        ("usage", "metered", "4.8", 480),
        ("late_usage", "item", "0.0036", 0),
        ("adjustments", "item", "0.24024", 24),
    ]
    assert (december.due_cents, december.remainder_usd) == (504, Decimal("0.00384"))
    assert november.usage_usd + december.usage_usd == Decimal(await acme.charged_nano()) / 10**9


async def test_usage_that_stripe_was_never_told_of_is_an_item(ledger: Ledger) -> None:
    await add_plans(ledger, metered={"model": "pass-through"})
    acme = await Account(ledger).open("metered")
    await acme.use(ANCHOR - DAY, MILLION)  # late: on no metered line
    await acme.use(ANCHOR + DAY, 2 * MILLION)  # $4
    await acme.close_books(1)
    async with ledger.begin() as tx:
        assert await outbox.withdraw_waiting(tx, acme.customer, Period(ANCHOR, DECEMBER), DECEMBER)
    await acme.use(DECEMBER + DAY, MILLION)
    november = await acme.close(1)
    assert lines(november) == [
        ("usage", "metered", "0", 0),
        ("unmetered_usage", "item", "4", 400),
        ("late_usage", "item", "2", 200),
    ]
    assert lines(await acme.close(2)) == [("usage", "metered", "2", 200)]


async def test_hybrid(ledger: Ledger) -> None:
    small = {
        "model": "hybrid",
        "base_fee_usd": "30",
        "allowance": {"usd": "30"},
        "commitment_usd": "15",
    }
    large = {
        "model": "hybrid",
        "base_fee_usd": "90",
        "allowance": {"usd": "60"},
        "tiers": {
            "mode": "volume",
            "brackets": [{"up_to_usd": "40", "factor": "1"}, {"factor": "0.5"}],
        },
    }
    await add_plans(ledger, small=small, large=large)
    acme = await Account(ledger).open("small")
    opening = await acme.settle(0)
    assert opening is not None
    assert lines(opening) == [("base_fee", "subscription", "30", 3000)]
    assert (opening.period_start, opening.period_end) == (ANCHOR, ANCHOR)
    assert opening.summary == (
        "The base fee of the first period is $30.00.",
        "To pay: $30.00.",
    )

    # November: small for 10 days, large for 20. Included 30/3 + 60 x 2/3 = 50.
    await acme.use(ANCHOR + DAY, 10 * MILLION)  # $20
    await acme.move(ANCHOR + 10 * DAY, "large")
    await acme.use(ANCHOR + 11 * DAY, 45 * MILLION)  # $90
    november = await acme.close(1)
    # Of $110, $60 are beyond. Tiers 60 x 1/3 + 30 x 2/3 = 40; committed 15/3 = 5. Of the fee 20 is
    # unused, 60 is for the rest, and the next one is 90.
    assert lines(november) == [
        ("overage", "item", "60", 6000),
        ("tiers", "item", "-20", -2000),
        ("proration", "item", "-20", -2000),
        ("proration", "item", "60", 6000),
        ("base_fee", "subscription", "90", 9000),
    ]
    assert [(each.plan, each.start) for each in november.segments] == [
        ("small", ANCHOR),
        ("large", ANCHOR + 10 * DAY),
    ]
    assert november.operator is not None
    # 60 - 20 - 20 + 60, and the 30 that were collected for November.
    assert november.operator.earned_usd == 110

    # December: the account ends after 12.4 of 31 days: 60 x 0.4 = 24 included, 90 x 0.6 back.
    await acme.use(DECEMBER + DAY, 15 * MILLION)  # $30
    ends = DECEMBER + 12.4 * DAY
    in_flight = await acme.answered(ends + HOUR, MILLION)  # $2, asked for before the end
    await acme.cancel(ends)
    await acme.record(in_flight)
    december = await acme.close(2)
    assert lines(december) == [
        ("overage", "item", "8", 800),
        ("proration", "item", "-54", -5400),
    ]
    assert (december.period_end, december.due_cents) == (ends, -4600)
    statements = [opening, november, december]
    assert sum(each.usage_usd for each in statements) == 110 + 32
    # Fees: 30/3 + 90 x 2/3 + 90 x 0.4 = 106; usage 40 + 8.
    assert sum(each.due_cents for each in statements) == 10600 + 4800


async def test_prepaid_and_then_hybrid(ledger: Ledger) -> None:
    await add_plans(
        ledger,
        credit={"model": "prepaid"},
        monthly={"model": "hybrid", "base_fee_usd": "49", "allowance": {"usd": "10"}},
    )
    acme = await Account(ledger).open("credit")
    await acme.give(5, "promotion:spring", ANCHOR, kind=GrantKind.PROMOTIONAL)
    await acme.give(50, "top-up:1", ANCHOR + DAY)
    await acme.use(ANCHOR + DAY, MILLION)  # $2
    await acme.use(ANCHOR + 2 * DAY, 5 * MILLION)  # $10: 3 of the promotion, 7 of the top-up
    late = await acme.answered(DECEMBER - HOUR, 3 * MILLION)  # $6
    await acme.move(ANCHOR + 20 * DAY, "monthly")  # takes effect in December
    november = await acme.close(1)
    assert lines(november) == [
        ("base_fee", "new_subscription", "49", 4900),
        ("credits", "wallet", "12", 0),
    ]
    assert november.wallet is not None
    moved = [
        (each.kind, each.grant, each.count, each.amount_usd) for each in november.wallet.movements
    ]
    assert moved == [
        ("granted", "promotion:spring", 1, 5),
        ("granted", "top-up:1", 1, 50),
        ("usage", "promotion:spring", 2, -5),
        ("usage", "top-up:1", 1, -7),
    ]
    assert (november.wallet.opening_usd, november.wallet.closing_usd) == (0, 43)
    assert november.operator is not None
    assert november.operator.earned_usd == 7

    # December is on the subscription, but what was served in November is paid from credit.
    await acme.record(late)
    await acme.use(DECEMBER + DAY, 6 * MILLION)  # $12, of which 10 are included
    december = await acme.close(2)
    assert december.model == "hybrid"
    assert lines(december) == [
        ("overage", "item", "2", 200),
        ("base_fee", "subscription", "49", 4900),
        ("credits", "wallet", "6", 0),
    ]
    assert december.wallet is not None
    assert (december.wallet.opening_usd, december.wallet.closing_usd) == (43, 37)
    assert (november.usage_usd, december.usage_usd) == (12, 18)


async def test_conversations_lost_calls_and_unknown_prices_are_told(ledger: Ledger) -> None:
    await add_plans(ledger, metered={"model": "pass-through"})
    acme = await Account(ledger).open("metered")
    # Turns of 1,000 and 1,100 tokens; the second begins with the first and its answer of 50.
    await acme.use(ANCHOR + DAY, 1_000, 50, conversation="talk")
    await acme.use(ANCHOR + DAY + HOUR, 1_100, 50, conversation="talk")
    await acme.use(ANCHOR + DAY, 7, 0, model=UNKNOWN)
    await acme.lose(ANCHOR + DAY, Outcome.FAILED)
    await acme.lose(ANCHOR + DAY, Outcome.INDETERMINATE)  # 1,000 tokens at $2 a million
    november = await acme.close(1)
    assert november.operator is not None
    assert november.operator.lost == LostAttempts(
        failed=1, unknown=1, estimated_cost_usd=Decimal("0.002")
    )
    history = november.history
    assert history is not None
    # 1,050 of 1,100 tokens at $2 a million.
    assert (history.turns, history.resent_tokens, history.resent_usd) == (
        2,
        1_050,
        Decimal("0.0021"),
    )
    assert (november.unpriced, november.sections["usage"].records) == (1, 2)
    # A conversation that goes on in the next period has its history in the one before.
    await acme.use(DECEMBER + DAY, 1_200, 50, conversation="talk")
    december = await acme.close(2)
    assert december.history is not None
    assert december.history.resent_tokens == 1_150
    assert december.unpriced == 0
    assert december.operator is not None
    assert december.operator.lost == NONE_LOST
