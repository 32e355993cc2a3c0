"""Bad input: one clear error that names the field or the customer, and nothing half-written."""

import asyncio
from typing import Any

import pytest
from temporalio.client import WorkflowFailureError, WorkflowUpdateFailedError

from tallystick.contracts import MAX_REQUEST_BYTES
from tallystick.errors import (
    AlreadyBilledError,
    ClaudeError,
    CustomerSuspendedError,
    GuardError,
    InvalidRequestError,
    ReplyPendingError,
    RequestIdReusedError,
    UnavailableError,
    UnknownCustomerError,
)
from tallystick.ledger import customers
from tallystick.ledger.tables import Customer, Outcome
from tallystick.temporal import connect_temporal
from tests.support.house import House


async def _nothing_written(house: House, request_id: str) -> None:
    assert await house.attempts(request_id) == []
    assert await house.records(request_id) == []
    assert await house.claude.journal() == []


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"messages": []}, "params.messages"),
        ({"messages": [{"role": "robot", "content": "x"}]}, "params.messages.0.role"),
        ({"messages": "hello"}, "params.messages"),
        ({"max_tokens": "many"}, "params.max_tokens"),
        ({"max_tokens": -1}, "params.max_tokens"),
        ({"model": ""}, "params.model"),
        ({"stream": True}, "params.stream"),
        ({"customer_id": "a/b"}, "customer_id"),
        ({"request_id": ""}, "request_id"),
        ({"request_id": "r" * 200}, "request_id"),
        ({"max_cost_usd": 1.5}, "max_cost_usd"),
        ({"max_input_tokens": 0}, "max_input_tokens"),
        ({"customer_metadata": {"label": "a\0b"}}, "metadata.label"),
        ({"messages": [{"role": "user", "content": "x" * MAX_REQUEST_BYTES}]}, "params"),
    ],
)
async def test_a_malformed_request_is_refused_by_field(
    house: House, changes: dict[str, Any], field: str
) -> None:
    with pytest.raises(InvalidRequestError, match=f"^{field}: "):
        await house.ask("r-1", **changes)
    await _nothing_written(house, "r-1")


async def test_a_malformed_start_by_name_fails_instead_of_hanging(house: House) -> None:
    for number, bad in enumerate([{"customer_id": house.customer}, [1, 2], None, "text"]):
        handle = await house.temporal.start_workflow(
            "ClaudeRequest", bad, id=f"claude-request/x/{number}", task_queue="tallystick"
        )
        with pytest.raises(WorkflowFailureError) as failed:
            await asyncio.wait_for(handle.result(), 60)
        assert failed.value.cause.type == "InvalidRequest"  # type: ignore[union-attr]


async def test_an_unknown_customer_is_named(house: House) -> None:
    with pytest.raises(UnknownCustomerError, match=r"'nobody'.*tallystick customer add nobody"):
        await house.ask("r-1", customer_id="nobody")
    await _nothing_written(house, "r-1")


async def test_a_refusal_shows_in_the_billing_state(house: House) -> None:
    with pytest.raises(UnknownCustomerError):
        await house.ask("r-1", customer_id="nobody")
    handle = house.workflow("r-1", "nobody")
    attributes = (await handle.describe()).typed_search_attributes
    assert {p.key.name: p.value for p in attributes}["BillingState"] == "refused"


async def test_a_suspended_customer_is_told_why_and_served_once_resumed(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with house.ledger.begin() as tx:
        await customers.suspend(tx, house.customer, "operator", "invoice INV-7 is unpaid")
    with pytest.raises(CustomerSuspendedError, match="INV-7"):
        await house.ask("r-1")
    await _nothing_written(house, "r-1")
    async with house.ledger.begin() as tx:
        await customers.restore(tx, house.customer, "operator")
    # The server has stored the refusal; as soon as that counts as old, it is looked at afresh.
    monkeypatch.setattr("tallystick.client.FRESH", 0.001)
    assert (await house.ask("r-1")).bill.charge_usd


async def test_the_same_id_with_another_body_is_refused(house: House) -> None:
    await house.ask("r-1")
    with pytest.raises(RequestIdReusedError, match="'r-1'"):
        await house.ask("r-1", max_tokens=65)
    await house.done("r-1")
    with pytest.raises(RequestIdReusedError, match="'r-1'"):
        await house.ask("r-1", max_tokens=66)
    assert len(await house.attempts("r-1")) == 1


async def test_the_same_id_with_another_body_is_refused_in_flight(house: House) -> None:
    hold = await house.claude.hold(match="<r-1>")
    first = asyncio.create_task(house.ask("r-1"))
    await house.claude.caught(hold)
    with pytest.raises(RequestIdReusedError):
        await house.ask("r-1", max_tokens=65)
    await house.claude.release(hold)
    assert (await first).bill.charge_usd


async def test_once_the_reply_is_gone_a_repeat_gets_the_bill_and_no_second_call(
    house: House,
) -> None:
    first = await house.ask("r-1")
    await house.done("r-1")
    # What the engine's retention does after a while.
    await house.temporal.workflow_service.delete_workflow_execution(_execution(house, "r-1"))
    with pytest.raises(AlreadyBilledError) as refused:
        await _ask_while_answered_by(house, first.id)
    assert refused.value.details["bill"] == first.bill.model_dump(mode="json")
    with pytest.raises(RequestIdReusedError):
        await house.ask("r-1", max_tokens=65)
    assert len(await house.claude.journal()) == 1
    assert len(await house.records("r-1")) == 1


async def _ask_while_answered_by(house: House, message_id: str) -> None:
    """Ask until the deletion, which is asynchronous, shows: until then the first reply comes."""
    while True:
        assert (await house.ask("r-1")).id == message_id
        await asyncio.sleep(0.2)


def _execution(house: House, request_id: str) -> Any:
    from temporalio.api.common.v1 import WorkflowExecution
    from temporalio.api.workflowservice.v1 import DeleteWorkflowExecutionRequest

    return DeleteWorkflowExecutionRequest(
        namespace=house.temporal.namespace,
        workflow_execution=WorkflowExecution(workflow_id=house.workflow(request_id).id),
    )


async def test_a_model_without_a_price_is_refused_before_it_is_called(house: House) -> None:
    with pytest.raises(InvalidRequestError, match=r"^params\.model: .*claude-unheard-of"):
        await house.ask("r-1", model="claude-unheard-of")
    await _nothing_written(house, "r-1")


async def test_a_prompt_over_the_limit_is_refused_with_the_estimate(house: House) -> None:
    with pytest.raises(GuardError, match=r"at least .* tokens \(estimated\), over the limit of 9"):
        await house.ask("r-1", max_input_tokens=9, messages=[_says("word " * 100)])
    await _nothing_written(house, "r-1")


async def test_a_request_that_could_cost_too_much_is_refused_with_the_estimate(
    house: House,
) -> None:
    with pytest.raises(GuardError, match=r"could cost \$0\.5 \(estimated.*ceiling of \$0\.49"):
        # 50,000 output tokens at $10 a million are $0.50.
        await house.ask("r-1", max_tokens=50_000, max_cost_usd="0.49", messages=[_says("")])
    await _nothing_written(house, "r-1")


async def test_claude_counts_the_tokens_where_the_size_does_not_decide(house: House) -> None:
    # 4,000 characters: between 500 and 4,000 tokens by size, 1,000 by the stand-in's count.
    prompt = [_says("abcd" * 1_000)]
    with pytest.raises(GuardError, match="at least 1,000 tokens"):
        await house.ask("over", max_input_tokens=999, messages=prompt)
    assert (await house.ask("within", max_input_tokens=1_300, messages=prompt)).bill.charge_usd


async def test_what_claude_rejects_is_final_and_recorded(house: House) -> None:
    with pytest.raises(ClaudeError, match="temperature"):
        await house.ask("r-1", temperature=0.5)
    (attempt,) = await house.attempts("r-1")
    assert (attempt.outcome, attempt.error_type) == (Outcome.FAILED, "ClaudeRejected")
    assert attempt.estimated_input_tokens > 0
    assert attempt.usage is None
    assert await house.records("r-1") == []


async def test_a_rejected_request_may_come_again_corrected_under_its_id(house: House) -> None:
    with pytest.raises(ClaudeError):
        await house.ask("r-1", temperature=0.5)
    assert (await house.ask("r-1")).bill.charge_usd
    assert [a.outcome for a in await house.attempts("r-1")] == [
        Outcome.FAILED,
        Outcome.SUCCEEDED,
    ]


async def test_impatience_is_told_apart_from_failure(house: House) -> None:
    hold = await house.claude.hold(match="<r-1>")
    with pytest.raises(ReplyPendingError, match="goes on"):
        await house.ask("r-1", timeout=1)
    await house.claude.caught(hold)
    await house.claude.release(hold)
    assert (await house.ask("r-1")).bill.charge_usd
    assert len(await house.claude.journal()) == 1


async def test_an_unreachable_temporal_names_the_setting() -> None:
    with pytest.raises(UnavailableError, match="TEMPORAL_ADDRESS"):
        await connect_temporal("127.0.0.1:1")


async def test_a_failed_update_carries_the_type_for_clients_in_any_language(house: House) -> None:
    handle = await house.temporal.start_workflow(
        "ClaudeRequest",
        {
            "customer_id": "nobody",
            "request_id": "x",
            "params": {"model": "claude-haiku-5-5", "max_tokens": 1, "messages": [_says("x")]},
        },
        id="claude-request/nobody/x",
        task_queue="tallystick",
    )
    with pytest.raises((WorkflowFailureError, WorkflowUpdateFailedError)) as failed:
        await handle.result()
    assert failed.value.cause.type == "UnknownCustomer"  # type: ignore[union-attr]


async def test_a_customer_added_after_a_refusal_is_served(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(UnknownCustomerError):
        await house.ask("r-1", customer_id="late")
    async with house.ledger.begin() as tx:
        await customers.add(tx, Customer(customer_id="late", name="Late", plan="at-cost"))
    monkeypatch.setattr("tallystick.client.FRESH", 0.001)
    reply = await house.ask("r-1", customer_id="late")
    assert reply.bill.charge_usd == reply.bill.cost_usd


def _says(text: str) -> dict[str, str]:
    return {"role": "user", "content": text}
