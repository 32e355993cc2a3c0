"""Every model and name that crosses a Temporal boundary, in one place.

Applications in any language start `ClaudeRequest` by name and read its JSON, so a field here is a
promise. Money travels as decimal strings (`tallystick.money.Usd`). Nothing here may import more
than pydantic and the standard library: workflow code imports this module inside the sandbox.
"""

import hashlib
import json
import re
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Literal, TypeVar

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from tallystick.money import Usd

# --- Names that others rely on --------------------------------------------------------------------
TASK_QUEUE = "tallystick"
CLAUDE_TASK_QUEUE = "tallystick-claude"
CLAUDE_REQUEST = "ClaudeRequest"
REPLY_UPDATE = "reply"
QUOTE_REQUEST = "quote_request"
SEARCH_ATTRIBUTES = ("CustomerId", "BillingState", "ClaudeModel", "StripeCustomerId")


class BillingState:
    """Values of the search attribute `BillingState` that a request, job or run can take."""

    ACTIVE = "active"
    REFUSED = "refused"
    STUCK = "stuck"
    UNPRICED = "unpriced"
    FAILED = "failed"
    DISCREPANCY = "discrepancy"
    """Of a reconciliation: records differ by more than is tolerated."""


# Ids end up in workflow ids, fairness keys (64 bytes at most) and Stripe identifiers. The customer
# id has no slash: `claude-request/{customer}/{request}` must split one way only.
CustomerId = Annotated[
    str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._:@+=-]*$", max_length=64)
]
RequestId = Annotated[
    str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._:@+=/-]*$", max_length=150)
]

Label = Annotated[str, StringConstraints(pattern=r"^[^\x00]*$")]
"""Text for the ledger. PostgreSQL takes no NUL, and would only say so once Claude was paid."""

MAX_REQUEST_BYTES = 16_000_000
"""Of the whole request as JSON; half of what Claude takes. A history holds only a reference to one
of this size, but its workflow has to read it, and has two seconds for that (facts on Temporal,
'Data and limits'): one made of nothing but short blocks takes 0.4 of them on an idle core."""


def request_workflow_id(customer_id: str, request_id: str) -> str:
    """Return the workflow id under which a request is served once."""
    return f"claude-request/{customer_id}/{request_id}"


def fingerprint_of(params: Any) -> str:
    """Identify a Messages API body: equal for equal ones, whatever the order of their keys."""
    canonical = json.dumps(params, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class MessagesBody(BaseModel):
    """The parts of a Messages API body that Tallystick itself relies on.

    Everything else passes through untouched and is Claude's to judge. `stream` is ours: whether a
    call streams upstream never changes its bill, so the caller has no say in it.
    """

    model_config = ConfigDict(extra="allow", strict=True)

    model: Annotated[str, StringConstraints(min_length=1, max_length=200)]
    max_tokens: Annotated[int, Field(ge=0)]
    messages: Annotated[list["_Turn"], Field(min_length=1)]
    stream: Literal[False] = False


class _Turn(BaseModel):
    model_config = ConfigDict(extra="allow", strict=True)

    role: Literal["user", "assistant", "system"]
    content: str | list["_Block"]


class _Block(BaseModel):
    model_config = ConfigDict(extra="allow", strict=True)

    type: str


class ClaudeRequest(_Frozen):
    """Input of the workflow `ClaudeRequest`: one Claude reply wanted on behalf of one customer.

    `params` is the Messages API body. `max_cost_usd`, `max_input_tokens` and
    `max_conversation_usd` (what its whole conversation may be charged) override the settings'
    guards for this request. `metadata` is kept with the usage record, as given.
    """

    customer_id: CustomerId
    request_id: RequestId
    params: dict[str, Any]
    conversation_id: RequestId | None = None
    max_cost_usd: Annotated[Usd, Field(gt=0)] | None = None
    max_input_tokens: Annotated[int, Field(gt=0)] | None = None
    max_conversation_usd: Annotated[Usd, Field(gt=0)] | None = None
    metadata: dict[Label, Label] | None = None

    @classmethod
    def parse(cls, value: Any) -> "ClaudeRequest":
        """Validate a request from outside, its Messages body included.

        Raises:
            ValueError: in one line that names the field and what is wrong with it.
        """
        return _with_body(cls, value)

    @property
    def fingerprint(self) -> str:
        """Identify the body: equal for equal `params`, whatever the order of keys."""
        return fingerprint_of(self.params)


class QuoteOrder(_Frozen):
    """Input of `quote_request`: what would this body cost this customer, or anybody, now?

    `count` asks Claude for its own count of the prompt, which costs nothing but a call.
    """

    params: dict[str, Any]
    customer_id: CustomerId | None = None
    count: bool = False

    @classmethod
    def parse(cls, value: Any) -> "QuoteOrder":
        """Validate an order, its Messages body included; raises ValueError as a request does."""
        return _with_body(cls, value)


_Asked = TypeVar("_Asked", ClaudeRequest, QuoteOrder)


def _with_body(model: type[_Asked], value: Any) -> _Asked:
    try:
        asked = model.model_validate(value)
    except ValidationError as error:
        raise ValueError(explain_validation(error)) from None
    try:
        MessagesBody.model_validate(asked.params)
    except ValidationError as error:
        raise ValueError(explain_validation(error, inside="params")) from None
    size = len(asked.model_dump_json().encode())
    if size > MAX_REQUEST_BYTES:
        raise ValueError(
            f"params: the request is {size:,} bytes as JSON, over the {MAX_REQUEST_BYTES:,} "
            "that can be carried; send large documents by URL or file id"
        )
    return asked


def explain_validation(error: ValidationError, *, inside: str = "") -> str:
    """Put the first thing that is wrong in one line: the field, and what it should be."""
    first = error.errors(include_url=False, include_input=False, include_context=False)[0]
    path = [inside] if inside else []
    path += [str(part) for part in first["loc"] if not str(part).startswith(("_", "list["))]
    message = re.sub(r"^Value error, ", "", first["msg"])
    return f"{'.'.join(path) or 'request'}: {message}"


class BillLine(_Frozen):
    """One line of a bill: so many of a kind at a unit price."""

    kind: str
    model: str
    quantity: int
    unit_usd: Usd
    amount_usd: Usd


class Bill(_Frozen):
    """What one answer cost and what the customer is charged for it.

    `cost_usd` is the provider's price, unrounded; `charge_usd` is what the customer pays, in whole
    nano-USD. Both are None while the price is unknown (`unpriced`): never guessed, never free.
    """

    status: Literal["priced", "not_billed", "unpriced"]
    cost_usd: Usd | None
    charge_usd: Usd | None
    price_book: str
    lines: tuple[BillLine, ...] = ()
    explanation: str = ""
    warnings: tuple[str, ...] = ()


class ClaudeReply(_Frozen):
    """Result of the workflow `ClaudeRequest` and of its update `reply`."""

    request_id: str
    message: dict[str, Any]
    bill: Bill


class RequestQuote(_Frozen):
    """What a request would cost if it were sent now; nothing is sent, reserved or promised.

    The prompt has between `input_tokens_low` and `input_tokens_high` tokens, all three the same
    where Claude has counted them. The cost (the provider's price) and the charge (the customer's)
    lie between their low, for an empty answer, and their high, for one of `max_tokens` with the
    prompt at its dearest. `cache_saves_usd` is what each repeat of the same prompt would save if
    it were read from the cache, `cache_costs_usd` what writing it there first costs extra, and
    `batch_saves_usd` what a batch would save of the high charge, None where it cannot be one: all
    of the charge. Without a customer (`plan` is None) the charge is the cost. What Claude's own
    tools fetch and cost comes on top.
    """

    model: str
    plan: str | None
    counted: bool
    input_tokens_low: int
    input_tokens_likely: int
    input_tokens_high: int
    max_tokens: int
    cost_low_usd: Usd
    cost_high_usd: Usd
    charge_low_usd: Usd
    charge_high_usd: Usd
    cache_saves_usd: Usd
    cache_costs_usd: Usd
    batch_saves_usd: Usd | None
    price_book: str
    explanation: str
    warnings: tuple[str, ...] = ()


class ReplyCall(_Frozen):
    """Optional argument of the update `reply`: lets a running workflow refuse another body."""

    fingerprint: str | None = None


# --- Between the workflow and its activities ------------------------------------------------------
class RequestKey(_Frozen):
    """Names one logical request everywhere in the ledger."""

    customer_id: str
    request_id: str


class Admission(_Frozen):
    """What `admit_request` decided: go ahead, with these warnings.

    `reserved` says that room is kept free under the customer's limits, and must be given back;
    `keeps_content`, that what is said in the request is to be kept with its record.
    """

    warnings: tuple[str, ...] = ()
    reserved: bool = False
    keeps_content: bool = False


class ServedReply(_Frozen):
    """What `call_claude` brought back, already committed to the attempt row."""

    attempt_id: int
    message: dict[str, Any]


class RecordOrder(_Frozen):
    """Input of `record_usage`: bill this attempt, with the warnings that admission gave.

    `params` is the Messages API body where its content is to be kept, else None.
    """

    key: RequestKey
    attempt_id: int
    params: dict[str, Any] | None = None
    metadata: dict[str, str] | None = None
    warnings: tuple[str, ...] = ()


class RecordedUsage(_Frozen):
    """What `record_usage` committed: the bill, and how many meter events wait to be sent."""

    bill: Bill
    meter_events: int


class MeterOrder(_Frozen):
    """Input of `send_meter_events`: deliver what this request left in the outbox."""

    key: RequestKey
    events: int


class MeterReceipt(_Frozen):
    """What `send_meter_events` saw delivered: Stripe has acknowledged all of it."""

    delivered: int
    at: datetime | None = None


# --- Large payloads, in parts (`tallystick.payloads`) ---------------------------------------------
KEEP_PAYLOAD_PART = "keep_payload_part"
FETCH_PAYLOAD_PART = "fetch_payload_part"


class PayloadPart(_Frozen):
    """Names one part of a large payload: whose, by the digest of the whole, counted from 0.

    `workflow_id` is empty where it belongs to no workflow.
    """

    workflow_id: str
    digest: str
    part: int


# --- Accounts: `BillingCycle` and what it hands to its activities ---------------------------------
BILLING_CYCLE = "BillingCycle"
SWEEP = "Sweep"


def cycle_workflow_id(customer_id: str) -> str:
    """Return the workflow id of a customer's account."""
    return f"billing-cycle/{customer_id}"


class CycleOrder(_Frozen):
    """Input of `BillingCycle`: whose account. All else is in the ledger, so a cycle that was
    terminated is simply started again."""

    customer_id: CustomerId


class Due(_Frozen):
    """One thing that an account has to do, and when; a date that has passed is due now.

    `subject` says of what: a period's ordinal, an invoice, a top-up. `words` is the sentence that
    a person reads, `steps` the activities that do it, in their order.
    """

    kind: str
    at: datetime
    words: str
    subject: str = ""
    steps: tuple[str, ...] = ()


class Agenda(_Frozen):
    """All that an account waits for, soonest first, and how it stands; read from the ledger.

    `state` is what the search attribute `BillingState` says: active, grace, suspended, stuck or
    ended. `period_end` is when the open period ends; None once the account has ended.
    """

    customer_id: str
    state: str
    period_start: datetime | None
    period_end: datetime | None
    dues: tuple[Due, ...] = ()


class StepOrder(_Frozen):
    """Input of every activity that does a due step: whose, what, and the instant it is done at.

    Activities judge by `now` and never by their own clock: it is the workflow's, so a step that is
    repeated hours later decides as it did before, and years can be tested in minutes.
    """

    customer_id: str
    subject: str = ""
    now: datetime


class StepResult(_Frozen):
    """What a due step came to; `again_at` asks to be looked at again, where it has to wait."""

    words: str = ""
    again_at: datetime | None = None


class News(_Frozen):
    """Signal `news`: something changed outside; look at the ledger and at these Stripe events."""

    event_ids: tuple[str, ...] = ()


# --- Message batches: `MessageBatch` and what it hands to its activities --------------------------
MESSAGE_BATCH = "MessageBatch"
CANCEL_UPDATE = "cancel"
PROGRESS_QUERY = "progress"
STUCK_QUERY = "stuck"
BATCH_PROGRESS = "batch_progress"

JobId = Annotated[
    str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._:@+=/-]*$", max_length=100)
]
"""Shorter than a request id: those of a job's items and meter events begin with it."""


def batch_workflow_id(job_id: str) -> str:
    """Return the workflow id of a batch job."""
    return f"message-batch/{job_id}"


def named_by(workflow_id: str) -> dict[str, str]:
    """Return what an id of ours names: customer and request, customer, or batch job."""
    kind, _, named = workflow_id.partition("/")
    if kind == "claude-request":
        customer_id, _, request_id = named.partition("/")
        return {"customer_id": customer_id, "request_id": request_id}
    name = {"billing-cycle": "customer_id", "message-batch": "job_id"}.get(kind)
    return {} if name is None else {name: named}


class BatchOrder(_Frozen):
    """Input of `MessageBatch`: which job. All else is in the ledger, where it was submitted."""

    job_id: JobId

    @classmethod
    def parse(cls, value: Any) -> "BatchOrder":
        """Validate an order from outside.

        Raises:
            ValueError: in one line that names the field and what is wrong with it.
        """
        try:
            return cls.model_validate(value)
        except ValidationError as error:
            raise ValueError(explain_validation(error)) from None


class BatchProgress(_Frozen):
    """How far a job has come: result of `MessageBatch`, of its query `progress` and of `cancel`.

    Every item is in one of six places: `waiting` to be sent (for the first time or again),
    `in_flight` at the provider, or done in one of four ways. The provider tells nothing of a batch
    until all of it has ended, so counts move in steps. Money is what was recorded so far;
    `highest_charge_usd` is the most that the whole job may be charged, `batch_saves_usd` what the
    same usage would have cost more in single calls. `expected_end` is a guess by the batches that
    have ended, None before there is one; at `latest_end` what runs now will have ended or expired.

    `batches` are those that the provider has made, `batches_settled` those that are billed.
    `state` is `submitted`, `running`, `canceling` or `ended`. `as_of` is when the ledger was read.
    """

    job_id: str
    customer_id: str
    state: Literal["submitted", "running", "canceling", "ended"]
    items: int
    waiting: int
    in_flight: int
    succeeded: int
    errored: int
    expired: int
    canceled: int
    batches: int
    batches_settled: int
    cost_usd: Usd
    charge_usd: Usd
    highest_charge_usd: Usd | None
    batch_saves_usd: Usd
    submitted_at: datetime
    expected_end: datetime | None
    latest_end: datetime | None
    finished_at: datetime | None
    as_of: datetime

    @property
    def done(self) -> int:
        """Items that nothing more will happen to."""
        return self.succeeded + self.errored + self.expired + self.canceled


class FollowOrder(_Frozen):
    """Input of `follow_batches`: the job, and how many of its items the workflow knows as done.

    It returns when much more than that is done, or all that was sent.
    """

    job_id: JobId
    done: int


# --- Reconciliation -------------------------------------------------------------------------------
RECONCILIATION = "Reconciliation"

RunKind = Literal["hourly", "daily", "manual"]


def reconciliation_workflow_id(start: datetime, end: datetime) -> str:
    """Return the workflow id of a run by hand: who asks for the same hours shares one run."""
    first, last = (f"{at.astimezone(UTC):%Y-%m-%dT%HZ}" for at in (start, end))
    return f"reconciliation/manual/{first}/{last}"


class ReconcileOrder(_Frozen):
    """Input of `Reconciliation`: which closed interval.

    Without an interval it is that of the instant the run was scheduled for: the closed hours of the
    last half day, or the UTC day before, with days before it that are still to be compared. Both
    ends are whole hours.
    """

    kind: RunKind = "manual"
    start: AwareDatetime | None = None
    end: AwareDatetime | None = None

    @classmethod
    def parse(cls, value: Any) -> "ReconcileOrder":
        """Validate an order from outside.

        Raises:
            ValueError: in one line that names the field and what is wrong with it.
        """
        try:
            return cls.model_validate(value)
        except ValidationError as error:
            raise ValueError(explain_validation(error)) from None


class OpenReconciliation(_Frozen):
    """Input of `open_reconciliation`: the order, and the workflow run that carries it out.

    `scheduled_at` is the instant that a schedule started it for; None where a person did.
    """

    order: ReconcileOrder
    run: str
    scheduled_at: datetime | None
    now: datetime


class ReconcileStep(_Frozen):
    """Input of every step of a run: which run, over [start, end), and the instant it is done at."""

    reconciliation_id: int
    kind: RunKind
    start: datetime
    end: datetime
    now: datetime


class OpenedReconciliation(_Frozen):
    """Result of `open_reconciliation`: what its steps are given.

    `settles` is how long Stripe is given to count what a repair has sent.
    """

    step: ReconcileStep
    settles: timedelta


class Reconciled(_Frozen):
    """What one step found: how many discrepancies, in words, and the calls it made."""

    words: str
    found: int = 0
    calls: int = 0
    again: bool = False
    """Something could not be judged yet; look again after a while."""


class ReconcileProgress(_Frozen):
    """Result of the query `progress`: the run, once it is open, and its steps so far, in words.

    `done` has what each finished step came to, `failed` those of them that failed, and `running`
    what is under way; steps are in the order in which they ended, or began.
    """

    step: ReconcileStep | None
    done: dict[str, str]
    failed: tuple[str, ...]
    running: tuple[str, ...]


class CloseReconciliation(_Frozen):
    """Input of `close_reconciliation`: the steps that failed, and why."""

    step: ReconcileStep
    failed: dict[str, str]


class ReconcileResult(_Frozen):
    """What a run came to: discrepancies by state, and the total difference in tokens.

    `over_tolerance` are those that are not settled and differ by more than is tolerated, `failed`
    the steps that failed and why.
    """

    reconciliation_id: int
    start: datetime
    end: datetime
    claude_state: str
    discrepancies: dict[str, int]
    tokens: int
    over_tolerance: int
    failed: dict[str, str]
    words: str
