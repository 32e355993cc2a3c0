"""`tallystick ledger content`: what was asked and answered in one request, where it is kept.

Each reading is entered in the operators' journal, and committed before anything is shown.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any

import typer

from tallystick.cli.access import in_ledger
from tallystick.cli.customer_terms import Id, existing
from tallystick.cli.operators import By, operator
from tallystick.cli.output import JsonFlag, fail, note, print_json
from tallystick.contracts import RequestKey
from tallystick.ledger import contents, operator_actions, usage
from tallystick.ledger.content_tables import ContentTerms, RequestContent
from tallystick.ledger.database import Transaction
from tallystick.ledger.operator_actions import Decision
from tallystick.payloads.columns import ColumnSeal
from tallystick.settings import get_settings
from tallystick.subjects import usage_subject


def register(app: typer.Typer) -> None:
    """Add the command to `tallystick ledger`."""
    app.command()(content)


def content(
    customer: Id,
    request: Annotated[str, typer.Argument(metavar="REQUEST", help="The request's id.")],
    by: By = "",
    as_json: bool = JsonFlag,
) -> None:
    """Show what was asked and answered, or why it is not kept; each reading is recorded."""
    key = RequestKey(customer_id=customer, request_id=request)
    kept = in_ledger(lambda tx: _read(tx, key, operator(by)))
    seal = ColumnSeal(get_settings().keyring)
    params, reply = (json.loads(seal.read_text(each)) for each in (kept.params, kept.reply))
    if "result" in reply:  # the line of a batch's results
        reply = reply["result"]["message"]
    if as_json:
        told = {"params": params, "reply": reply, "goes_at": kept.goes_at}
        print_json({**key.model_dump(), **told})
        return
    for part in _in_words(params, reply):
        typer.echo(part)
    note(f"kept until {_written(kept.goes_at)}")


async def _read(tx: Transaction, key: RequestKey, by: str) -> RequestContent:
    await existing(tx, key.customer_id)
    kept = await contents.find(tx, key)
    if kept is None:
        record = await usage.find(tx, key)
        if record is None:
            fail(
                f"REQUEST: customer {key.customer_id!r} has no recorded request {key.request_id!r}"
            )
        decisions = await contents.decisions(tx, key.customer_id)
        fail(f"REQUEST: {_why_none(record.recorded_at, decisions)}")
    decision = Decision(
        by=by,
        action="read",
        subject=usage_subject(key.customer_id, key.request_id),
        customer_id=key.customer_id,
        reason=None,
        at=datetime.now(UTC),
    )
    await operator_actions.enter(tx, decision, "its content was shown")
    return kept


def _why_none(recorded_at: datetime, decisions: Sequence[ContentTerms]) -> str:
    """Say why there is no content of a request that was recorded at an instant."""
    then = next((each for each in reversed(decisions) if each.valid_from <= recorded_at), None)
    if then is None or then.days is None:
        return (
            "none of its content is kept: keeping was not switched on when it was recorded, "
            f"{_written(recorded_at)}"
        )
    goes_at = recorded_at + timedelta(days=then.days)
    ends = [each.valid_from for each in decisions if each.erases and each.valid_from > recorded_at]
    if ends and ends[0] < goes_at:
        return f"its content is gone since {_written(ends[0])}, when it was erased"
    if goes_at <= datetime.now(UTC):
        return f"its content is gone since {_written(goes_at)}, after {then.days:,} days"
    return "none of its content is kept: keeping was not switched on yet when it was admitted"


def _written(at: datetime) -> str:
    return f"{at.astimezone(UTC):%Y-%m-%d %H:%M} UTC"


def _in_words(params: Mapping[str, Any], reply: Mapping[str, Any]) -> Iterator[str]:
    """Yield who said what; of blocks that are not text only their size."""
    said = [
        ("system", params.get("system")),
        *((turn["role"], turn["content"]) for turn in params["messages"]),
        ("reply", reply.get("content")),
    ]
    for who, what in said:
        if what:
            blocks = [{"type": "text", "text": what}] if isinstance(what, str) else what
            yield "\n".join([f"{who}:", *map(_block, blocks), ""])


def _block(block: Mapping[str, Any]) -> str:
    if block.get("type") == "text":
        # A terminal obeys what it cannot print.
        shown = (c if c.isprintable() or c in "\n\t" else "\ufffd" for c in block["text"])
        return "".join(shown)
    size = len(json.dumps(block))
    return f"[{block.get('type')}: {size:,} characters of JSON, which --json shows]"
