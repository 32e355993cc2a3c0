"""`tallystick stuck retry`, `correct` and `skip`: what a person does about a thing that waits.

Each is entered in the operators' journal. What is in the ledger changes in the transaction that
enters it; what Temporal has to do is entered first and asked for then. A workflow decides by itself
what a request to try again, or to end, finds it at, so neither can do harm when it has gone on.
"""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Annotated

import typer
from temporalio.client import Client
from temporalio.service import RPCError, RPCStatusCode

from tallystick.cli.access import in_ledger, with_ledger
from tallystick.cli.customer_terms import existing
from tallystick.cli.metering import deliver
from tallystick.cli.operators import By, operator
from tallystick.cli.output import fail, note
from tallystick.contracts import BillingState, MeterOrder, RequestKey
from tallystick.errors import UnavailableError
from tallystick.ledger import accounts, customers, inbox, operator_actions, outbox
from tallystick.ledger.database import Ledger, Transaction
from tallystick.ledger.operator_actions import Decision
from tallystick.ledger.waiting import workflow_of
from tallystick.services import endpoints
from tallystick.settings import get_settings
from tallystick.stuck import look
from tallystick.subjects import Subject, meter_subject, parse_subject
from tallystick.temporal import connect_temporal

if TYPE_CHECKING:
    from activities.parked_events import ParkedEvents

_PATIENCE = 10.0
"""Seconds that a delivery without a workflow is waited for; it goes on regardless."""

What = Annotated[str, typer.Argument(metavar="WHAT", help="Its name; `tallystick stuck` shows it.")]
Reason = Annotated[str, typer.Option(help="Why; kept in the operators' journal.")]


def register(app: typer.Typer) -> None:
    """Add the commands to `tallystick stuck`."""
    app.command()(retry)
    app.command()(correct)
    app.command()(skip)


def retry(what: What, reason: Reason = "", by: By = "") -> None:
    """Have it tried again at once, once its cause has been mended."""
    subject = _named(what)
    decision = _decision("retry", subject, by, reason)
    match subject.kind:
        case "event":
            retry_event(decision)
        case "usage":
            fail(
                "WHAT: a price is given by the price book; then "
                f"`tallystick rerate --from DATE --customer {subject.parts[0]} --book`"
            )
        case "difference":
            number = subject.parts[0]
            fail(f"WHAT: `tallystick reconcile apply {number} --yes` does what is proposed")
        case _:
            _again(subject, decision)


def correct(
    what: What,
    stripe_customer: Annotated[
        str, typer.Option(help="Map its customer to this Stripe customer (cus_...) first.")
    ] = "",
    reason: Reason = "",
    by: By = "",
) -> None:
    """Map its customer to a Stripe customer, let parked meter events follow, and try again."""
    subject = _named(what)
    decision = _decision("correct", subject, by, reason)
    if subject.kind not in ("meter", "cycle", "request"):
        fail(f"WHAT: there is no mapping to correct for {subject.name!r}; see `tallystick stuck`")
    customer = subject.parts[0]
    if not stripe_customer and subject.kind != "meter":
        fail("--stripe-customer: say which Stripe customer it is")
    if stripe_customer:
        in_ledger(lambda tx: _map(tx, customer, stripe_customer, decision))
        note(f"customer {customer!r} is {stripe_customer} in Stripe")
    if subject.kind == "meter":
        key = _key(subject)
        note(_with_parked_events(lambda parked: parked.move(key, decision)))
    _again(subject, _decision("retry", subject, by, "it was corrected"))


def skip(what: What, reason: Reason, by: By = "") -> None:
    """Be done with it without doing it, for a reason.

    A charge whose meter event is skipped is collected by a line of the statement; a request that
    waits for Claude ends, and its caller is told the reason.
    """
    subject = _named(what)
    if not reason.strip():
        fail("--reason: say why it is skipped")
    decision = _decision("skip", subject, by, reason)
    match subject.kind:
        case "event":
            skip_event(decision)
        case "meter":
            key = _key(subject)
            note(_with_parked_events(lambda parked: parked.skip(key, decision)))
            _wake_after_skip(key)
        case "request":
            note(_end_request(subject, decision))
        case "difference":
            fail(f"WHAT: `tallystick reconcile dismiss {subject.parts[0]} --reason ...` leaves it")
        case "batch":
            fail(f"WHAT: `tallystick batch cancel {subject.parts[0]}` ends it; what ran is billed")
        case _:
            fail(f"WHAT: {subject.name!r} cannot be skipped: what was used has to be billed")


# --- Events from Stripe ---------------------------------------------------------------------------
def retry_event(decision: Decision) -> None:
    """Have a parked event looked at again."""
    words = "it is looked at within a minute"

    async def unpark(tx: Transaction) -> bool:
        if not await inbox.retry_parked(tx, decision.subject):
            return False
        await operator_actions.enter(tx, decision, words)
        return True

    if not in_ledger(unpark):
        fail(f"EVENT: no event {decision.subject!r} is parked that could be read")
    note(words)


def skip_event(decision: Decision) -> None:
    """Be done with a parked event without applying it."""
    words = "skipped, with its reason"

    async def unpark(tx: Transaction) -> bool:
        why = decision.reason or ""
        if not await inbox.skip_parked(tx, decision.subject, why, decision.at):
            return False
        await operator_actions.enter(tx, decision, words)
        return True

    if not in_ledger(unpark):
        fail(f"EVENT: no event {decision.subject!r} is parked")
    note(words)


def event_decision(action: operator_actions.Action, event: str, reason: str) -> Decision:
    """Return the decision of whoever sits at this terminal about an event from Stripe."""
    return _decision(action, Subject(event, "event", (event,)), "", reason)


# --- Workflows ------------------------------------------------------------------------------------
def _again(subject: Subject, decision: Decision) -> None:
    """Enter it, and have the workflow that goes on with it try at once."""
    words = in_ledger(lambda tx: _entered(tx, subject, decision))
    if subject.kind == "meter":
        key = _key(subject)
        workflow_id = in_ledger(lambda tx: workflow_of(tx, key))
        signalled = asyncio.run(_asked(decision, lambda client: _signal(client, workflow_id)))
        if not signalled:
            asyncio.run(_asked(decision, lambda client: _deliver(client, key)))
    elif not asyncio.run(_asked(decision, lambda client: _signal(client, subject.name))):
        fail(f"WHAT: workflow {subject.name!r} does not run")
    note(words)


async def _entered(tx: Transaction, subject: Subject, decision: Decision) -> str:
    words = f"{subject.name} is tried again at once"
    await operator_actions.enter(tx, decision, words)
    return words


async def _asked(decision: Decision, ask: Callable[[Client], Awaitable[bool]]) -> bool:
    """Ask Temporal for something that is entered; where it cannot be asked, enter that too."""
    try:
        return await ask(await connect_temporal())
    except (UnavailableError, RPCError) as error:
        failed = f"not done: Temporal does not answer ({error})"
    await asyncio.to_thread(in_ledger, lambda tx: operator_actions.enter(tx, decision, failed))
    raise UnavailableError(failed)


async def _signal(client: Client, workflow_id: str) -> bool:
    """Have a workflow try again; False where it does not run."""
    try:
        await client.get_workflow_handle(workflow_id).signal("retry_now")
    except RPCError as error:
        if error.status == RPCStatusCode.NOT_FOUND:
            return False
        raise
    return True


async def _deliver(client: Client, key: RequestKey) -> bool:
    """Have events delivered whose workflow is gone, as `tallystick rerate` does."""
    delivery = await deliver(client, [MeterOrder(key=key, events=1)], patience=_PATIENCE)
    for why in delivery.parked:
        note(f"parked again: {why}")
    return True


def _wake_after_skip(key: RequestKey) -> None:
    """Let the workflow see that nothing is left to deliver; it would by itself within the hour."""
    workflow_id = in_ledger(lambda tx: workflow_of(tx, key))
    try:
        asyncio.run(_signalled(workflow_id))
    except (UnavailableError, RPCError) as error:
        note(f"its workflow will see it within the hour; it could not be told now: {error}")


async def _signalled(workflow_id: str) -> bool:
    return await _signal(await connect_temporal(), workflow_id)


def _end_request(subject: Subject, decision: Decision) -> str:
    """End a request that is parked at Claude: its caller is told, its room is given back."""
    key = _key(subject)

    async def end(client: Client) -> bool:
        seen = await look(client, subject.name)
        if seen is None or not seen.running or seen.state != BillingState.STUCK:
            fail(f"WHAT: {subject.name!r} does not wait for a person at Claude")
        await asyncio.to_thread(in_ledger, lambda tx: operator_actions.enter(tx, decision, words))
        await client.get_workflow_handle(subject.name).cancel(reason=decision.reason or "")
        return True

    if in_ledger(lambda tx: outbox.pending(tx, [key])):
        events = meter_subject(key.customer_id, key.request_id)
        fail(f"WHAT: {subject.name!r} is answered and billed; its events are {events!r}")
    words = "asked to end; should Claude have answered meanwhile, it is answered and billed"
    asyncio.run(_asked(decision, end))
    return words


# --- Meter events ---------------------------------------------------------------------------------
def _with_parked_events(work: "Callable[[ParkedEvents], Awaitable[str]]") -> str:
    from activities.parked_events import ParkedEvents, RefusedError
    from activities.stripe_clients import stripe_client
    from activities.stripe_summaries import MeterSummaries

    async def do(ledger: Ledger) -> str:
        settings = get_settings()
        settles = timedelta(seconds=settings.summaries_settle)
        async with (
            endpoints(settings) as where,
            stripe_client(where, settings, ledger.url) as stripe,
        ):
            return await work(ParkedEvents(ledger, MeterSummaries(stripe), settles=settles))

    try:
        return with_ledger(do)
    except RefusedError as refused:
        fail(f"WHAT: {refused}")


async def _map(tx: Transaction, customer: str, stripe_customer: str, decision: Decision) -> None:
    row = await existing(tx, customer)
    known = await customers.of_stripe(tx, stripe_customer)
    if known == customer:
        return
    if known is not None:
        fail(f"--stripe-customer: {stripe_customer} is customer {known!r} already")
    account = await accounts.get(tx, customer)
    if account is not None and account.stripe_subscription_id and row.stripe_customer_id:
        fail(
            f"--stripe-customer: the subscription of {customer!r} belongs to "
            f"{row.stripe_customer_id}; it cannot be moved to another Stripe customer"
        )
    await customers.set_stripe_customer(tx, customer, stripe_customer)
    was = row.stripe_customer_id or "nobody"
    await operator_actions.enter(
        tx, decision, f"customer {customer} is {stripe_customer} in Stripe, and was {was}"
    )


# --- What was typed -------------------------------------------------------------------------------
def _named(what: str) -> Subject:
    try:
        return parse_subject(what)
    except ValueError as error:
        fail(f"WHAT: {error}")


def _key(subject: Subject) -> RequestKey:
    customer_id, request_id = subject.parts
    return RequestKey(customer_id=customer_id, request_id=request_id)


def _decision(action: operator_actions.Action, subject: Subject, by: str, reason: str) -> Decision:
    has_customer = subject.kind in ("request", "cycle", "meter", "usage")
    return Decision(
        by=operator(by),
        action=action,
        subject=subject.name,
        customer_id=subject.parts[0] if has_customer else None,
        reason=reason.strip() or None,
        at=datetime.now(UTC),
    )
