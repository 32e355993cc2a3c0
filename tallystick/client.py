"""`tallystick.Client`: Claude for one of your customers, with the bill in hand.

One round trip starts the request and waits for its answer, whether the request is new, in flight
or done: Temporal joins callers who use the same id. Two rules keep that honest. The update's id is
made from the body, so the same id with another body is refused instead of getting a stranger's
answer. And the server stores refusals as it stores answers, so a refusal that was first told to an
earlier caller is looked at afresh: a customer who has paid is served at once.
"""

import asyncio
import time
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, cast
from uuid import uuid4

from anthropic.types import Message
from temporalio.client import (
    ActivityFailureError,
    WithStartWorkflowOperation,
    WorkflowFailureError,
    WorkflowUpdateFailedError,
    WorkflowUpdateRPCTimeoutOrCancelledError,
)
from temporalio.client import (
    Client as TemporalClient,
)
from temporalio.common import Priority, WorkflowIDConflictPolicy, WorkflowIDReusePolicy
from temporalio.exceptions import ApplicationError, FailureError, WorkflowAlreadyStartedError
from temporalio.exceptions import TimeoutError as ActivityTimeoutError
from temporalio.service import RPCError, RPCStatusCode

from tallystick.contracts import (
    CLAUDE_REQUEST,
    QUOTE_REQUEST,
    REPLY_UPDATE,
    TASK_QUEUE,
    Bill,
    ClaudeReply,
    ClaudeRequest,
    QuoteOrder,
    ReplyCall,
    RequestQuote,
    request_workflow_id,
)
from tallystick.errors import (
    REQUEST_ID_REUSED,
    UNKNOWN_MODEL,
    InvalidRequestError,
    ReplyPendingError,
    RequestIdReusedError,
    TallystickError,
    UnavailableError,
    error_from,
)
from tallystick.temporal import connect_temporal, request_attributes

FRESH = 5.0
"""Seconds for which a refusal told to one caller is good enough for the next."""


class BilledMessage(Message):
    """The SDK's own message, with the bill beside it.

    Everything that works on `anthropic.types.Message` works here: `reply.content[0].text`,
    `reply.usage`. `bill` says what it cost, what was charged, and why.
    """

    bill: Bill
    request_id: str


class Client:
    """What an application calls Claude through.

    Needs Temporal, and no key but those that payloads are encrypted under, where there are any.
    """

    def __init__(self, temporal: TemporalClient):
        """Use a connected Temporal client, from `tallystick.connect_temporal()`."""
        self.messages = Messages(temporal)
        self._temporal = temporal

    @classmethod
    async def connect(cls, address: str | None = None) -> "Client":
        """Connect as Temporal's own variables say; `address` overrides `TEMPORAL_ADDRESS`.

        Raises:
            UnavailableError: when no server answers.
        """
        return cls(await connect_temporal(address))

    async def quote(
        self,
        *,
        customer_id: str | None = None,
        count: bool = False,
        conversation_id: str | None = None,
        max_cost_usd: object = None,
        max_input_tokens: int | None = None,
        max_conversation_usd: object = None,
        customer_metadata: dict[str, str] | None = None,
        timeout: float | timedelta = 30,
        **params: Any,
    ) -> RequestQuote:
        """Return what a request would cost, without sending it to Claude or reserving anything.

        Takes what `messages.create` takes but for the `request_id`; of that, only `customer_id`
        and the Messages API parameters make a difference to the price.

        Args:
            customer_id: whose plan to charge by; a worker is asked for it. Without a customer the
                charge is the provider's price, worked out here.
            count: let Claude count the prompt, which makes the bounds narrow; a worker asks it.
            conversation_id: makes no difference; so do the limits and `customer_metadata`.
            max_cost_usd: see there.
            max_input_tokens: see there.
            max_conversation_usd: see there.
            customer_metadata: see there.
            timeout: seconds to wait for the worker.
            params: the Messages API parameters (`model`, `max_tokens`, `messages`, ...).

        Raises:
            InvalidRequestError: the message names the field.
            UnknownCustomerError: there is no such customer.
            UnavailableError: no worker, or no Temporal, answers in time.
        """
        asked = {"customer_id": customer_id, "count": count, "params": params}
        try:
            order = QuoteOrder.parse(asked)
        except ValueError as error:
            raise InvalidRequestError(str(error)) from None
        if customer_id is None and not count:
            return _quote_at_cost(params)
        patience = timeout if isinstance(timeout, timedelta) else timedelta(seconds=timeout)
        try:
            return await self._temporal.execute_activity(
                QUOTE_REQUEST,
                order,
                id=f"quote/{uuid4()}",
                task_queue=TASK_QUEUE,
                result_type=RequestQuote,
                schedule_to_close_timeout=patience,
            )
        except ActivityFailureError as error:
            if isinstance(error.cause, ActivityTimeoutError):
                raise UnavailableError(
                    f"no worker answered within {patience.total_seconds():g} s; see that one runs "
                    "(`tallystick worker`), or quote without customer_id and count"
                ) from None
            raise _typed(error.cause) from None
        except RPCError as error:
            raise UnavailableError(
                f"Temporal does not take the quote: {error}; TEMPORAL_ADDRESS says where it is"
            ) from error


class Messages:
    """Like the SDK's `client.messages`, on behalf of a customer."""

    def __init__(self, temporal: TemporalClient):
        self._temporal = temporal

    async def create(
        self,
        *,
        customer_id: str,
        request_id: str,
        conversation_id: str | None = None,
        max_cost_usd: object = None,
        max_input_tokens: int | None = None,
        max_conversation_usd: object = None,
        customer_metadata: dict[str, str] | None = None,
        timeout: float | timedelta | None = None,
        **params: Any,
    ) -> BilledMessage:
        """Return Claude's reply and its bill; call again with the same arguments at any time.

        Args:
            customer_id: who is billed.
            request_id: names this request for ever; a repeat returns the first reply and bill.
            conversation_id: groups the turns of one conversation.
            max_cost_usd: a Decimal or text; refuses the request when it could cost more.
            max_input_tokens: refuses the request when its prompt is longer.
            max_conversation_usd: a Decimal or text; what all requests of the conversation together
                may be charged, in place of the setting's cap.
            customer_metadata: kept with the usage record. (`metadata` is Claude's own parameter.)
            timeout: seconds to wait here; the request goes on regardless.
            params: the Messages API parameters (`model`, `max_tokens`, `messages`, ...).

        Raises:
            InvalidRequestError: the message names the field.
            ReplyPendingError: `timeout` passed first.
            UnavailableError: Temporal does not answer; or the request is over 1.8 MB and no worker
                takes it, which it needs to be stored.
            PayloadUnreadableError: the reply is under a key that is not here.
            TallystickError: one of the typed refusals in `tallystick.errors`.
        """
        try:
            request = ClaudeRequest.parse(
                {
                    "customer_id": customer_id,
                    "request_id": request_id,
                    "conversation_id": conversation_id,
                    "max_cost_usd": max_cost_usd,
                    "max_input_tokens": max_input_tokens,
                    "max_conversation_usd": max_conversation_usd,
                    "metadata": customer_metadata,
                    "params": params,
                }
            )
        except ValueError as error:
            raise InvalidRequestError(str(error)) from None
        seconds = timeout.total_seconds() if isinstance(timeout, timedelta) else timeout
        try:
            reply = await asyncio.wait_for(self.reply(request), seconds)
        except TimeoutError:
            raise ReplyPendingError(
                f"request {request_id!r} is not answered after {seconds} s; it goes on, ask again "
                "with the same request_id and body"
            ) from None
        return BilledMessage.model_construct(
            **cast("dict[str, Any]", Message.construct(**reply.message).__dict__),
            bill=reply.bill,
            request_id=reply.request_id,
        )

    async def reply(self, request: ClaudeRequest) -> ClaudeReply:
        """Return the reply to a request that is valid already, as the workflow returned it."""
        update_id = f"reply-{request.fingerprint}"
        try:
            return await self._ask(request, update_id)
        except TallystickError as error:
            if not _is_old_refusal(error):
                raise
        # Told to an earlier caller; the reason may be gone by now. Callers of the same moment
        # share one fresh look, since the server allows few updates at a time on one workflow.
        moment = int(time.time() // FRESH)
        return await self._ask(request, f"{update_id}-{moment}")

    async def _ask(self, request: ClaudeRequest, update_id: str) -> ClaudeReply:
        workflow_id = request_workflow_id(request.customer_id, request.request_id)
        start: WithStartWorkflowOperation[Any, Any] = WithStartWorkflowOperation(
            CLAUDE_REQUEST,
            request,
            id=workflow_id,
            task_queue=TASK_QUEUE,
            id_conflict_policy=WorkflowIDConflictPolicy.USE_EXISTING,
            # A request that failed may be asked again; what it did stands in the ledger.
            id_reuse_policy=WorkflowIDReusePolicy.ALLOW_DUPLICATE_FAILED_ONLY,
            search_attributes=request_attributes(request.customer_id, request.params["model"]),
            static_summary=f"{request.params['model']} for {request.customer_id}",
            # Its first steps take their turn among the customers too, not only its call to Claude.
            priority=Priority(fairness_key=request.customer_id),
        )
        try:
            return await self._temporal.execute_update_with_start_workflow(  # pyright: ignore[reportUnknownMemberType]
                REPLY_UPDATE,
                ReplyCall(fingerprint=request.fingerprint),
                start_workflow_operation=start,
                id=update_id,
                result_type=ClaudeReply,
            )
        except WorkflowUpdateFailedError as error:
            raise _typed(error.cause) from None
        except WorkflowAlreadyStartedError:
            # Answered before, without this update id: another body, or another way of asking.
            await _consume(start)
            try:
                return await self._answered(workflow_id, request)
            except RPCError as error:
                raise _unreachable(error) from error
        except (WorkflowUpdateRPCTimeoutOrCancelledError, RPCError) as error:
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                # The SDK turns a cancellation into its own error; our caller meant what it did.
                raise asyncio.CancelledError from error
            await _consume(start)
            raise _unreachable(error) from error

    async def _answered(self, workflow_id: str, request: ClaudeRequest) -> ClaudeReply:
        handle = self._temporal.get_workflow_handle(workflow_id, result_type=ClaudeReply)
        async for event in handle.fetch_history_events(page_size=1):
            started = event.workflow_execution_started_event_attributes
            (first,) = await self._temporal.data_converter.decode(started.input.payloads)
            if _fingerprint(first) != request.fingerprint:
                raise RequestIdReusedError(
                    f"request_id: {request.request_id!r} was used before with a different body; "
                    "use a new id for a new request",
                    type=REQUEST_ID_REUSED.type,
                )
            break
        try:
            return await handle.result()
        except WorkflowFailureError as error:
            raise _typed(error.cause) from None


def _quote_at_cost(params: Mapping[str, Any]) -> RequestQuote:
    from tallystick.plans import quote_request
    from tallystick.pricing import NoPriceError

    try:
        return quote_request(params, datetime.now(UTC))
    except NoPriceError as error:
        raise InvalidRequestError(f"params.model: {error}", type=UNKNOWN_MODEL.type) from None


def _typed(cause: BaseException | None) -> TallystickError:
    if not isinstance(cause, ApplicationError):
        message = cause.message if isinstance(cause, FailureError) else str(cause)
        return TallystickError(f"the request ended without an answer: {message}")
    return error_from(cause.type, cause.message, dict(cause.details[0]) if cause.details else {})


def _is_old_refusal(error: TallystickError) -> bool:
    """Tell whether a refusal was stored by the server before this call.

    Clocks that disagree cost at most a needless second look, or a refusal that is older than
    `FRESH` by as much as they disagree.
    """
    told = error.details.get("refused_at")
    return told is not None and time.time() - datetime.fromisoformat(told).timestamp() > FRESH


def _fingerprint(first: Any) -> str | None:
    try:
        return ClaudeRequest.parse(first).fingerprint
    except ValueError:
        return None


async def _consume(start: WithStartWorkflowOperation[Any, Any]) -> None:
    """Take the operation's own copy of an error, which asyncio would report as forgotten."""
    try:
        await asyncio.wait_for(start.workflow_handle(), 1)
    except (Exception, asyncio.CancelledError):
        return


def _unreachable(error: Exception) -> TallystickError:
    if isinstance(error, RPCError) and error.status in (
        RPCStatusCode.INVALID_ARGUMENT,
        RPCStatusCode.NOT_FOUND,
    ):
        return UnavailableError(
            f"Temporal refused the request: {error}; `tallystick setup` prepares a new server"
        )
    return UnavailableError(
        f"Temporal stopped answering ({type(error).__name__}: {error}); the request is safe if it "
        "was accepted, ask again with the same request_id and body (TEMPORAL_ADDRESS says where)"
    )
