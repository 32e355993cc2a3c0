"""What a drill tells this Stripe about time and money, under `/_sandbox`."""

from collections.abc import Awaitable, Callable
from decimal import Decimal
from typing import Annotated, TypeVar

from pydantic import BaseModel, ConfigDict, Field
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from tallystick.sandbox.clock import ClockOrder
from tallystick.sandbox.control import read_order
from tallystick.sandbox.stripe import payments
from tallystick.sandbox.stripe.account import Account
from tallystick.sandbox.stripe.dunning import Dunning, Outcome
from tallystick.sandbox.stripe.wire import Refusal, public

T = TypeVar("T")


class Tax(BaseModel):
    """A customer's tax, exclusive, in per cent of each line."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    customer: str
    percent: Annotated[Decimal, Field(ge=0, le=100)]


class Transfer(BaseModel):
    """Money from a customer for an open invoice, in cents, without a charge."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    invoice: str
    amount: Annotated[int, Field(gt=0)]


def billing_routes(account: Account, settled: Callable[[], Awaitable[None]]) -> list[Route]:
    """`clock`, `dunning`, `outcomes`, `taxes` and `transfers`."""

    async def clock(request: Request) -> JSONResponse:
        if request.method == "POST":
            try:
                await account.clock.set(await read_order(request, ClockOrder), settled)
            except ValueError as error:
                raise HTTPException(400, str(error)) from None
        return JSONResponse(account.clock.state())

    async def dunning(request: Request) -> JSONResponse:
        if request.method == "POST":
            account.dunning = await read_order(request, Dunning)
        return JSONResponse(account.dunning.model_dump())

    async def outcomes(request: Request) -> JSONResponse:
        outcome = await read_order(request, Outcome)
        _or_404(lambda: payments.order(account, outcome))
        return JSONResponse(outcome.model_dump())

    async def taxes(request: Request) -> JSONResponse:
        tax = await read_order(request, Tax)
        customer = _or_404(lambda: account.get("customer", tax.customer))
        customer["_tax_percent"] = tax.percent
        return JSONResponse(tax.model_dump(mode="json"))

    async def transfers(request: Request) -> JSONResponse:
        account.clock.catch_up()
        transfer = await read_order(request, Transfer)
        invoice = _or_404(lambda: account.get("invoice", transfer.invoice))
        if invoice["status"] != "open":
            raise HTTPException(400, f"the invoice is {invoice['status']}, not open")
        payments.transfer(account, invoice, transfer.amount)
        return JSONResponse(public(invoice))

    return [
        Route("/_sandbox/clock", clock, methods=["GET", "POST"]),
        Route("/_sandbox/dunning", dunning, methods=["GET", "POST"]),
        Route("/_sandbox/outcomes", outcomes, methods=["POST"]),
        Route("/_sandbox/taxes", taxes, methods=["POST"]),
        Route("/_sandbox/transfers", transfers, methods=["POST"]),
    ]


def _or_404(find: Callable[[], T]) -> T:
    try:
        return find()
    except Refusal as refusal:
        raise HTTPException(404, refusal.message) from None
