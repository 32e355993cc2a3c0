"""The second act: a folder of documents, summarised at half the price as one batch job.

It takes the path of `tallystick batch submit`: quoted, copied into the ledger, started, followed.
While it runs, the answer to a create is lost, some items fail in passing and a file of results is
cut; the batch is found, the items are sent again, and the rest of the file is read.
"""

import asyncio
import uuid
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from typing import Any

from activities.stripe_catalog import create_customer
from activities.stripe_summaries import MeterSummaries
from tallystick.cli.batch_following import follow
from tallystick.contracts import BatchProgress, batch_workflow_id
from tallystick.documents import Folder, Prompt
from tallystick.errors import TallystickError
from tallystick.ledger import batches, customers, terms
from tallystick.ledger.batches import NewJob
from tallystick.ledger.tables import Customer
from tallystick.money import plain
from tallystick.payloads.columns import ColumnSeal
from tallystick.plans.guards import Limits
from tallystick.pricing.explain import dollars
from tallystick.settings import Settings
from tallystick.submission import job_id_of, measure, quote_job, start, store

from . import faults, sides
from .billed_requests import SUMMARY_PATIENCE
from .documents import Document
from .show import err
from .stage import Stage
from .tally import Tally

DOCUMENTS = 200
PLAN = "pass-through"
MODEL, MAX_TOKENS = "claude-sonnet-5-5", 300
INSTRUCTION = "Summarise this passage of the manual in two sentences."
_PASSAGE = 800
"""Characters of a document at the least, up to the end of a paragraph."""
_PACE = {"items_per_second": 20.0}
"""Of each batch: as quick as a person can watch."""
_FAULTS: dict[str, Any] = {
    "rules": [
        {"fault": "undelivered", "match": "POST /v1/messages/batches?"},
        {"fault": "item_errored", "times": 3},
        {"fault": "cut_results", "options": {"after_lines": 20}},
    ]
}
_PATIENCE = 180.0
"""Seconds for the job to end and be metered; far more than it takes."""


@dataclass(frozen=True, slots=True)
class Batched:
    """How the job ended, its three records, and what was survived on the way."""

    progress: BatchProgress
    tally: Tally
    applied: faults.Applied

    @property
    def agrees(self) -> bool:
        """Whether every document has its summary and the three records tally."""
        return self.progress.succeeded == self.progress.items and not self.tally.differences()

    def as_json(self) -> dict[str, Any]:
        """Return it as JSON-ready data."""
        return {
            **self.tally.as_json(),
            "job_id": self.progress.job_id,
            "documents": self.progress.items,
            "succeeded": self.progress.succeeded,
            "batches": self.progress.batches,
            "saved_usd": plain(self.progress.batch_saves_usd),
            "faults": self.applied,
            "agrees": self.agrees,
        }

    def in_words(self) -> str:
        """Say what it cost, and what the batch price saved."""
        single = self.progress.charge_usd + self.progress.batch_saves_usd
        return (
            f"{self.progress.succeeded} of {self.progress.items} documents in "
            f"{self.progress.batches} batches: charged {dollars(self.progress.charge_usd)}, where "
            f"single calls would have been {dollars(single)}"
        )


async def run(stage: Stage, texts: Sequence[Document], settings: Settings) -> Batched:
    """Send a folder of documents made of `texts`; returns how it ended.

    Raises:
        TallystickError: the worker ends by itself, or the job does not end.
    """
    began = datetime.now(UTC)
    name = f"fern-{uuid.uuid4().hex[:8]}"
    stripe_id = await create_customer(stage.stripe, name, "Fern")
    async with stage.ledger.begin() as tx:
        row = Customer(customer_id=name, name="Fern", plan=PLAN, stripe_customer_id=stripe_id)
        await customers.add(tx, row)
    folder = stage.local.home / "documents"
    write_documents(folder, islice(passages(texts), DOCUMENTS))
    await stage.stand_ins["claude"].post("batches", _PACE)
    await stage.stand_ins["claude"].post("faults", _FAULTS)
    job_id = await _submit(stage, name, folder, settings)
    progress = await _followed(stage, job_id)
    applied = await faults.disarm(stage.stand_ins)
    return Batched(progress, await _lay_together(stage, progress, stripe_id, began), applied)


def passages(texts: Iterable[Document]) -> Iterator[Document]:
    """Cut texts at the ends of paragraphs into small documents."""
    for text in texts:
        passage, number = "", 0
        for paragraph in text.text.split("\n\n"):
            passage += paragraph + "\n\n"
            if len(passage) >= _PASSAGE:
                number += 1
                yield Document(f"{Path(text.name).stem}-{number}.md", passage)
                passage = ""
        if passage.strip():
            yield Document(f"{Path(text.name).stem}-{number + 1}.md", passage)


def write_documents(folder: Path, documents: Iterable[Document]) -> None:
    """Write documents as files."""
    folder.mkdir()
    for document in documents:
        (folder / document.name).write_text(document.text, encoding="utf-8")


async def _submit(stage: Stage, customer: str, folder: Path, settings: Settings) -> str:
    """Quote the folder, store the job and start it; returns its id."""
    asked = Folder(
        folder, Prompt.instruction(INSTRUCTION), {"model": MODEL, "max_tokens": MAX_TOKENS}
    )
    limits, now = Limits(settings.max_input_tokens, settings.max_cost_usd), datetime.now(UTC)
    measured = measure(customer, asked, limits, now)
    async with stage.ledger.begin() as tx:
        standing = await terms.standing(tx, customer, now)
    assert standing is not None
    assert standing.agreed is not None
    quoted = quote_job(measured, standing.agreed)
    err.print(
        f"{measured.requests} documents as one batch job: up to {dollars(quoted.highest_usd)}, "
        f"{dollars(quoted.saves_usd)} less than in single calls"
    )
    new = NewJob(job_id=job_id_of(measured), customer_id=customer)
    seal = ColumnSeal(settings.keyring)
    job = await store(
        stage.ledger, new, asked, limits, now, seal=seal, fingerprint=measured.fingerprint
    )
    await start(stage.temporal, job)
    return job.job_id


async def _followed(stage: Stage, job_id: str) -> BatchProgress:
    """Draw the job's bar until it has ended, and wait until all of it is metered."""

    async def look() -> BatchProgress:
        async with stage.ledger.begin() as tx:
            return await batches.progress(tx, job_id, datetime.now(UTC))

    async def over(progress: BatchProgress) -> bool:
        stage.check_worker()
        return progress.state == "ended"

    handle = stage.temporal.get_workflow_handle(
        batch_workflow_id(job_id), result_type=BatchProgress
    )
    try:
        async with asyncio.timeout(_PATIENCE):
            await follow(look, err, every=0.4, until=over)
            return await handle.result()
    except TimeoutError:
        raise TallystickError(f"the batch job {job_id} did not end") from None


async def _lay_together(
    stage: Stage, progress: BatchProgress, stripe_id: str, began: datetime
) -> Tally:
    customer = progress.customer_id
    records = [
        record
        for record in await sides.usage_records(stage.ledger)
        if record["customer_id"] == customer
    ]
    journal = await stage.stand_ins["claude"].journal()
    # The only batches of the run are this job's; none of their replies may be lost.
    served = [row for row in journal if "batch_id" in row]
    claude, lost = sides.claude_figures(served, records, unknown=0)
    ledger = sides.ledger_figures(records)
    refused = sum(record["status"] == "not_billed" for record in records)
    return Tally(
        requests=progress.items,
        answered=progress.succeeded,
        billed=len(records) - refused,
        refused=refused,
        metered=len(records) - refused,  # the workflow ends when all of it is
        claude=claude,
        ledger=ledger,
        stripe=await sides.settled_stripe_figures(
            MeterSummaries(stage.stripe),
            {customer: stripe_id},
            began,
            ledger,
            patience=SUMMARY_PATIENCE,
        ),
        lost=lost,
    )
