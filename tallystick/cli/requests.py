"""`tallystick request`: one billed Claude request from the shell."""

import asyncio
import json
import uuid
from collections.abc import Coroutine
from typing import Annotated, Any

import typer

from tallystick.cli.output import JsonFlag, note, parse_usd, print_json
from tallystick.cli.stdin import read_stdin
from tallystick.client import BilledMessage, Client
from tallystick.contracts import Bill
from tallystick.money import plain

_SLOW = 10.0
"""Seconds after which a person wonders."""


def register(app: typer.Typer) -> None:
    """Add the command to the root."""
    app.command()(request)


def request(
    customer: Annotated[str, typer.Argument(metavar="CUSTOMER", help="Who is billed.")],
    prompt: Annotated[str, typer.Argument(metavar="PROMPT", help="The prompt, or - for stdin.")],
    model: Annotated[str, typer.Option(help="A model id.")] = "claude-sonnet-5-5",
    max_tokens: Annotated[int, typer.Option(help="Output tokens at the most.")] = 1_024,
    request_id: Annotated[
        str, typer.Option("--id", help="Names the request for ever; a fresh one by default.")
    ] = "",
    conversation: Annotated[str, typer.Option(help="Groups requests of one conversation.")] = "",
    max_cost_usd: Annotated[str, typer.Option(help="Refuse when it could cost more.")] = "",
    max_conversation_usd: Annotated[
        str, typer.Option(help="What the whole conversation may be charged.")
    ] = "",
    timeout: Annotated[float, typer.Option(help="Seconds to wait for the answer.")] = 600,
    as_json: bool = JsonFlag,
) -> None:
    """Ask Claude on behalf of a customer; prints the answer and its bill."""
    limit = parse_usd(max_cost_usd, "--max-cost-usd") if max_cost_usd else None
    cap = (
        parse_usd(max_conversation_usd, "--max-conversation-usd") if max_conversation_usd else None
    )
    text = read_stdin("PROMPT") if prompt == "-" else prompt
    name = request_id or f"cli-{uuid.uuid4().hex[:12]}"

    async def ask() -> BilledMessage:
        client = await Client.connect()
        return await client.messages.create(
            customer_id=customer,
            request_id=name,
            conversation_id=conversation or None,
            max_cost_usd=limit,
            max_conversation_usd=cap,
            timeout=timeout,
            model=model,
            max_tokens=max_tokens,
            messages=[{"role": "user", "content": text}],
        )

    reply = asyncio.run(_told_when_slow(ask()))
    if as_json:
        print_json(_as_json(reply))
        return
    typer.echo("".join(_texts(reply)))  # as it is: a pipe wants no line breaks of ours
    note("")
    for line in _bill_in_words(name, reply.bill):
        note(line)


async def _told_when_slow(answer: Coroutine[Any, Any, BilledMessage]) -> BilledMessage:
    """Wait for the answer, and say what could be missing when it does not come soon."""
    asking = asyncio.create_task(answer)
    done, _ = await asyncio.wait({asking}, timeout=_SLOW)
    if not done:
        note(
            "no answer yet; still waiting. If no `tallystick worker` runs, nothing is lost: the "
            "request is served when one does"
        )
    return await asking


def _texts(reply: BilledMessage) -> list[str]:
    return [block.text for block in reply.content if block.type == "text"]


def _as_json(reply: BilledMessage) -> dict[str, Any]:
    message = json.loads(reply.to_json())
    bill = message.pop("bill", None)
    message.pop("request_id", None)
    assert bill is not None  # noqa: S101 - every answer has one
    return {
        "request_id": reply.request_id,
        "message": message,
        "bill": reply.bill.model_dump(mode="json"),
    }


def _bill_in_words(request_id: str, bill: Bill) -> list[str]:
    words = [f"request {request_id}: {bill.explanation}"]
    if bill.charge_usd is not None and bill.cost_usd is not None:
        words.append(f"charged ${plain(bill.charge_usd)} (cost ${plain(bill.cost_usd)})")
    return words + [f"warning: {warning}" for warning in bill.warnings]
