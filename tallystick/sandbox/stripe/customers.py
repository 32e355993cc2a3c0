"""Customers: as much of them as billing by meters needs."""

from pydantic import Field

from tallystick.sandbox.stripe.account import Paging, page
from tallystick.sandbox.stripe.endpoint import Call, Endpoint, retrieve
from tallystick.sandbox.stripe.wire import Obj, Params

PATH = "/v1/customers"


class Create(Params):
    """What a new customer can be given."""

    name: str | None = None
    email: str | None = None
    description: str | None = None
    metadata: dict[str, str] = Field(default_factory=dict[str, str])


class List(Paging):
    """What customers can be listed by."""

    email: str | None = None


async def create(call: Call, params: Create) -> Obj:
    """Make a customer."""
    account = call.account
    return account.add(
        "customer",
        "cus",
        {
            "object": "customer",
            "address": None,
            "balance": 0,
            "created": account.now(),
            "currency": None,
            "delinquent": False,
            "description": params.description,
            "email": params.email,
            "livemode": call.livemode,
            "metadata": params.metadata,
            "name": params.name,
            "phone": None,
            "shipping": None,
        },
    )


async def listed(call: Call, params: List) -> Obj:
    """List customers, newest first."""
    rows = reversed(call.account.table("customer").values())
    return page(PATH, [row for row in rows if params.email in (None, row["email"])], params)


ENDPOINTS = [
    Endpoint("POST", PATH, Create, create),
    Endpoint("GET", PATH, List, listed),
    retrieve("customer", PATH + "/{id}"),
]
