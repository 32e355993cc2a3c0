"""One year of three customers, one per model, to the last digit.

Everything is at $2 a million tokens of prompt (Sonnet 5.5), so that each figure can be worked out
in a comment. The year has month ends from an anchor on the 31st, a 29 February, both changes of
summer time, two plan changes, three payment failures (one on a Friday evening), a card replaced,
usage that was recorded after its invoice was final, and a cancellation.
"""

from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any
from zoneinfo import ZoneInfo

from temporalio.client import Client as TemporalClient

from activities.waking import wake
from tallystick.contracts import News
from tallystick.ledger import accounts, customers, top_ups, wallet
from tallystick.ledger.account_tables import GrantKind
from tallystick.ledger.tables import CustomerStatus
from tests.cycles.town import Town, open_town

MILLION = 1_000_000
USD = 10**9
BERLIN = ZoneInfo("Europe/Berlin")

FERRY = datetime(2027, 3, 31, tzinfo=UTC)
HARBOUR = datetime(2027, 3, 15, 18, 30, tzinfo=UTC)
PILOT = datetime(2027, 3, 31, tzinfo=BERLIN)


def _at(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


Deed = Callable[[Town], Awaitable[Any]]


def _script() -> list[tuple[datetime, Deed]]:
    """Return what people do over the year, each thing at its instant."""
    deeds: list[tuple[datetime, Deed]] = []

    def at(text: str, deed: Deed) -> None:
        deeds.append((_at(text), deed))

    # ferry uses n million tokens and one token of answer in its n-th period.
    for number, day in enumerate(
        ["2027-04-10", "2027-05-10", "2027-06-10", "2027-07-10", "2027-08-10", "2027-09-10",
         "2027-10-10", "2027-11-10", "2027-12-10", "2028-01-10", "2028-02-10", "2028-03-10"], 1
    ):  # fmt: skip
        at(f"{day}T12:00", _uses("ferry", f"{day}T12:00", number * MILLION, 1))
    # Recorded on 2 June, three days after its period's invoice was final.
    at("2027-06-02T09:00", _uses("ferry", "2027-05-30T09:00", MILLION // 2))
    at("2027-09-10T13:00", lambda town: town.move("ferry", "mix", _at("2027-09-10T13:00")))

    # harbour uses 15 million tokens in the middle of each period; in its last on 20 February.
    for day in (
        "2027-04-01", "2027-05-01", "2027-06-01", "2027-07-08", "2027-08-01", "2027-09-01",
        "2027-10-01", "2027-11-01", "2027-12-01", "2028-01-01", "2028-02-01", "2028-02-20",
    ):  # fmt: skip
        at(f"{day}T12:00", _uses("harbour", f"{day}T12:00", 15 * MILLION))
    at("2027-07-01T06:30", lambda town: town.move("harbour", "large", _at("2027-07-01T06:30")))
    at("2027-10-10T09:00", lambda t: t.give_card("harbour", "pm_card_chargeDeclinedExpiredCard"))
    at("2027-10-19T10:00", lambda town: town.give_card("harbour", "pm_card_visa"))
    at("2027-12-10T09:00", lambda town: town.fails_once("harbour", "insufficient_funds"))
    at("2028-02-25T06:30", lambda town: town.cancel("harbour", _at("2028-02-25T06:30")))

    # pilot uses 5 million tokens ($10, $12.50 with its markup) a period.
    for day in (
        "2027-04-15", "2027-05-15", "2027-06-15", "2027-07-15", "2027-08-15", "2027-09-15",
        "2027-10-15", "2027-11-15", "2027-12-15", "2028-01-15", "2028-02-15", "2028-03-15",
    ):  # fmt: skip
        at(f"{day}T08:00", _uses("pilot", f"{day}T08:00", 5 * MILLION))
    at("2027-10-14T08:00", lambda t: t.give_card("pilot", "pm_card_chargeDeclined"))
    at("2027-10-20T08:00", _new_card_and_credit)
    return sorted(deeds, key=lambda deed: deed[0])


def _uses(name: str, text: str, prompt: int, answer: int = 0) -> Deed:
    return lambda town: town.use(name, _at(text), prompt, answer)


async def _first_credit(town: Town) -> None:
    """$30 paid and $5 given, which expires on 10 May."""
    async with town.ledger.begin() as tx:
        account = await accounts.lock(tx, "pilot")
        assert account is not None
        for kind, dollars, source, expires in (
            (GrantKind.PAID, 30, "contract", None),
            (GrantKind.PROMOTIONAL, 5, "welcome", _at("2027-05-10T00:00")),
        ):
            await wallet.grant(
                tx, account, kind=kind, nano_usd=dollars * USD, source=source,
                at=PILOT.astimezone(UTC), expires_at=expires,
            )  # fmt: skip


async def _new_card_and_credit(town: Town) -> None:
    await town.give_card("pilot", "pm_card_visa")
    async with town.ledger.begin() as tx:
        account = await accounts.lock(tx, "pilot")
        assert account is not None
        at = _at("2027-10-20T08:00")
        await top_ups.open_top_up(tx, "pilot", 50 * USD, automatic=False, at=at)
    await wake(town.temporal, "pilot", News())


async def _standing(town: Town, name: str) -> CustomerStatus:
    async with town.ledger.begin() as tx:
        customer = await customers.get(tx, name)
    assert customer is not None
    return CustomerStatus(customer.status)


async def _due(
    town: Town, name: str, ordinal: int
) -> tuple[list[tuple[str, str, Decimal, int]], int]:
    """Return a statement's lines to collect and its total in cents."""
    statement = await town.statement(name, ordinal)
    lines = [
        (line.kind, line.collected_by, line.amount_usd, line.amount_cents)
        for line in statement.lines
    ]
    return lines, statement.due_cents


async def test_a_year_of_three_customers(
    virtual_temporal: TemporalClient, database_url: str
) -> None:
    async with open_town(virtual_temporal, database_url, _at("2027-03-15T12:00")) as town:
        await town.plan("flow", model="pass-through", markup="0.2")
        hybrid = {"model": "hybrid", "markup": "0.2"}
        await town.plan("mix", **hybrid, base_fee_usd="99", allowance={"usd": "20"})
        await town.plan("large", **hybrid, base_fee_usd="199", allowance={"usd": "60"})
        await town.plan(
            "purse", model="prepaid", markup="0.25", top_up={"below_usd": "10", "amount_usd": "50"}
        )
        await town.open("harbour", "mix", HARBOUR, time_zone="Europe/Berlin")
        await town.to(_at("2027-03-16T00:00"))
        await town.open("ferry", "flow", FERRY)
        await town.open("pilot", "purse", PILOT.astimezone(UTC), time_zone="Europe/Berlin")
        await _first_credit(town)

        stops = [*_script(), *_looks()]
        for instant, deed in sorted(stops, key=lambda stop: stop[0]):
            await town.to(instant)
            await deed(town)
            await town.time.settle()
        await town.to(_at("2028-04-01T00:00"))

        await _check_ferry(town)
        await _check_harbour(town)
        await _check_pilot(town)


def _looks() -> list[tuple[datetime, Deed]]:
    """Return what is looked at while it happens."""

    def standing(expected: CustomerStatus) -> Deed:
        async def look(town: Town) -> None:
            assert await _standing(town, "harbour") == expected

        return look

    return [
        # The invoice of Friday 15 October fails at about 20:40 in Berlin; three days are Monday
        # evening.
        (_at("2027-10-18T18:30"), standing(CustomerStatus.ACTIVE)),
        (_at("2027-10-18T19:00"), standing(CustomerStatus.SUSPENDED)),
        (_at("2027-10-19T10:01"), standing(CustomerStatus.ACTIVE)),
        # That of 15 December fails once and is paid by Stripe's own retry, inside grace.
        (_at("2027-12-20T00:00"), standing(CustomerStatus.ACTIVE)),
    ]


async def _check_ferry(town: Town) -> None:
    # n million tokens are 2n dollars, a token of answer 0.00001; with 20 % 2.4 n + 0.000012.
    exact = {number: Decimal("2.4") * number + Decimal("0.000012") for number in range(1, 13)}
    ends = [
        "2027-04-30", "2027-05-31", "2027-06-30", "2027-07-31", "2027-08-31", "2027-09-30",
        "2027-10-31", "2027-11-30", "2027-12-31", "2028-01-31", "2028-02-29", "2028-03-31",
    ]  # fmt: skip
    fee = ("base_fee", "subscription", Decimal(99), 99_00)
    expected: dict[int, tuple[list[tuple[str, str, Decimal, int]], int]] = {
        **{
            number: ([("usage", "metered", exact[number], number * 240)], number * 240)
            for number in (1, 2, 4, 5)
        },
        # Half a million tokens of May, recorded in June: $1 and 20 %.
        3: (
            [("usage", "metered", exact[3], 7_20), ("late_usage", "item", Decimal("1.2"), 1_20)],
            8_40,
        ),
        # On the hybrid plan from 30 September: its base fee is in advance.
        6: (
            [
                ("usage", "metered", exact[6], 14_40),
                ("base_fee", "new_subscription", Decimal(99), 99_00),
            ],
            113_40,
        ),
        # $16.80 and $19.20 are within the $20 that the plan includes.
        7: ([fee], 99_00),
        8: ([fee], 99_00),
        # $21.60, $24, $26.40 and $28.80 are beyond it by 1.60, 4, 6.40 and 8.80.
        **{
            number: (
                [("overage", "item", exact[number] - 20, number * 240 - 20_00), fee],
                number * 240 - 20_00 + 99_00,
            )
            for number in (9, 10, 11, 12)
        },
    }
    for number, end in enumerate(ends, 1):
        statement = await town.statement("ferry", number)
        assert statement.period_end == _at(f"{end}T00:00")
        assert await _due(town, "ferry", number) == expected[number], f"period {number}"
        assert statement.usage_usd == exact[number] + (Decimal("1.2") if number == 3 else 0)
    paid = [(each.purpose, each.amount_paid_cents) for each in await town.invoices("ferry")]
    assert paid == [
        *(("period", cents) for cents in (2_40, 4_80, 8_40, 9_60, 12_00, 14_40)),
        ("opening", 99_00),
        *(("period", cents) for cents in (99_00, 99_00, 100_60, 103_00, 105_40, 107_80)),
    ]


async def _check_harbour(town: Town) -> None:
    # 15 million tokens are $30, with 20 % $36: $16 beyond the plan's $20.
    small = [
        ("overage", "item", Decimal(16), 16_00),
        ("base_fee", "subscription", Decimal(99), 99_00),
    ]
    large = ("base_fee", "subscription", Decimal(199), 199_00)
    assert await _due(town, "harbour", 0) == (
        [("base_fee", "subscription", Decimal(99), 99_00)],
        99_00,
    )
    for number in (1, 2, 3):
        assert await _due(town, "harbour", number) == (small, 115_00), f"period {number}"
    # Period 4 is the 30 days to 15 July; from 1 July 06:30 on, 14.5 of them, it is the large plan.
    # For 29/60 of the period, 99 x 29/60 = 47.85 come back and 199 x 29/60 = 96.183333333 are due.
    # It includes 20 x 31/60 + 60 x 29/60, more than $39, and $36 were used. Rounded one after the
    # other: -47.85, 48.33, 247.33.
    assert await _due(town, "harbour", 4) == (
        [
            ("proration", "item", Decimal("-47.85"), -47_85),
            ("proration", "item", Decimal("96.183333333"), 96_18),
            large,
        ],
        247_33,
    )
    for number in range(5, 12):
        assert await _due(town, "harbour", number) == ([large], 199_00), f"period {number}"
    # It ends on 25 February 06:30, after 9.5 of the 29 days from 15 February to 15 March (leap
    # year). Of the base fee 199 x 19.5/29 = 133.810344828 comes back. The plan includes
    # 60 x 9.5/29 = 19.655172414 of the $36: 16.344827586 are beyond.
    lines, due_cents = await _due(town, "harbour", 12)
    amounts = {kind: amount for kind, _, amount, _ in lines}
    assert amounts == {
        "overage": Decimal("16.344827586"),
        "proration": Decimal("-133.810344828"),
    }
    assert due_cents == -117_47
    assert sum(cents for *_, cents in lines) == due_cents

    invoices = await town.invoices("harbour")
    assert [each.total_cents for each in invoices] == [
        99_00, 115_00, 115_00, 115_00, 247_33, *[199_00] * 7, -117_47,
    ]  # fmt: skip
    assert {each.status for each in invoices} == {"paid"}
    kinds = [notice.kind for notice in await town.notices("harbour")]
    payment = [kind for kind in kinds if kind in _OF_PAYMENT]
    assert payment == [
        "grace_started", "payment_reminder", "payment_reminder", "service_suspended",
        "service_restored", "grace_started",
    ]  # fmt: skip
    assert (await town.time.agenda("harbour")).state == "ended"


_OF_PAYMENT = (
    "grace_started", "payment_reminder", "service_suspended", "service_restored",
)  # fmt: skip


async def _check_pilot(town: Town) -> None:
    ends = [
        "2027-04-30", "2027-05-31", "2027-06-30", "2027-07-31", "2027-08-31", "2027-09-30",
        "2027-10-31", "2027-11-30", "2027-12-31", "2028-01-31", "2028-02-29", "2028-03-31",
    ]  # fmt: skip
    # 35 less 12.50 each period: what was given is burnt first. In June, October and February the
    # balance falls to -2.50 and $50 are bought; in October the card is declined, and $50 are bought
    # by hand with another card.
    closing = ["22.5", "10", "47.5", "35", "22.5", "10", "47.5", "35", "22.5", "10", "47.5", "35"]
    for number, (end, balance) in enumerate(zip(ends, closing, strict=True), 1):
        statement = await town.statement("pilot", number)
        # Midnight in Berlin: 22:00 UTC in summer, 23:00 in winter.
        midnight = datetime.fromisoformat(end).replace(tzinfo=BERLIN)
        assert statement.period_end == midnight
        assert statement.usage_usd == Decimal("12.5")
        assert statement.due_cents == 0
        assert statement.wallet is not None
        assert statement.wallet.closing_usd == Decimal(balance), f"period {number}"
    bought = [each for each in await town.invoices("pilot") if each.status == "paid"]
    assert [(each.purpose, each.amount_paid_cents) for each in bought] == [("top_up", 50_00)] * 3
    assert any(notice.kind == "top_up_failed" for notice in await town.notices("pilot"))
