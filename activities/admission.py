"""`admit_request`: whether Claude may be called, decided before a token is spent.

Three questions in the order of what they cost. The ledger: is the customer there and in good
standing, and is this request new? The guard: is the request itself within its limits, by its size
or, where that does not decide, by Claude's own count? And where a limit covers more than this one
request: is there room left? The room is then reserved in the transaction that found it.

It is a local activity and may run twice. Each run begins by giving back what an earlier one has
reserved, so a request never stands in its own way, and a refusal leaves nothing reserved.
"""

from datetime import UTC, datetime
from decimal import Decimal

from temporalio import activity
from temporalio.exceptions import ApplicationError

from activities.claude_api import ClaudeApi, ClaudeCallError
from activities.customer_rooms import (
    customer_rooms,
    has_customer_rooms,
    in_good_standing,
    refused,
)
from activities.failures import failure
from tallystick.contracts import Admission, ClaudeRequest, RequestKey
from tallystick.errors import (
    ALREADY_BILLED,
    CONVERSATION_CAP_REACHED,
    LEDGER_UNAVAILABLE,
    REQUEST_ID_REUSED,
    ROOM_OCCUPIED,
)
from tallystick.ledger import customers, reservations, terms, usage
from tallystick.ledger.database import Ledger, LedgerUnavailableError, Transaction
from tallystick.ledger.tables import Customer, UsageRecord
from tallystick.ledger.terms import TermsInForce
from tallystick.plans import highest_charge
from tallystick.plans.guards import Limits, Pass, Refusal, Undecided, check
from tallystick.plans.rooms import Fits, Occupied, Room, find_room

WAIT_FIRST, WAIT_LONGEST = 1.5, 15.0
"""Seconds between looks for room. The shortest is longer than the workflow holds its task open
(`LEDGER_STEP_HOLD`); at the longest, a day of waiting is 35,000 of the 51,200 events of history."""


class AdmissionActivities:
    """Admits requests by `ledger`, under `limits` and a cap on each conversation's charges."""

    def __init__(
        self, ledger: Ledger, api: ClaudeApi, limits: Limits, *, conversation_cap_usd: Decimal
    ):
        self._ledger = ledger
        self._api = api
        self._limits = limits
        self._conversation_cap_usd = conversation_cap_usd

    @activity.defn
    async def admit_request(self, request: ClaudeRequest) -> Admission:
        """Decide whether Claude may be called for this request, and reserve what it may be charged.

        Raises:
            ApplicationError: a refusal from the error table, with what there is to know; or
                `RoomOccupied`, to be tried again, while only requests in flight stand in the way.
        """
        key = RequestKey(customer_id=request.customer_id, request_id=request.request_id)
        now = datetime.now(UTC)
        try:
            async with self._ledger.each() as tx:
                await reservations.release(tx, key)
                billed = await usage.find(tx, key)
                standing = await terms.standing(tx, key.customer_id, now)
            if billed is not None:
                raise _repeated(request, billed)
            customer, agreed = in_good_standing(key.customer_id, standing)
            passed = await self._guard(request, now)
            keeps_content = standing is not None and standing.keeps_content
            if not _has_rooms(request, customer, agreed):
                return Admission(warnings=passed.warnings, keeps_content=keeps_content)
            found = await self._reserve(request, agreed, passed, now)
            if isinstance(found, Refusal) and not passed.counted:
                # Refused by an upper bound alone: Claude's count of the prompt may still fit.
                passed = await self._guard(request, now, count=True)
                found = await self._reserve(request, agreed, passed, now)
        except LedgerUnavailableError as error:
            raise failure(LEDGER_UNAVAILABLE, f"the ledger is away: {error}") from error
        if isinstance(found, Fits):
            return Admission(
                warnings=(*passed.warnings, *found.warnings),
                reserved=True,
                keeps_content=keeps_content,
            )
        if isinstance(found, Refusal):
            raise refused(found)
        wait = min(WAIT_FIRST * 2 ** (activity.info().attempt - 1), WAIT_LONGEST)
        raise failure(ROOM_OCCUPIED, found.message, retry_after=wait)

    async def _guard(self, request: ClaudeRequest, now: datetime, *, count: bool = False) -> Pass:
        limits = Limits(
            max_input_tokens=request.max_input_tokens or self._limits.max_input_tokens,
            max_cost_usd=request.max_cost_usd or self._limits.max_cost_usd,
        )
        verdict = Undecided() if count else check(request.params, limits, now)
        if isinstance(verdict, Undecided):
            counted = await self._count(request)
            verdict = check(request.params, limits, now, counted=counted)
        if isinstance(verdict, Refusal):
            raise refused(verdict)
        assert isinstance(verdict, Pass)  # noqa: S101 - a count decides
        return verdict

    async def _count(self, request: ClaudeRequest) -> int:
        try:
            return await self._api.count_tokens(request.params)
        except ClaudeCallError as error:
            raise failure(
                error.failure,
                f"counting the prompt's tokens: {error}",
                retry_after=error.retry_after,
            ) from error

    async def _reserve(
        self, request: ClaudeRequest, agreed: TermsInForce, passed: Pass, now: datetime
    ) -> Fits | Occupied | Refusal:
        """Look for room in every room and reserve it, in one transaction."""
        key = RequestKey(customer_id=request.customer_id, request_id=request.request_id)
        most = highest_charge(passed.cost_usd, agreed.terms)
        async with self._ledger.begin() as tx:
            customer = await customers.lock(tx, request.customer_id)
            await reservations.release_lapsed(tx, request.customer_id, now)
            found = find_room(await self._rooms(tx, customer, agreed, request, now), most.usd)
            if isinstance(found, Fits):
                await reservations.reserve(
                    tx,
                    key,
                    conversation_id=request.conversation_id,
                    nano_usd=most.nano_usd,
                    at=now,
                )
        return found

    async def _rooms(
        self,
        tx: Transaction,
        customer: Customer,
        agreed: TermsInForce,
        request: ClaudeRequest,
        now: datetime,
    ) -> list[Room]:
        """Return every limit beyond the request itself that applies to it."""
        rooms = await customer_rooms(tx, customer, agreed, now)
        if request.conversation_id is not None:
            taken = await reservations.used(
                tx, customer.customer_id, conversation_id=request.conversation_id
            )
            rooms.append(
                Room(
                    name="the conversation's cap",
                    limit_usd=request.max_conversation_usd or self._conversation_cap_usd,
                    spent_usd=taken.spent_usd,
                    reserved_usd=taken.reserved_usd,
                    failure=CONVERSATION_CAP_REACHED,
                    remedy="start a fresh conversation, lower max_tokens, or set "
                    "max_conversation_usd",
                )
            )
        return rooms


def _has_rooms(request: ClaudeRequest, customer: Customer, agreed: TermsInForce) -> bool:
    return has_customer_rooms(customer, agreed) or request.conversation_id is not None


def _repeated(request: ClaudeRequest, billed: UsageRecord) -> ApplicationError:
    if billed.fingerprint != request.fingerprint:
        return failure(
            REQUEST_ID_REUSED,
            f"request_id: {request.request_id!r} was used before with a different body; "
            "use a new id for a new request",
        )
    return failure(
        ALREADY_BILLED,
        f"request {request.request_id!r} was answered and billed before and its reply is no "
        "longer kept; it is neither called nor billed again",
        bill=usage.bill_of(billed).model_dump(mode="json"),
    )
