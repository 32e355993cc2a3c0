"""`tallystick wallet`: a prepaid customer's credit: given, taken back, bought, shown."""

from datetime import UTC, datetime
from decimal import Decimal
from typing import Annotated, Any, NoReturn
from zoneinfo import ZoneInfo

import typer

from tallystick.cli.access import in_ledger
from tallystick.cli.customer_terms import Id, existing
from tallystick.cli.cycles import tell_cycle
from tallystick.cli.instants import read_instant
from tallystick.cli.output import JsonFlag, fail, note, parse_usd, print_json, print_rows
from tallystick.ledger import accounts, movements, terms, top_ups, wallet
from tallystick.ledger.account_tables import BillingAccount, GrantKind
from tallystick.ledger.database import Transaction, snapshot
from tallystick.money import from_nano_usd, plain, to_nano_usd
from tallystick.plans.periods import period_at

_wallets = typer.Typer(
    help="Prepaid credit: give, take back, buy and show it.", no_args_is_help=True
)

Amount = Annotated[str, typer.Argument(metavar="USD", help="An amount in dollars.")]
_CENT, _LEAST = Decimal("0.01"), 1
"""What a top-up is counted in, and the least one: Stripe collects no smaller amounts."""


def register(app: typer.Typer) -> None:
    """Add the commands to the root."""
    app.add_typer(_wallets, name="wallet")


@_wallets.command()
def grant(
    customer: Id,
    amount: Amount,
    promotional: Annotated[
        bool, typer.Option("--promotional", help="Given away, not paid for; burnt first.")
    ] = False,
    expires: Annotated[
        str, typer.Option(help="A date or instant, in the customer's time zone; never by default.")
    ] = "",
    priority: Annotated[
        int | None, typer.Option(help="The lowest is burnt first; by its kind if not given.")
    ] = None,
    source: Annotated[
        str, typer.Option(help="What it is given for; the same source never gives twice.")
    ] = "",
    note_: Annotated[str, typer.Option("--note", help="A word that is kept with it.")] = "",
    as_json: bool = JsonFlag,
) -> None:
    """Give a customer credit. It repays an overdraft first."""
    now = datetime.now(UTC)
    nano_usd = to_nano_usd(_positive(amount))
    source = source or f"by-hand:{now.isoformat()}"

    async def give(tx: Transaction) -> bool:
        zone = ZoneInfo((await existing(tx, customer)).time_zone)
        ends = read_instant(expires, "--expires", zone) if expires else None
        if ends is not None and ends <= now:
            fail(f"--expires: {ends.isoformat()} has passed")
        return await wallet.grant(
            tx,
            await _account(tx, customer),
            kind=GrantKind.PROMOTIONAL if promotional else GrantKind.PAID,
            nano_usd=nano_usd,
            source=source,
            at=now,
            priority=priority,
            expires_at=ends,
            note=note_ or None,
        )

    if not in_ledger(give):
        note(f"--source: {source!r} has given before; nothing is changed")
    tell_cycle(customer)
    _tell_balance(customer, source, as_json=as_json)


@_wallets.command()
def revoke(
    customer: Id,
    source: Annotated[str, typer.Argument(metavar="SOURCE", help="Of the grant, as shown.")],
    as_json: bool = JsonFlag,
) -> None:
    """Take back what is left of a grant, where its money went back or it was a mistake."""

    async def take(tx: Transaction) -> int:
        taken = await wallet.revoke(tx, await _account(tx, customer), source, datetime.now(UTC))
        if taken is None:
            fail(f"SOURCE: customer {customer!r} was granted nothing from {source!r}")
        return taken

    note(f"${plain(from_nano_usd(in_ledger(take)))} taken back")
    _tell_balance(customer, source, as_json=as_json)


@_wallets.command("top-up")
def top_up(customer: Id, amount: Amount, as_json: bool = JsonFlag) -> None:
    """Have the customer buy credit now: an invoice is made and charged, then the credit granted."""
    usd = _positive(amount)
    if usd < _LEAST or usd % _CENT:
        fail(f"USD: {amount!r} cannot be charged; use whole cents, at least ${_LEAST}")

    async def ask(tx: Transaction) -> int:
        await _account(tx, customer)
        now = datetime.now(UTC)
        standing = await terms.standing(tx, customer, now)
        agreed = standing.agreed if standing else None
        if agreed is None or agreed.terms.model != "prepaid":
            fail(f"CUSTOMER: {customer!r} is on no prepaid plan and has no use for credit")
        number = await top_ups.open_top_up(tx, customer, to_nano_usd(usd), automatic=False, at=now)
        if number is None:
            fail(f"CUSTOMER: a top-up of {customer!r} is under way already; wait until it is paid")
        return number

    number = in_ledger(ask)
    tell_cycle(customer)
    if as_json:
        print_json({"customer_id": customer, "top_up_id": number, "amount_usd": usd})
    else:
        note(f"top-up {number} over ${plain(usd)} is asked for; it is credit once it is paid")


@_wallets.command()
def show(
    customer: Id,
    since: Annotated[
        str,
        typer.Option(help="Movements from this date or instant on; of the open period by default."),
    ] = "",
    as_json: bool = JsonFlag,
) -> None:
    """Show a customer's balance, its grants and every movement of them."""
    facts = in_ledger(lambda tx: _facts(tx, customer, since))
    if as_json:
        print_json(facts)
        return
    print_rows(
        ("", ""),
        [
            ("balance $", facts["balance_usd"]),
            ("reserved $", facts["reserved_usd"]),
            ("movements since", facts["since"]),
            ("balance then $", facts["opening_usd"]),
        ],
    )
    for title in ("grants", "movements"):
        if rows := facts[title]:
            names = [name.replace("_usd", "_$").replace("_", " ") for name in rows[0]]
            print_rows(names, [tuple(row.values()) for row in rows], title=title.capitalize())


async def _facts(tx: Transaction, customer: str, since: str) -> dict[str, Any]:
    await snapshot(tx)
    zone = ZoneInfo((await existing(tx, customer)).time_zone)
    account, now = await accounts.get(tx, customer), datetime.now(UTC)
    if account is None:
        _fail_without_account(customer)
    if since:
        start = read_instant(since, "--since", zone)
    else:
        _, period = period_at(account.anchor, account.time_zone, max(now, account.anchor))
        start = period.start
    funds = await wallet.funds(tx, customer, now)
    moved = await movements.since(tx, customer, start)
    return {
        "customer_id": customer,
        "balance_usd": from_nano_usd(funds.balance_nano_usd),
        "reserved_usd": from_nano_usd(funds.reserved_nano_usd),
        "since": start,
        "opening_usd": from_nano_usd(moved.opening_nano_usd),
        "grants": [
            {
                "source": each.grant.source,
                "kind": str(each.grant.kind),
                "priority": each.grant.priority,
                "amount_usd": from_nano_usd(each.grant.amount_nano_usd),
                "left_usd": from_nano_usd(each.remaining_nano_usd),
                "granted_at": each.grant.granted_at,
                "expires_at": each.grant.expires_at,
                "note": each.grant.note,
            }
            for each in await movements.given(tx, customer)
        ],
        "movements": [
            {
                "at": each.occurred_at,
                "kind": str(each.kind),
                "source": each.source or "overdraft",
                "request_id": each.request_id,
                "amount_usd": from_nano_usd(each.amount_nano_usd),
                "balance_usd": from_nano_usd(each.balance_nano_usd),
            }
            for each in moved.entries
        ],
    }


async def _account(tx: Transaction, customer: str) -> BillingAccount:
    await existing(tx, customer)
    account = await accounts.lock(tx, customer)
    if account is None:
        _fail_without_account(customer)
    return account


def _fail_without_account(customer: str) -> NoReturn:
    fail(
        f"CUSTOMER: {customer!r} has no account to hold credit; "
        f"`tallystick customer open {customer}` opens it"
    )


def _positive(amount: str) -> Decimal:
    usd = parse_usd(amount, "USD")
    if not usd or from_nano_usd(to_nano_usd(usd)) != usd:
        fail(f"USD: {amount!r} is nothing to give; use an amount of at most nine decimals")
    return usd


def _tell_balance(customer: str, source: str, *, as_json: bool) -> None:
    now = datetime.now(UTC)
    usd = from_nano_usd(in_ledger(lambda tx: wallet.balance(tx, customer, now)))
    if as_json:
        print_json({"customer_id": customer, "source": source, "balance_usd": usd})
    else:
        note(f"the balance of customer {customer!r} is ${plain(usd)}")
