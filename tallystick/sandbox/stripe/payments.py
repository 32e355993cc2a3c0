"""Collecting an invoice: attempts, their retries over two weeks, and what becomes of the rest.

A charge asks, in this order, whether the card was refused for good before, what was ordered for the
customer's next charges, and how the card is (see `payment_methods`). `attempt_count` follows the
retry schedule: the first attempt counts, whoever makes it; later ones only when scheduled. A new
card changes nothing by itself; the next attempt uses it.
"""

import secrets

from tallystick.sandbox.stripe import invoice_payments, subscription_states
from tallystick.sandbox.stripe.account import Account
from tallystick.sandbox.stripe.balances import move
from tallystick.sandbox.stripe.declines import Decline
from tallystick.sandbox.stripe.dunning import Outcome
from tallystick.sandbox.stripe.events import emit, updating
from tallystick.sandbox.stripe.payment_methods import of_customer
from tallystick.sandbox.stripe.wire import Obj, Refusal, public


def order(account: Account, outcome: Outcome) -> None:
    """Let a customer's next charges end as told."""
    customer = account.get("customer", outcome.customer)
    customer.setdefault("_outcomes", []).extend([outcome] * outcome.times)


def method_for(account: Account, invoice: Obj, chosen: str | None = None) -> Obj | None:
    """Return the card that an invoice would charge, if there is one that is still attached."""
    subscription = account.table("subscription").get(
        subscription_states.subscription_of(invoice) or ""
    )
    customer = account.get("customer", invoice["customer"])
    if chosen is not None:
        return of_customer(account, chosen, customer["id"], param="payment_method")
    default = (
        invoice["default_payment_method"]
        or (subscription or {}).get("default_payment_method")
        or customer["invoice_settings"]["default_payment_method"]
    )
    method = account.table("payment_method").get(default or "")
    return method if method is not None and method["customer"] == customer["id"] else None


def attempt(
    account: Account, invoice: Obj, method: Obj | None, *, scheduled: bool
) -> Refusal | None:
    """Try to collect what remains of an open invoice; returns why nothing was collected."""
    counts = scheduled or not invoice["attempted"]
    with updating(account, "invoice.updated", invoice):
        invoice |= {"attempted": True, "attempt_count": invoice["attempt_count"] + counts}
        refusal = _charge(account, invoice, method)
        if invoice["amount_remaining"] and counts:
            _schedule(account, invoice)
    if refusal is not None:
        if refusal.code == _ACTION:
            emit(account, "invoice.payment_action_required", invoice)
        emit(account, "invoice.payment_failed", invoice)
    _after(account, invoice)
    if counts and _is_given_up(invoice):
        _give_up(account, invoice)
    return refusal


def _charge(account: Account, invoice: Obj, method: Obj | None) -> Refusal | None:
    customer = account.get("customer", invoice["customer"])
    if method is None:
        return no_method()
    refused: str | None = method.get("_refused")
    ordered: list[Outcome] = customer.get("_outcomes", [])
    outcome = ordered.pop(0) if ordered and refused is None else None
    if outcome is not None and outcome.action_required:
        return _action_required(account, invoice, method)
    code = refused or (outcome.decline_code if outcome else method["_decline"])
    if code is not None:
        return _declined(account, invoice, method, Decline(code))
    most = outcome.partial if outcome else None
    amount = min(invoice["amount_remaining"], most or invoice["amount_remaining"])
    invoice_payments.receive(account, invoice, amount, method["id"])
    _close_if_paid(account, invoice)
    return None


def no_method() -> Refusal:
    """Return the refusal of a charge without a card."""
    return Refusal(
        400,
        "There is no `default_payment_method` set on this Customer or Invoice. Please set the "
        "`default_payment_method` on either object, or pass a payment method.",
        replayed=True,
    )


_ACTION = "invoice_payment_intent_requires_action"


def _action_required(account: Account, invoice: Obj, method: Obj) -> Refusal:
    intent = invoice_payments.intent_of(account, invoice)
    intent |= {"status": "requires_action", "payment_method": method["id"]}
    emit(account, "payment_intent.requires_action", intent)
    return Refusal(
        402,
        "Payment for this invoice requires additional user action before it can be completed.",
        code=_ACTION,
        type="card_error",
        replayed=True,
        details={"payment_intent": public(intent)},
    )


def _declined(account: Account, invoice: Obj, method: Obj, decline: Decline) -> Refusal:
    if decline.hard:
        method["_refused"] = decline.decline_code
    intent = invoice_payments.intent_of(account, invoice)
    charge = f"ch_{secrets.token_hex(8)}"
    error = decline.error() | {"charge": charge}
    intent |= {
        "status": "requires_payment_method",
        "latest_charge": charge,
        "last_payment_error": {**error, "payment_method": public(method)},
    }
    emit(account, "payment_intent.payment_failed", intent)
    return Refusal(
        402,
        decline.message,
        code=decline.code,
        type="card_error",
        replayed=True,
        details=error | {"payment_intent": public(intent), "payment_method": public(method)},
    )


def _schedule(account: Account, invoice: Obj) -> None:
    """Set the next attempt of what failed or was paid in part."""
    subscription_id = subscription_states.subscription_of(invoice)
    subscription = account.table("subscription").get(subscription_id or "")
    first = invoice.setdefault("_failed_at", account.now())
    at = account.dunning.next_attempt(first, invoice["attempt_count"])
    waits = subscription is not None and subscription["status"] == "incomplete"
    if not invoice["auto_advance"] or waits:
        at = None
    set_next(account, invoice, at)


def set_next(account: Account, invoice: Obj, at: int | None) -> None:
    """Have an open invoice tried at an instant, or not again."""
    invoice["next_payment_attempt"] = at
    if at is not None:
        account.clock.at(at, lambda: _retry(account, invoice, at))


def _retry(account: Account, invoice: Obj, at: int) -> None:
    if invoice["status"] == "open" and invoice["next_payment_attempt"] == at:
        attempt(account, invoice, method_for(account, invoice), scheduled=True)


def _is_given_up(invoice: Obj) -> bool:
    unpaid = invoice["status"] == "open" and invoice["auto_advance"]
    return unpaid and invoice["next_payment_attempt"] is None


def _give_up(account: Account, invoice: Obj) -> None:
    """Do to the subscription what the account's settings say after the last attempt."""
    subscription = account.table("subscription").get(
        subscription_states.subscription_of(invoice) or ""
    )
    if subscription is None or subscription["status"] != "past_due":
        return
    if account.dunning.then == "canceled":
        subscription["cancellation_details"]["reason"] = "payment_failed"
        subscription_states.end(account, subscription)
    else:
        subscription_states.change(account, subscription, status=account.dunning.then)


def _close_if_paid(account: Account, invoice: Obj) -> None:
    if invoice["amount_remaining"] == 0:
        invoice |= {"status": "paid", "auto_advance": False, "next_payment_attempt": None}
        invoice["status_transitions"] = {
            **invoice["status_transitions"],
            "paid_at": account.now(),
        }


def _after(account: Account, invoice: Obj) -> None:
    """Tell of an invoice that got paid, and let subscription and customer follow."""
    if invoice["status"] == "paid":
        emit(account, "invoice.paid", invoice)
        emit(account, "invoice.payment_succeeded", invoice)
    subscription_states.follow(account, invoice)
    customer = account.table("customer").get(invoice["customer"])
    if customer is not None:
        with updating(account, "customer.updated", customer):
            customer["delinquent"] = any(
                each["status"] == "open" and each["attempted"]
                for each in account.table("invoice").values()
                if each["customer"] == customer["id"]
            )


def nothing_due(account: Account, invoice: Obj) -> None:
    """Mark an invoice paid of which nothing, or too little, is due: no money moves."""
    invoice["attempted"] = True
    _close_if_paid(account, invoice)
    _after(account, invoice)


def out_of_band(account: Account, invoice: Obj) -> None:
    """Mark an open invoice paid by means that Stripe does not see."""
    with updating(account, "invoice.updated", invoice):
        invoice_payments.cancel(account, invoice, "automatic")
        invoice["amount_paid_off_stripe"] += invoice["amount_remaining"]
        invoice["amount_paid"] += invoice["amount_remaining"]
        invoice["amount_remaining"] = 0
        _close_if_paid(account, invoice)
    _after(account, invoice)


def transfer(account: Account, invoice: Obj, amount: int) -> None:
    """Let the customer's money arrive without a charge; too much of it becomes their credit."""
    with updating(account, "invoice.updated", invoice):
        over = max(0, amount - invoice["amount_remaining"])
        invoice_payments.receive(account, invoice, amount - over, None)
        invoice["amount_overpaid"] += over
        _close_if_paid(account, invoice)
    customer = account.get("customer", invoice["customer"])
    with updating(account, "customer.updated", customer):
        move(account, customer, -over, "invoice_overpaid", invoice=invoice["id"])
    _after(account, invoice)
