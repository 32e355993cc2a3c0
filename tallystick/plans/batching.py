"""Message batches, as far as they can be worked out: what an item is, its name, its fate.

An item is checked before it is submitted, by the rules that refuse a whole batch at the provider:
one bad item must not keep 10,000 good ones from being served. What is measured here is what
admission and the journal need later, so that nobody has to read the bodies again.

The name under which an item travels carries its job and its shard. A provider's batch echoes
nothing else of what was sent (facts on Claude, 'Message Batches'), so this is how a batch whose
create went unanswered is known to be ours, and how one that was made twice is told from the other.
"""

import hashlib
import json
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any, NamedTuple

from pydantic import ValidationError

from tallystick.contracts import MessagesBody, explain_validation, fingerprint_of
from tallystick.plans.guards import Limits, Refusal, Undecided, check
from tallystick.pricing import estimate_input_tokens, prompt_chars, quote

# --- An item --------------------------------------------------------------------------------------
FORBIDDEN = ("stream", "speed", "store", "thread", "threads", "cache_hint", "context_hint")
"""Parameters that no batch may have; one of them refuses the whole batch."""
_NAME = re.compile(r"^[A-Za-z0-9][A-Za-z0-9._:@+=/-]*$")
_LONGEST_REQUEST_ID = 150
_ENVELOPE = 80
"""Bytes that an item has in a create beside its params, at the most."""


class ItemError(ValueError):
    """An item cannot be part of a batch; the message names it, the field and what is wrong."""


@dataclass(frozen=True, slots=True)
class NewItem:
    """One request of a job, checked and measured. Everything but `params` is free of its text.

    `params` is the Messages API body as compact JSON. `highest_cost_usd` is the most it can cost at
    the provider's batch price, without what server tools add.
    """

    request_id: str
    document: str | None
    fingerprint: str
    model: str
    params: str
    body_bytes: int
    estimated_input_tokens: int
    prompt_chars: int
    highest_cost_usd: Decimal


def new_item(
    params: Mapping[str, Any],
    *,
    request_id: str,
    limits: Limits,
    at: datetime,
    document: str | None = None,
    counted: int | None = None,
    pdf_pages: int | None = None,
) -> NewItem:
    """Check and measure one request of a batch.

    Args:
        params: the Messages API body.
        request_id: names the request in the ledger for ever; unique for its customer.
        limits: what each item must keep to, at the batch price.
        at: when it would be served.
        document: its name for people, such as the file it was made from.
        counted: Claude's own count of the prompt, where it was asked for.
        pdf_pages: how many pages all PDFs in it have, where they were counted.

    Raises:
        ItemError: in one line.
    """
    name = document or request_id
    if not _NAME.match(request_id) or len(request_id) > _LONGEST_REQUEST_ID:
        raise ItemError(
            f"{name}: {request_id!r} cannot be a request id; use up to {_LONGEST_REQUEST_ID} "
            "letters, digits and ._:@+=/-"
        )
    try:
        MessagesBody.model_validate(params)
    except ValidationError as error:
        raise ItemError(f"{name}: {explain_validation(error, inside='params')}") from None
    for field in FORBIDDEN:
        if params.get(field):
            raise ItemError(f"{name}: params.{field}: not allowed in batches")
    if params["max_tokens"] == 0:
        raise ItemError(f"{name}: params.max_tokens: must be at least 1 in batches")
    verdict = check(params, limits, at, counted=counted, pdf_pages=pdf_pages, batch=True)
    if isinstance(verdict, Refusal):
        raise ItemError(f"{name}: {verdict.message}")
    if isinstance(verdict, Undecided):
        highest = quote(params, at, pdf_pages=pdf_pages, batch=True).cost_high_usd
    else:
        highest = verdict.cost_usd
    text = json.dumps(params, separators=(",", ":"))
    return NewItem(
        request_id=request_id,
        document=document,
        fingerprint=fingerprint_of(params),
        model=params["model"],
        params=text,
        body_bytes=len(text) + _ENVELOPE,  # ASCII: json.dumps escapes the rest
        estimated_input_tokens=counted or estimate_input_tokens(params, pdf_pages=pdf_pages).likely,
        prompt_chars=prompt_chars(params),
        highest_cost_usd=highest,
    )


# --- A shard --------------------------------------------------------------------------------------
class ShardLimits(NamedTuple):
    """How much goes into one batch at the provider."""

    requests: int
    body_bytes: int


PROVIDER_LIMITS = ShardLimits(100_000, 256_000_000)
"""Of one batch (facts on Claude, 'Message Batches')."""
MAX_ROUNDS = 3
"""How often an item is tried that expires, or errors in a way that passes."""
LOOKED_FOR = timedelta(minutes=5)
"""How long the batch of an unanswered create is looked for before its items go into another one. A
create is worked on for seconds; its batch may take as long again to be listed
(anthropics/anthropic-sdk-python#1432)."""
CLOCKS_APART = timedelta(minutes=2)
"""By how much the provider's clock and ours may disagree about when a batch was made."""


def mark_of(job_id: str) -> str:
    """Return what the `custom_id`s of a job begin with."""
    return hashlib.sha256(job_id.encode()).hexdigest()[:12]


def shard_mark(job_id: str, shard: int) -> str:
    """Return what the `custom_id`s of a shard begin with; the item's number follows."""
    return f"{mark_of(job_id)}-{shard}-"


def could_be(
    *,
    items: int,
    sent_at: datetime,
    until: datetime,
    batch_items: int,
    created_at: datetime,
) -> bool:
    """Tell whether a batch that nobody knows may be that of an unanswered create.

    Args:
        items: how many requests were sent.
        sent_at: when, by our clock.
        until: the latest that the create can have been worked on, by our clock.
        batch_items: how many requests the batch has.
        created_at: when the batch was made, by the provider's clock.
    """
    return batch_items == items and sent_at - CLOCKS_APART <= created_at <= until + CLOCKS_APART


# --- An answer ------------------------------------------------------------------------------------
_PASSING = frozenset({"overloaded_error", "api_error", "rate_limit_error", "timeout_error"})


def passes(error_type: str | None) -> bool:
    """Tell whether an item that errored this way may succeed when it is sent again."""
    return error_type in _PASSING


# --- The end --------------------------------------------------------------------------------------
class Span(NamedTuple):
    """When a batch was made and when it ended; None while it runs."""

    begun_at: datetime
    ended_at: datetime | None


def expected_end(spans: Collection[Span], now: datetime) -> datetime | None:
    """Guess when all that runs will have ended: each as long after its begin as the slowest yet.

    None where nothing runs, or nothing has ended to guess by.
    """
    running = [span.begun_at for span in spans if span.ended_at is None]
    took = [span.ended_at - span.begun_at for span in spans if span.ended_at is not None]
    return max(now, max(running) + max(took)) if running and took else None
