"""A batch job from what was asked for to where a worker takes it up: measured, stored, started.

What is asked for is read twice and never held: first it is measured, which yields the quote and a
fingerprint, then it is copied into the ledger with the job, in one transaction. A job's id is made
from the customer and that fingerprint unless the caller names one, so whoever repeats a command
that was broken off, anywhere, continues what it began.
"""

import hashlib
from collections.abc import AsyncIterator, Iterable, Iterator
from dataclasses import dataclass, field, replace
from datetime import datetime
from decimal import Decimal
from typing import Any

from temporalio.client import Client
from temporalio.common import (
    SearchAttributePair,
    TypedSearchAttributes,
    WorkflowIDConflictPolicy,
    WorkflowIDReusePolicy,
)
from temporalio.exceptions import WorkflowAlreadyStartedError
from temporalio.service import RPCError

from tallystick.contracts import (
    MESSAGE_BATCH,
    TASK_QUEUE,
    BatchOrder,
    BillingState,
    batch_workflow_id,
)
from tallystick.documents import Asked, DocumentError
from tallystick.errors import InvalidRequestError, UnavailableError
from tallystick.ledger import batches
from tallystick.ledger.batch_tables import BatchJob
from tallystick.ledger.batches import NewJob
from tallystick.ledger.database import Ledger
from tallystick.ledger.terms import TermsInForce
from tallystick.money import from_nano_usd, times, to_nano_usd, total
from tallystick.payloads.columns import ColumnSeal
from tallystick.pdf_pages import pdf_pages
from tallystick.plans import highest_charge
from tallystick.plans.batching import ItemError, NewItem, new_item
from tallystick.plans.guards import Limits
from tallystick.pricing import TOKEN_KINDS, estimate_cost, quote
from tallystick.temporal import BILLING_STATE, CUSTOMER_ID

Source = Iterable[Asked | DocumentError]
"""What is asked for; reading it again gives the same."""


@dataclass(slots=True)
class Measured:
    """What a job comes to, before anything is stored.

    Money is at the provider's batch price: `prompt_cost_usd` for the prompts at their likely length
    and no answers, `highest_cost_usd` for the longest prompts and answers that there can be, and
    `saves_usd` what that would cost more outside a batch.
    """

    requests: int = 0
    input_tokens: int = 0
    pdf_pages: int = 0
    """Of those whose pages can be counted."""
    pdfs_uncounted: int = 0
    body_bytes: int = 0
    prompt_cost_usd: Decimal = Decimal(0)
    highest_cost_usd: Decimal = Decimal(0)
    saves_usd: Decimal = Decimal(0)
    unfit: list[str] = field(default_factory=list[str])
    """What cannot be sent, each with its name and the reason."""
    fingerprint: str = ""


@dataclass(frozen=True, slots=True)
class JobQuote:
    """A measured job in the customer's own money, in US dollars, rounded as it would be charged."""

    plan: str
    prompts_usd: Decimal
    highest_usd: Decimal
    saves_usd: Decimal


def measure(customer_id: str, source: Source, limits: Limits, at: datetime) -> Measured:
    """Read everything once and measure it.

    Args:
        customer_id: who asks; part of the fingerprint.
        source: what is asked for.
        limits: what each request must keep to.
        at: when it would be served.
    """
    measured = Measured()
    digest = hashlib.sha256(customer_id.encode())
    for each in _read(source, "unnamed", limits, at):
        if not isinstance(each, _Fit):
            measured.unfit.append(str(each))
            continue
        item = each.item
        likely = estimate_cost(item.model, item.estimated_input_tokens, 0, at, batch=True)
        measured.requests += 1
        measured.input_tokens += item.estimated_input_tokens
        measured.pdf_pages += each.pdf_pages or 0
        measured.pdfs_uncounted += each.pdf_pages is None
        measured.body_bytes += item.body_bytes
        measured.prompt_cost_usd = total([measured.prompt_cost_usd, likely])
        measured.highest_cost_usd = total([measured.highest_cost_usd, item.highest_cost_usd])
        single = quote(each.asked.params, at, pdf_pages=each.pdf_pages)
        saved = single.batch_saves_usd or Decimal(0)
        measured.saves_usd = total([measured.saves_usd, saved])
        digest.update(each.mark)
    measured.fingerprint = digest.hexdigest()
    return measured


def quote_job(measured: Measured, agreed: TermsInForce) -> JobQuote:
    """Return what the customer would be charged, by the terms in force."""
    cheapest = min(agreed.terms.factor(kind) for kind in TOKEN_KINDS)
    return JobQuote(
        plan=agreed.plan,
        prompts_usd=from_nano_usd(to_nano_usd(times(cheapest, measured.prompt_cost_usd))),
        highest_usd=highest_charge(measured.highest_cost_usd, agreed.terms).usd,
        saves_usd=highest_charge(measured.saves_usd, agreed.terms).usd,
    )


def job_id_of(measured: Measured) -> str:
    """Return the id of a job that its caller has not named: the same for the same content."""
    return f"batch-{measured.fingerprint[:16]}"


async def store(
    ledger: Ledger,
    new: NewJob,
    source: Source,
    limits: Limits,
    at: datetime,
    *,
    seal: ColumnSeal,
    fingerprint: str | None = None,
) -> BatchJob:
    """Write the job with all that can be sent of `source`, or return the one that is there.

    Args:
        ledger: where to.
        new: the job.
        source: what is asked for.
        limits: what each request must keep to.
        at: when it would be served.
        seal: what its prompts are stored under.
        fingerprint: what it was measured as; it must not have changed since.

    Raises:
        InvalidRequestError: nothing can be sent of it, or it has changed.
        RequestIdReusedError: the job id belongs to a job with other content.
        UnknownCustomerError: there is no such customer.
    """
    digest = hashlib.sha256(new.customer_id.encode())

    async def items() -> AsyncIterator[NewItem]:
        for each in _read(source, new.job_id, limits, at):
            if isinstance(each, _Fit):
                digest.update(each.mark)
                yield replace(each.item, params=seal.text(each.item.params))

    async with ledger.begin() as tx:
        job = await batches.submit(tx, new, items())
        if fingerprint not in (None, digest.hexdigest()):
            raise InvalidRequestError(
                "the documents have changed since they were quoted; submit them again"
            )
        return job


async def start(temporal: Client, job: BatchJob) -> None:
    """Have a worker take up the job; one that is taken up, or has ended, is left alone.

    Raises:
        UnavailableError: Temporal does not take it. The job is stored, and may be started again.
    """
    if job.finished_at is not None:
        return
    attributes: list[SearchAttributePair[Any]] = [
        SearchAttributePair(CUSTOMER_ID, job.customer_id),
        SearchAttributePair(BILLING_STATE, BillingState.ACTIVE),
    ]
    try:
        await temporal.start_workflow(  # pyright: ignore[reportUnknownMemberType]
            MESSAGE_BATCH,
            BatchOrder(job_id=job.job_id),
            id=batch_workflow_id(job.job_id),
            task_queue=TASK_QUEUE,
            id_conflict_policy=WorkflowIDConflictPolicy.USE_EXISTING,
            # A job that was refused may be tried again; what it did stands in the ledger.
            id_reuse_policy=WorkflowIDReusePolicy.ALLOW_DUPLICATE_FAILED_ONLY,
            search_attributes=TypedSearchAttributes(attributes),
            static_summary=f"{job.items:,} requests for {job.customer_id}",
        )
    except WorkflowAlreadyStartedError:
        return
    except RPCError as error:
        raise UnavailableError(
            f"Temporal does not take job {job.job_id!r}: {error}; it is stored, submit it again "
            "(TEMPORAL_ADDRESS says where Temporal is)"
        ) from error


@dataclass(frozen=True, slots=True)
class _Fit:
    """A request that can be sent, as it was asked for and as an item of the job."""

    asked: Asked
    item: NewItem
    pdf_pages: int | None

    @property
    def mark(self) -> bytes:
        own = f"{self.asked.request_id or ''}\0{self.asked.document or ''}"
        return f"{own}\0{self.item.fingerprint}\n".encode()


def _read(
    source: Source, job_id: str, limits: Limits, at: datetime
) -> Iterator[_Fit | DocumentError | ItemError]:
    """Read what is asked for; requests without ids of their own get the job's, counted from 0."""
    number = 0
    for asked in source:
        if isinstance(asked, DocumentError):
            yield asked
            continue
        pages = pdf_pages(asked.params)
        try:
            item = new_item(
                asked.params,
                request_id=asked.request_id or f"{job_id}/{number}",
                limits=limits,
                at=at,
                document=asked.document,
                pdf_pages=pages,
            )
        except ItemError as error:
            yield error
            continue
        number += 1
        yield _Fit(asked, item, pages)
