"""What one request used, as the reports are told of it: a record per model that worked on it.

A report names things otherwise than a reply does. Models lose their date, an unset geography is
null, and a request that several models worked on is counted once, where it was answered (facts on
Claude, 'Usage and cost reports'; what a report does with iterations is not documented).
"""

import re
from dataclasses import dataclass
from decimal import Decimal
from typing import Literal, NamedTuple

from tallystick.pricing import TokenCounts
from tallystick.sandbox.claude.keys import WORKSPACE
from tallystick.sandbox.claude.replies import Reply

ONE = Decimal(1)

Product = Literal["messages_api", "message_batches_api"]


class Place(NamedTuple):
    """The dimensions by which usage can be grouped, each as a report shows it."""

    model: str
    api_key_id: str | None
    workspace_id: str | None
    service_tier: str | None
    inference_geo: str | None
    speed: str | None
    product: str | None


@dataclass(frozen=True, slots=True)
class Used:
    """Usage at one place and instant (seconds since the epoch).

    `free` usage is reported and costs nothing. `ids` are names it can be found by. The list price
    is multiplied by `factor`, and `paid` is the share of it that is charged.
    """

    at: float
    place: Place
    tokens: TokenCounts
    requests: int
    free: bool = False
    ids: tuple[str, ...] = ()
    factor: Decimal = ONE
    paid: Decimal = ONE


def used_by(
    reply: Reply, *, at: float, key_id: str, product: Product, ids: tuple[str, ...]
) -> tuple[Used, ...]:
    """Return what a served reply used."""
    return tuple(
        Used(
            at=at,
            place=Place(
                model=undated(portion.model),
                api_key_id=key_id,
                workspace_id=WORKSPACE,
                service_tier=reply.service_tier,
                inference_geo=geography_shown(reply.inference_geo),
                speed=reply.speed,
                product=product,
            ),
            tokens=portion.tokens.counts(),
            requests=int(portion.answers),
            free=portion.free,
            ids=ids,
        )
        for portion in reply.portions
    )


def undated(model: str) -> str:
    """Return a model's name as reports and their filters have it."""
    return re.sub(r"-\d{8}$", "", model)


def geography_shown(inference_geo: str | None) -> str | None:
    """Return a geography as reports show it: null where it is unset."""
    return None if inference_geo == "not_available" else inference_geo
