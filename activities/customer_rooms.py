"""Whether a customer may spend, and the room that its limits leave: for requests and for batches.

Read inside the transaction that then reserves, with the customer's row locked
(`tallystick.ledger.reservations`).
"""

from datetime import datetime
from decimal import Decimal

from temporalio.exceptions import ApplicationError

from activities.failures import failure
from tallystick.errors import (
    BALANCE_EXHAUSTED,
    CUSTOMER_SUSPENDED,
    INVALID_REQUEST,
    SPEND_CAP_REACHED,
    UNKNOWN_CUSTOMER,
)
from tallystick.ledger import accounts, reservations, wallet
from tallystick.ledger.account_tables import BillingAccount
from tallystick.ledger.database import Transaction
from tallystick.ledger.tables import Customer, CustomerStatus
from tallystick.ledger.terms import Standing, TermsInForce
from tallystick.money import from_nano_usd
from tallystick.plans.guards import Refusal
from tallystick.plans.rooms import Room


def in_good_standing(customer_id: str, standing: Standing | None) -> tuple[Customer, TermsInForce]:
    """Return the customer and its terms, or raise why it may not spend."""
    if standing is None:
        raise failure(
            UNKNOWN_CUSTOMER,
            f"customer_id: no customer {customer_id!r}; add it with "
            f"`tallystick customer add {customer_id}`",
        )
    customer = standing.customer
    if customer.status != CustomerStatus.ACTIVE:
        raise failure(
            CUSTOMER_SUSPENDED,
            f"customer {customer_id!r} is suspended: {customer.status_reason or 'no reason given'}",
        )
    if standing.agreed is None:
        raise failure(
            INVALID_REQUEST,
            f"customer {customer_id!r} is on plan {customer.plan!r}, which has no terms in force; "
            "run `tallystick setup`",
        )
    return customer, standing.agreed


def has_customer_rooms(customer: Customer, agreed: TermsInForce) -> bool:
    """Tell whether a balance or a cap limits what the customer may be charged."""
    return agreed.terms.model == "prepaid" or Standing(customer, agreed).spend_cap_usd is not None


async def customer_rooms(
    tx: Transaction, customer: Customer, agreed: TermsInForce, now: datetime
) -> list[Room]:
    """Return the customer's own limits and how much of them is taken: its balance, its cap."""
    rooms: list[Room] = []
    account = await accounts.get(tx, customer.customer_id)
    if agreed.terms.model == "prepaid":
        rooms.append(await _balance(tx, customer, agreed, account, now))
    cap = Standing(customer, agreed).spend_cap_usd
    if cap is not None:
        rooms.append(await _spend_cap(tx, customer, cap, account, now))
    return rooms


def refused(refusal: Refusal) -> ApplicationError:
    """Return a refusal as the error that an activity raises."""
    return failure(refusal.failure, refusal.message, **refusal.figures)


async def _balance(
    tx: Transaction,
    customer: Customer,
    agreed: TermsInForce,
    account: BillingAccount | None,
    now: datetime,
) -> Room:
    customer_id = customer.customer_id
    if account is None:
        raise failure(
            BALANCE_EXHAUSTED,
            f"customer {customer_id!r} is on the prepaid plan {agreed.plan!r} and has no account "
            f"to hold a balance; `tallystick customer open {customer_id}` opens it",
        )
    funds = await wallet.funds(tx, customer_id, now)
    return Room(
        name="the prepaid balance",
        limit_usd=from_nano_usd(funds.balance_nano_usd),
        spent_usd=Decimal(0),  # what is spent has left the balance
        reserved_usd=from_nano_usd(funds.reserved_nano_usd),
        failure=BALANCE_EXHAUSTED,
        remedy=f"lower max_tokens, or add credit with `tallystick wallet top-up {customer_id} USD`",
    )


async def _spend_cap(
    tx: Transaction,
    customer: Customer,
    cap_usd: Decimal,
    account: BillingAccount | None,
    now: datetime,
) -> Room:
    name, period = reservations.cap_period(account, customer.time_zone, now)
    taken = await reservations.used(tx, customer.customer_id, since=period.start)
    return Room(
        name=f"the customer's spend cap for this {name}",
        limit_usd=cap_usd,
        spent_usd=taken.spent_usd,
        reserved_usd=taken.reserved_usd,
        failure=SPEND_CAP_REACHED,
        remedy="lower max_tokens, raise the cap with `tallystick customer cap "
        f"{customer.customer_id} --spend-cap USD`, or wait for the next {name}, which "
        f"begins {period.end.isoformat()}",
    )
