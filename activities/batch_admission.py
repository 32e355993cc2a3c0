"""`admit_batch`: whether a whole job may be sent, decided before a token is spent.

The job's highest charge is what its items can cost at the most, each measured when it was
submitted, under the customer's terms of now. It has to fit under the job's own limit and into every
room that limits the customer, and is reserved there as one reservation under the job's id, which
shrinks as items are settled. All of it is one transaction that holds the job's and the customer's
row, so a job is admitted once, and parallel requests cannot spend its room.
"""

from collections.abc import Callable
from datetime import datetime

from temporalio import activity

from activities.customer_rooms import (
    customer_rooms,
    has_customer_rooms,
    in_good_standing,
    refused,
)
from activities.failures import failure
from activities.transactions import transaction
from tallystick.contracts import BatchOrder, BatchProgress, RequestKey
from tallystick.errors import COST_CEILING_EXCEEDED, INVALID_REQUEST, ROOM_OCCUPIED
from tallystick.ledger import batches, customers, reservations, terms
from tallystick.ledger.batch_tables import BatchJob
from tallystick.ledger.database import Ledger, Transaction
from tallystick.ledger.tables import Customer
from tallystick.ledger.terms import TermsInForce
from tallystick.money import plain
from tallystick.plans import Charge, highest_charge
from tallystick.plans.guards import Refusal
from tallystick.plans.rooms import Occupied, find_room

LOOK_AGAIN = 5.0
"""Seconds between looks for room that only requests in flight take up."""


class BatchAdmissionActivities:
    """Admits jobs by `ledger`; `clock` tells the present."""

    def __init__(self, ledger: Ledger, clock: Callable[[], datetime]):
        self._ledger = ledger
        self._clock = clock

    @activity.defn
    async def admit_batch(self, order: BatchOrder) -> BatchProgress:
        """Admit the job and reserve its highest charge; an admitted or cancelled one stays so.

        Raises:
            ApplicationError: a refusal from the error table, with what there is to know; or
                `RoomOccupied`, to be tried again, while only requests in flight stand in the way.
        """
        now = self._clock()
        async with transaction(self._ledger) as tx:
            job = await batches.get(tx, order.job_id, locked=True)
            if job is None:
                raise failure(
                    INVALID_REQUEST,
                    f"job_id: no job {order.job_id!r} was submitted; `tallystick batch submit` "
                    "does that",
                )
            if job.admitted_at is None and job.cancelled_at is None:
                await self._admit(tx, job, now)
            return await batches.progress(tx, order.job_id, now)

    async def _admit(self, tx: Transaction, job: BatchJob, now: datetime) -> None:
        standing = await terms.standing(tx, job.customer_id, now)
        customer, agreed = in_good_standing(job.customer_id, standing)
        most = highest_charge(job.highest_cost_usd, agreed.terms)
        if job.max_cost_usd is not None and most.usd > job.max_cost_usd:
            raise failure(
                COST_CEILING_EXCEEDED,
                f"the job may be charged up to ${plain(round(most.usd, 4))} (estimated), over its "
                f"limit of ${plain(job.max_cost_usd)}; raise --max-cost, lower max_tokens, or "
                "submit less at a time",
                estimate_usd=plain(most.usd),
                limit_usd=plain(job.max_cost_usd),
            )
        if has_customer_rooms(customer, agreed):
            await self._reserve(tx, job, customer, agreed, most, now=now)
        await batches.set_admitted(tx, job.job_id, most.nano_usd, now)

    async def _reserve(
        self,
        tx: Transaction,
        job: BatchJob,
        customer: Customer,
        agreed: TermsInForce,
        most: Charge,
        *,
        now: datetime,
    ) -> None:
        await customers.lock(tx, job.customer_id)
        await reservations.release_lapsed(tx, job.customer_id, now)
        found = find_room(await customer_rooms(tx, customer, agreed, now), most.usd)
        if isinstance(found, Refusal):
            raise refused(found)
        if isinstance(found, Occupied):
            raise failure(ROOM_OCCUPIED, found.message, retry_after=LOOK_AGAIN)
        key = RequestKey(customer_id=job.customer_id, request_id=job.job_id)
        await reservations.reserve(tx, key, conversation_id=None, nano_usd=most.nano_usd, at=now)
