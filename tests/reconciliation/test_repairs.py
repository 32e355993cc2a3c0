"""Repairs against a real Stripe stand-in: what each mends, and that it happens once."""

import asyncio
import itertools
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from decimal import Decimal

import pytest
import pytest_asyncio
from sqlalchemy import select
from temporalio.exceptions import ApplicationError

from activities.repairs import UnknownDiscrepancyError
from tallystick.contracts import RequestKey
from tallystick.ledger import attempts
from tallystick.ledger.attempts import Begun, NewAttempt
from tallystick.ledger.database import Ledger, LedgerUnavailableError
from tallystick.ledger.reconciliation_tables import AttemptSettlement, DiscrepancyState
from tallystick.metering import correction_identifier, meter_identifier
from tallystick.pricing import TOKEN_KINDS
from tallystick.reconciling.findings import RepairKind
from tests.invoicing.stand import Interrupted
from tests.metering.stand import INPUT, SINGLE, MeteringStand, metering_stand
from tests.reconciliation.desk import SETTLES, Desk, Found

VALUE = 100
ONE = ((INPUT, VALUE),)
REPAIRED, OPEN = DiscrepancyState.REPAIRED, DiscrepancyState.OPEN


@pytest_asyncio.fixture
async def desk(ledger: Ledger) -> AsyncIterator[Desk]:
    async with metering_stand(ledger, "events") as stand:
        await stand.customer()
        yield Desk(stand, ledger)


# --- What can be wrong ----------------------------------------------------------------------------
async def told(stand: MeteringStand, fault: str = "", **options: str) -> str:
    """Have an event sent, and something happen to it at Stripe; returns its identifier."""
    if fault:
        await stand.stripe.fault(fault, **options)
    order = await stand.use(values=ONE)
    await stand.send(order)
    (event,) = await stand.events(order)
    return event.identifier


async def lost(desk: Desk, *, hours_ago: float) -> Found:
    at = desk.stand.now()
    identifier = await told(desk.stand, "lost_event")
    desk.stand.stripe.clock.advance(hours=hours_ago)
    return await desk.find(RepairKind.RESEND, {identifier: {}}, meter=INPUT, at=at, automatic=True)


async def lost_yesterday(desk: Desk) -> Found:
    return await lost(desk, hours_ago=25)


async def counted_twice(desk: Desk) -> Found:
    identifier = await told(desk.stand, "counted_twice")
    facts = {"stripe_customer_id": await desk.stripe_customer()}
    subjects = {identifier: facts}
    return await desk.find(RepairKind.CANCEL_EVENT, subjects, meter=INPUT, at=desk.stand.now())


async def counted_by_nobody(desk: Desk) -> Found:
    identifier = await told(desk.stand, "wrong_customer")  # which is nobody
    return await to_correct(desk, correction_identifier(identifier, 1), VALUE)


async def counted_from_outside(desk: Desk) -> Found:
    identifier = await told(desk.stand)
    await from_outside(desk, 30)
    return await to_correct(desk, correction_identifier(identifier, 1), -30)


async def not_in_the_outbox(desk: Desk) -> Found:
    order = await desk.stand.use(values=((INPUT, 0),))
    identifier = meter_identifier("acme", order.key.request_id, INPUT)
    now = desk.stand.now()
    facts = {
        "customer_id": "acme",
        "request_id": order.key.request_id,
        "usage_record_id": None,
        "meter": INPUT,
        "value": VALUE,
        "occurred_at": now.isoformat(),
        "billed_at": now.isoformat(),
    }
    return await desk.find(
        RepairKind.ENQUEUE_EVENTS, {identifier: facts}, meter=INPUT, at=now, automatic=True
    )


async def to_correct(desk: Desk, identifier: str, value: int) -> Found:
    now = desk.stand.now()
    facts = {
        "customer_id": "acme",
        "stripe_customer_id": await desk.stripe_customer(),
        "meter": INPUT,
        "value": value,
        "occurred_at": now.isoformat(),
    }
    return await desk.find(RepairKind.CORRECT_METER, {identifier: facts}, meter=INPUT, at=now)


async def from_outside(desk: Desk, value: int, **more: str) -> None:
    """Let Stripe count something now that did not come from us."""
    usage = {
        "event_name": INPUT,
        "customer": await desk.stripe_customer(),
        "value": value,
        "timestamp": int(desk.stand.now().timestamp()),
        **more,
    }
    await desk.stand.stripe.control("POST", "meter_usage", events=[usage])


Wrong = Callable[[Desk], Awaitable[Found]]
ENTRIES: dict[Wrong, int] = {
    lost_yesterday: 2,
    counted_twice: 2,
    counted_by_nobody: 2,
    counted_from_outside: 3,
    not_in_the_outbox: 1,
}
"""What can be wrong, and of how many events Stripe has been told once it is right."""
EACH = list(ENTRIES)
each_repair = pytest.mark.parametrize("wrong", EACH)
"""Each leaves Stripe with another sum than the one value that was used."""


@dataclass(frozen=True)
class Seen:
    """All that a repair may change."""

    counted: int
    told: list[str]
    accepted: int


async def seen(desk: Desk, found: Found) -> Seen:
    accepted = (await desk.stand.stripe.totals())["accepted"]
    return Seen(await desk.counted(), await desk.told(found), accepted)


# --- Every repair ---------------------------------------------------------------------------------
@each_repair
async def test_a_repair_makes_the_sum_right_and_again_changes_nothing(
    desk: Desk, wrong: Wrong
) -> None:
    found = await wrong(desk)
    before = await seen(desk, found)
    assert before.counted != VALUE

    said = await desk.apply(found, dry_run=True)
    assert [each.outcome for each in said.subjects] == ["ready"]
    assert await seen(desk, found) == before

    done = await desk.apply(found)
    assert [each.outcome for each in done.subjects] == ["done"]
    assert (done.state, done.done_now) == (REPAIRED, True)
    after = await seen(desk, found)
    assert after.counted == VALUE

    for _ in range(2):
        again = await desk.apply(found)
        assert [(each.outcome, each.earlier) for each in again.subjects] == [("done", True)]
        assert (again.done_now, again.words) == (False, "it is repaired; done already")
    assert await seen(desk, found) == after


@each_repair
async def test_a_repair_that_is_killed_anywhere_happens_once(ledger: Ledger, wrong: Wrong) -> None:
    interrupted = Interrupted(ledger.url)
    async with metering_stand(ledger, "events") as stand:
        await stand.customer()
        desk = Desk(stand, interrupted)
        found = await wrong(desk)
        for after in itertools.count():
            interrupted.after = after
            try:
                applied = await desk.apply(found)
            except LedgerUnavailableError:
                stand.stripe.clock.advance(seconds=60)
                continue
            if applied.state == REPAIRED:
                break
            # What delivers the outbox tells in its own words that the ledger is away.
            assert [each.outcome for each in applied.subjects] == ["later"]
        assert await desk.counted() == VALUE
        assert (await stand.stripe.totals())["accepted"] == ENTRIES[wrong]
    await interrupted.close()


@each_repair
async def test_a_repair_whose_answer_is_lost_is_repeated_and_happens_once(
    desk: Desk, wrong: Wrong
) -> None:
    found = await wrong(desk)
    await desk.stand.stripe.fault("no_answer", match="POST /v2")
    (left,) = (await desk.apply(found)).subjects
    assert left.outcome == "later"
    assert "no answer from Stripe" in left.words
    assert await desk.state(found) == OPEN

    (done,) = (await desk.apply(found)).subjects
    assert done.outcome == "done"
    assert await desk.counted() == VALUE
    assert (await desk.stand.stripe.totals())["accepted"] == ENTRIES[wrong]


@pytest.mark.parametrize("wrong", [counted_twice, counted_by_nobody])
async def test_a_repair_whose_answer_was_lost_long_ago_is_found_made(
    desk: Desk, wrong: Wrong
) -> None:
    found = await wrong(desk)
    await desk.stand.stripe.fault("no_answer", match="POST /v2")
    await desk.apply(found)
    desk.stand.stripe.clock.advance(days=2)
    (done,) = (await desk.apply(found)).subjects
    assert (done.outcome, done.words) == ("done", "Stripe counts its minute as it was sent")
    assert await desk.counted() == VALUE


@each_repair
async def test_two_who_repair_at_once_do_it_once(desk: Desk, wrong: Wrong) -> None:
    found = await wrong(desk)
    await asyncio.gather(*(desk.apply(found) for _ in range(4)))
    # Whoever met another's call under way (Stripe refuses a second one) is to come again.
    await desk.apply(found)
    assert await desk.state(found) == REPAIRED
    assert await desk.counted() == VALUE
    assert (await desk.stand.stripe.totals())["accepted"] == ENTRIES[wrong]


# --- Without a person -----------------------------------------------------------------------------
async def test_the_step_makes_what_is_safe_and_leaves_the_rest_to_a_person(desk: Desk) -> None:
    found: list[Found] = []
    for wrong in EACH:
        found.append(await wrong(desk))
        desk.stand.stripe.clock.advance(seconds=60)
    lost_one, twice, by_nobody, from_elsewhere, missing = found
    safe, not_safe = [lost_one, missing], [twice, by_nobody, from_elsewhere]
    done = await desk.step()
    assert done.words == "2 differences repaired, 0 repairs refused, 0 put off"
    assert (done.found, done.again) == (2, False)
    assert {await desk.state(each) for each in safe} == {REPAIRED}
    assert {await desk.state(each) for each in not_safe} == {OPEN}
    assert (await desk.apply(twice, by="automatic")).words == "a person decides"
    before = [await desk.told(each) for each in found]
    assert (await desk.step()).found == 0
    assert [await desk.told(each) for each in found] == before


async def test_the_step_does_what_it_can_before_it_is_tried_again(desk: Desk) -> None:
    first, second = await lost_yesterday(desk), await not_in_the_outbox(desk)
    await desk.stand.stripe.fault("rate_limited", match="POST /v2", retry_after=7)
    with pytest.raises(ApplicationError) as failed:
        await desk.step()
    assert failed.value.type == "StripeRateLimited"
    assert failed.value.next_retry_delay is not None
    assert failed.value.next_retry_delay.total_seconds() == 7
    assert [await desk.state(found) for found in (first, second)] == [OPEN, REPAIRED]
    assert (await desk.step()).found == 1


# --- Lost calls -----------------------------------------------------------------------------------
async def test_what_a_lost_call_has_cost_is_booked_once(desk: Desk) -> None:
    now = desk.stand.now()
    key = RequestKey(customer_id="acme", request_id="lost")
    async with desk.stand.ledger.begin() as tx:
        begun = await attempts.begin(
            tx, NewAttempt(key, "f", "claude", None, 1, 1), now, max_unknown=5
        )
        assert isinstance(begun, Begun)
        await attempts.mark_lost(tx, key)
    counts = {f"{kind}_tokens": 7 for kind in TOKEN_KINDS}
    facts = {**counts, "web_searches": 0, "cost_usd": "0.25", "shared": False, "words": "Served."}
    subjects = {str(begun.attempt_id): facts}
    found = await desk.find(
        RepairKind.SETTLE_ATTEMPTS, subjects, meter=INPUT, at=now, automatic=True
    )
    assert (await desk.step()).found == 1
    before = await desk.told(found)
    assert (await desk.step()).found == 0
    assert (await desk.apply(found)).done_now is False
    assert await desk.told(found) == before
    async with desk.stand.ledger.begin() as tx:
        (row,) = await tx.execute(select(AttemptSettlement))
    assert (row.attempt_id, row.cost_usd, row.output_tokens) == (
        begun.attempt_id,
        Decimal("0.25"),
        7,
    )


# --- Sending again --------------------------------------------------------------------------------
async def test_what_stripe_knows_and_does_not_count_is_sent_under_its_next_name(
    desk: Desk,
) -> None:
    found = await lost(desk, hours_ago=2)
    (refused,) = (await desk.apply(found, by="automatic")).subjects
    identifier = refused.subject
    assert refused.outcome == "refused"
    assert f"Stripe knows {identifier} already" in refused.words
    assert await desk.state(found) == OPEN
    before = await seen(desk, found)
    assert (await desk.step()).found == 0
    assert await seen(desk, found) == before

    await desk.propose(found, f"{identifier}#r1")
    assert (await desk.apply(found)).state == REPAIRED
    assert await desk.counted() == VALUE
    assert [each["identifier"] for each in await desk.stand.journal()] == [
        identifier,
        f"{identifier}#r1",
    ]
    after = await seen(desk, found)
    await desk.apply(found)
    assert await seen(desk, found) == after


async def test_what_differs_after_its_repair_is_open_and_not_repaired_the_same_way(
    desk: Desk,
) -> None:
    found = await lost_yesterday(desk)
    await desk.stand.stripe.fault("lost_event")
    assert (await desk.apply(found)).state == REPAIRED
    await desk.report(found.finding)
    assert await desk.state(found) == REPAIRED  # Stripe still has its time
    desk.stand.stripe.clock.advance(seconds=SETTLES.total_seconds() + 1)
    await desk.report(found.finding)
    assert await desk.state(found) == OPEN
    before = await seen(desk, found)
    (told_so,) = (await desk.apply(found)).subjects
    assert (told_so.outcome, told_so.earlier) == ("done", True)
    assert await seen(desk, found) == before


async def test_nothing_is_sent_that_would_not_make_the_minute_right(desk: Desk) -> None:
    at = desk.stand.now()
    identifier = await told(desk.stand)
    subjects = {identifier: {}}
    found = await desk.find(RepairKind.RESEND, subjects, meter=INPUT, at=at)
    # Somebody else's event beside a lost one: the minute lacks less than the event has.
    await told(desk.stand, "lost_event")
    await from_outside(desk, 30)
    (refused,) = (await desk.apply(found)).subjects
    assert refused.outcome == "refused"
    assert "Stripe counts 130 of its minute and was sent 200" in refused.words
    assert await desk.counted() == 130


# --- Windows --------------------------------------------------------------------------------------
async def test_an_event_that_stripe_no_longer_cancels_is_left(desk: Desk) -> None:
    found = await counted_twice(desk)
    desk.stand.stripe.clock.advance(hours=23)
    before = await seen(desk, found)
    said = await desk.apply(found, dry_run=True)
    assert "an event of opposite sign still can correct it" in said.subjects[0].words
    assert await seen(desk, found) == before
    assert (await desk.apply(found)).subjects[0].outcome == "refused"
    (event,) = (await desk.told(found))[-1:]
    assert event.endswith(" refused by operator")
    assert await desk.counted() == 2 * VALUE


async def test_an_old_event_that_the_outbox_has_lost_is_not_sent_if_stripe_has_it(
    desk: Desk,
) -> None:
    found = await not_in_the_outbox(desk)
    proposal = found.finding.proposal
    assert proposal is not None
    (identifier,) = proposal.subjects
    await from_outside(desk, VALUE, identifier=identifier)
    desk.stand.stripe.clock.advance(days=3)
    assert (await desk.apply(found)).state == REPAIRED
    assert await desk.stand.calls(SINGLE) == 0
    assert await desk.counted() == VALUE


async def test_what_is_too_old_for_stripe_is_refused(desk: Desk) -> None:
    for wrong in (lost_yesterday, counted_by_nobody):
        found = await wrong(desk)
        desk.stand.stripe.clock.advance(days=34)
        (refused,) = (await desk.apply(found)).subjects
        assert refused.outcome == "refused"
        assert "Stripe takes no usage older than 35 days" in refused.words
    assert await desk.counted() == 0


async def test_there_has_to_be_a_discrepancy(desk: Desk) -> None:
    with pytest.raises(UnknownDiscrepancyError, match="the id 99"):
        await desk.apply(Found(99, (await counted_twice(desk)).finding))
