"""`tallystick batch`: many documents for half the price, as one job that can be left alone.

A job is stored before it is started, and starting it twice starts it once; so each command can be
broken off anywhere and given again.
"""

import asyncio
import sys
from collections.abc import Awaitable
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer
from pydantic import TypeAdapter, ValidationError
from temporalio.client import Client
from temporalio.service import RPCError, RPCStatusCode

from tallystick.cli.access import in_ledger, with_ledger
from tallystick.cli.batch_following import Standing, follow, outcome, standing_of, summary
from tallystick.cli.batch_results import opened, write_folder, write_lines
from tallystick.cli.customer_terms import Id, in_force
from tallystick.cli.output import JsonFlag, err, fail, note, parse_usd, print_json, print_rows
from tallystick.contracts import CANCEL_UPDATE, BatchProgress, JobId, batch_workflow_id
from tallystick.documents import KINDS, Folder, Prompt, Requests
from tallystick.errors import UnavailableError
from tallystick.ledger import batches
from tallystick.ledger.batches import NewJob
from tallystick.ledger.database import Ledger
from tallystick.money import plain
from tallystick.payloads.columns import ColumnSeal
from tallystick.plans.guards import Limits
from tallystick.pricing import pages
from tallystick.pricing.estimate import PDF_PAGE_TOKENS_AT_MOST, PDF_PAGE_TOKENS_LIKELY
from tallystick.pricing.explain import dollars
from tallystick.settings import get_settings
from tallystick.subjects import how_to_go_on
from tallystick.submission import (
    JobQuote,
    Measured,
    job_id_of,
    measure,
    quote_job,
    start,
    store,
)
from tallystick.temporal import connect_temporal

_batches = typer.Typer(
    help="Send many requests at half the price, and follow them.",
    no_args_is_help=True,
)

Job = Annotated[str, typer.Argument(metavar="JOB", help="The id that `submit` printed.")]
_T = TypeVar("_T")
_MODEL, _MAX_TOKENS = "claude-sonnet-5-5", 1_024
_SHOWN = 10
"""Documents that cannot be sent and are named one by one."""
_SLOW = 10.0
"""Seconds after which a person wonders."""


def register(app: typer.Typer) -> None:
    """Add the commands to the root."""
    app.add_typer(_batches, name="batch")


@_batches.command()
def submit(
    customer: Id,
    path: Annotated[
        Path, typer.Argument(metavar="PATH", help="A folder of documents, or a JSONL of requests.")
    ],
    instruction: Annotated[str, typer.Option(help="What to do with each document.")] = "",
    template: Annotated[
        str, typer.Option(help="A text file instead: a prompt with {document}, maybe {name}.")
    ] = "",
    model: Annotated[str, typer.Option(help=f"A model id; the request's, or {_MODEL}.")] = "",
    max_tokens: Annotated[
        int, typer.Option(help=f"Output tokens at the most; the request's, or {_MAX_TOKENS:,}.")
    ] = 0,
    job_id: Annotated[
        str, typer.Option(help="Names the job for ever; by its content if not given.")
    ] = "",
    max_cost: Annotated[
        str, typer.Option(help="Refuse the job when it could be charged more dollars.")
    ] = "",
    skip_unfit: Annotated[
        bool, typer.Option("--skip-unfit", help="Leave out what cannot be sent.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what it would cost; send nothing.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask before sending.")] = False,
    as_json: bool = JsonFlag,
) -> None:
    """Quote and send a batch of requests. The same command again continues, or reports.

    Documents are .txt, .md, .pdf, .png, .jpg, .webp and .gif files, also in folders below. A line
    of JSONL is {"request_id"?, "params": {Messages API body}}.
    """
    limit = parse_usd(max_cost, "--max-cost") if max_cost else None
    if job_id:
        _check_job_id(job_id)
    asked = _source(path, instruction, template, model, max_tokens)
    settings, now = get_settings(), datetime.now(UTC)
    limits = Limits(settings.max_input_tokens, settings.max_cost_usd)
    agreed = in_ledger(lambda tx: in_force(tx, customer, now))
    measured = measure(customer, asked, limits, now)
    _tell_left_out(measured, asked, skip_unfit)
    quoted = quote_job(measured, agreed)
    name = job_id or job_id_of(measured)
    told = {"job_id": name, "quote": _quote_as_dict(measured, quoted)}
    before = in_ledger(lambda tx: batches.get(tx, name))
    if not as_json or not (yes or dry_run):
        for line in _in_words(measured, quoted):
            note(line)
    if before is None and limit is not None and quoted.highest_usd > limit:
        fail(
            f"--max-cost: the job may be charged up to ${plain(round(quoted.highest_usd, 4))}, "
            f"over ${plain(limit)}; raise it, lower --max-tokens, or submit fewer documents"
        )
    if dry_run:
        if as_json:
            print_json(told)
        else:
            note(f"nothing is sent; without --dry-run this would be job {name}")
        return
    if before is None and not yes:
        _ask(measured)

    async def send(ledger: Ledger) -> BatchProgress:
        new = NewJob(job_id=name, customer_id=customer, max_cost_usd=limit)
        seal = ColumnSeal(settings.keyring)
        job = await store(
            ledger, new, asked, limits, now, seal=seal, fingerprint=measured.fingerprint
        )
        await start(await connect_temporal(), job)
        async with ledger.begin() as tx:
            return await batches.progress(tx, name, datetime.now(UTC))

    progress = with_ledger(send)
    if as_json:
        shown = progress.model_dump(mode="json")
        print_json({**told, "submitted_before": before is not None, "progress": shown})
        return
    typer.echo(name)
    if progress.state == "ended":
        note(f"submitted before, and ended: {outcome(progress)}")
    else:
        note("submitted before; it goes on" if before else "submitted; it goes on without you")
        note(f"`tallystick batch status {name} --follow` shows how far it is")


@_batches.command()
def status(
    job: Job,
    following: Annotated[
        bool, typer.Option("--follow", help="Draw a progress bar until the job ends.")
    ] = False,
    as_json: bool = JsonFlag,
) -> None:
    """Show how far a job is, what it cost so far, and when it should end."""

    async def look(ledger: Ledger) -> tuple[BatchProgress, Standing]:
        progress = await _progress(ledger, job)
        temporal = await _temporal()
        standing = await _standing(temporal, progress)
        if not following:
            return progress, standing
        told = ""

        async def over(progress: BatchProgress) -> bool:
            nonlocal standing, told
            standing = await _standing(temporal, progress)
            if standing.waits_for not in ("", told):
                note(f"waits for a person: {standing.waits_for}")
            told = standing.waits_for
            return progress.state == "ended" or standing.refused is not None

        progress = await follow(lambda: _progress(ledger, job), err, until=over)
        return progress, standing

    progress, standing = with_ledger(look)
    if as_json:
        print_json({**progress.model_dump(mode="json"), **asdict(standing)})
    elif following and progress.state == "ended":
        note(f"ended: {outcome(progress)}")
    else:
        print_rows((f"job {job}", ""), summary(progress, standing))
    if standing.stuck and not as_json:
        note(how_to_go_on(batch_workflow_id(job)))
    if standing.refused:
        fail(f"JOB: {job!r} does not go on: {standing.refused}")


@_batches.command()
def results(
    job: Job,
    out: Annotated[
        Path | None,
        typer.Option(help="A .jsonl file, or a folder for one text a document; else the screen."),
    ] = None,
) -> None:
    """Write what came of each request: JSONL, or one text file per document.

    Whatever has no reply is listed by its document's name. Results can be fetched for 29 days after
    the job has ended.
    """

    async def write(ledger: Ledger) -> tuple[BatchProgress, int]:
        progress = await _progress(ledger, job)
        async with ledger.begin() as tx:
            row = await batches.existing(tx, job)
            if row.results_gone_at is not None:
                fail(f"JOB: the results of {job!r} are gone since {row.results_gone_at:%Y-%m-%d}")
            found = opened(batches.results(tx, job), ColumnSeal(get_settings().keyring))
            if out is not None and out.suffix.lower() not in (".jsonl", ".json"):
                return progress, await write_folder(found, out)
            return progress, await write_lines(found, out)

    try:
        progress, written = with_ledger(write)
    except OSError as error:
        fail(f"--out: {str(out)!r} cannot be written: {error.strerror}")
    if out is not None:
        note(f"{written:,} of {progress.items:,} written to {out}")
    if progress.state != "ended":
        note(f"the job has not ended: {progress.done:,} of {progress.items:,} have a result so far")


@_batches.command()
def cancel(job: Job, as_json: bool = JsonFlag) -> None:
    """Cancel a job: nothing more is sent, and what Claude still serves of it is billed."""

    async def stop(ledger: Ledger) -> BatchProgress:
        await _progress(ledger, job)
        # Committed first: from now on nothing is sent, whether or not anybody can be told.
        async with ledger.begin() as tx:
            await batches.note_cancelled(tx, job, datetime.now(UTC))
            row = await batches.existing(tx, job)
        temporal = await connect_temporal()
        await start(temporal, row)
        handle = temporal.get_workflow_handle(batch_workflow_id(job))
        try:
            asking = handle.execute_update(CANCEL_UPDATE, result_type=BatchProgress)  # pyright: ignore[reportUnknownMemberType]
            return await _told_when_slow(asking)
        except RPCError as error:
            if error.status is not RPCStatusCode.NOT_FOUND:
                raise UnavailableError(
                    f"the job is noted as cancelled, but Temporal does not answer: {error}; cancel "
                    "it again for what runs at Claude (TEMPORAL_ADDRESS says where Temporal is)"
                ) from error
        return await _progress(ledger, job)

    progress = with_ledger(stop)
    if as_json:
        print_json(progress.model_dump(mode="json"))
    elif progress.state == "ended":
        note(f"the job has ended: {outcome(progress)}")
    else:
        note(
            f"canceling: {progress.done:,} of {progress.items:,} are done, {progress.in_flight:,} "
            "are at Claude; what it still serves of them is billed"
        )


# --- What to send ---------------------------------------------------------------------------------
def _source(
    path: Path, instruction: str, template: str, model: str, max_tokens: int
) -> Folder | Requests:
    given = {
        **({"model": model} if model else {}),
        **({"max_tokens": max_tokens} if max_tokens else {}),
    }
    defaults = {"model": _MODEL, "max_tokens": _MAX_TOKENS}
    if max_tokens < 0:
        fail("--max-tokens: should be above zero")
    if path.is_file():
        if instruction or template:
            option = "--instruction" if instruction else "--template"
            fail(f"{option}: is for a folder of documents; each line of {path} has its own prompt")
        return Requests(path, defaults, given)
    if not path.is_dir():
        fail(f"PATH: there is no folder and no file {str(path)!r}")
    if bool(instruction) == bool(template):
        fail("--instruction: say what to do with each document, or give --template, but not both")
    return Folder(path, _prompt(instruction, template), {**defaults, **given})


def _prompt(instruction: str, template: str) -> Prompt:
    if instruction:
        return Prompt.instruction(instruction)
    try:
        return Prompt.template(Path(template).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        fail(f"--template: {template!r} cannot be read as text: {error}")
    except ValueError as error:
        fail(f"--template: {template!r} {error}")


def _check_job_id(job_id: str) -> None:
    try:
        TypeAdapter(JobId).validate_python(job_id)
    except ValidationError:
        fail(f"--job-id: {job_id!r} should be up to 100 letters, digits and ._:@+=/-")


def _tell_left_out(measured: Measured, asked: Folder | Requests, skip: bool) -> None:
    if isinstance(asked, Folder) and asked.passed_over:
        kinds = ", ".join(f"{count:,} {kind}" for kind, count in asked.passed_over.most_common())
        note(f"not looked at: {kinds}; documents are {' '.join(KINDS)}")
    for unfit in measured.unfit[:_SHOWN]:
        note(unfit)
    more = len(measured.unfit) - _SHOWN
    if more > 0:
        note(f"... and {more:,} more")
    if measured.unfit and not skip:
        fail(
            f"PATH: {len(measured.unfit):,} of {len(measured.unfit) + measured.requests:,} cannot "
            "be sent; mend them, or leave them out with --skip-unfit"
        )
    if not measured.requests:
        fail(f"PATH: nothing to send in {str(asked.path)!r}")


def _ask(measured: Measured) -> None:
    if not sys.stdin.isatty():
        fail("--yes: nobody is here to be asked; give it to send, or --dry-run to send nothing")
    if not typer.confirm(f"send {measured.requests:,} requests?", err=True):
        raise typer.Exit(1)


def _in_words(measured: Measured, quoted: JobQuote) -> list[str]:
    said = [
        f"{measured.requests:,} requests, {pages(measured.input_tokens)} to read in all "
        f"({measured.input_tokens:,} tokens, judged by size).",
        f"On plan {quoted.plan} reading them costs about {dollars(quoted.prompts_usd)}; with the "
        f"longest answers it is up to {dollars(quoted.highest_usd)}, "
        f"{dollars(quoted.saves_usd)} less than in single calls.",
    ]
    if measured.pdf_pages:
        said.append(
            f"That takes {measured.pdf_pages:,} PDF pages for {PDF_PAGE_TOKENS_LIKELY:,} tokens "
            f"each, and for {PDF_PAGE_TOKENS_AT_MOST:,} at the most, which is an estimate: what "
            "Claude counts is charged, even if it should be more."
        )
    if measured.pdfs_uncounted:
        said.append(
            f"{measured.pdfs_uncounted:,} requests have PDFs whose pages cannot be counted; they "
            "are taken for the longest prompts there are."
        )
    return said


def _quote_as_dict(measured: Measured, quoted: JobQuote) -> dict[str, Any]:
    return {
        "requests": measured.requests,
        "left_out": len(measured.unfit),
        "input_tokens": measured.input_tokens,
        "pdf_pages": measured.pdf_pages,
        "pdfs_uncounted": measured.pdfs_uncounted,
        **asdict(quoted),
    }


# --- What became of it ----------------------------------------------------------------------------
async def _progress(ledger: Ledger, job: str) -> BatchProgress:
    async with ledger.begin() as tx:
        if await batches.get(tx, job) is None:
            fail(f"JOB: no job {job!r} was submitted; `tallystick batch submit` does that")
        return await batches.progress(tx, job, datetime.now(UTC))


async def _temporal() -> Client | None:
    """Connect, or say that nobody knows whether the job goes on."""
    try:
        return await connect_temporal()
    except UnavailableError as error:
        note(f"{error}; until then the job does not go on")
        return None


async def _standing(temporal: Client | None, progress: BatchProgress) -> Standing:
    """Return how a job stands, as far as anybody knows."""
    if temporal is None:
        return Standing()
    try:
        standing = await standing_of(temporal, progress.job_id)
    except RPCError:
        return Standing()
    # Of one that has ended Stripe may have to be told; that its workflow is gone says nothing.
    return Standing(stuck=standing.stuck) if progress.state == "ended" else standing


async def _told_when_slow(answer: Awaitable[_T]) -> _T:
    """Wait for the answer, and say what could be missing when it does not come soon."""
    asking = asyncio.ensure_future(answer)
    done, _ = await asyncio.wait({asking}, timeout=_SLOW)
    if not done:
        note(
            "no worker has answered yet; still waiting. The job is noted as cancelled: if no "
            "`tallystick worker` runs, Claude is told when one does"
        )
    return await asking
