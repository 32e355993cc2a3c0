"""The contract check must let through what Stripe takes and catch what it does not."""

import json
import runpy
from urllib.parse import urlencode

import pytest

from tests.contract.stripe_contract import StripeContract, stripe_contract

FORM = "application/x-www-form-urlencoded"
EVENT = {
    "event_name": "tallystick_input_tokens",
    "identifier": "one",
    "timestamp": "1700000000",
    "payload[stripe_customer_id]": "cus_1",
    "payload[value]": "5",
}
STREAMED = {
    "event_name": "tallystick_input_tokens",
    "identifier": "one",
    "timestamp": "2026-11-01T00:00:00Z",
    "payload": {"stripe_customer_id": "cus_1", "value": "5"},
}


@pytest.fixture(name="contract")
def _contract() -> StripeContract:
    return stripe_contract()


def _form(contract: StripeContract, path: str, **fields: str) -> list[str]:
    return contract.request_faults("POST", path, FORM, urlencode(fields).encode())


def _event(contract: StripeContract, **changes: str) -> list[str]:
    return _form(contract, "/v1/billing/meter_events", **{**EVENT, **changes})


def _streamed(contract: StripeContract, **changes: object) -> list[str]:
    body = json.dumps({"events": [{**STREAMED, **changes}]}).encode()
    return contract.request_faults(
        "POST", "/v2/billing/meter_event_stream", "application/json", body
    )


def test_valid_requests_pass(contract: StripeContract) -> None:
    assert _event(contract) == []
    assert _streamed(contract) == []
    assert (
        _form(
            contract,
            "/v1/prices",
            **{
                "currency": "usd",
                "product": "prod_1",
                "unit_amount_decimal": "0.0000001",
                "recurring[interval]": "month",
                "recurring[usage_type]": "metered",
                "recurring[meter]": "mtr_1",
                "transfer_lookup_key": "true",
                "lookup_key": "key",
            },
        )
        == []
    )
    summaries = "/v1/billing/meters/mtr_1/event_summaries?customer=c&start_time=0&end_time=60"
    assert contract.request_faults("GET", summaries, "", b"") == []


def test_an_integer_payload_value_is_caught(contract: StripeContract) -> None:
    faults = _streamed(contract, payload={"stripe_customer_id": "cus_1", "value": 5})
    assert any("5 is not of type 'string'" in fault for fault in faults)


def test_an_identifier_of_101_characters_is_caught(contract: StripeContract) -> None:
    assert _event(contract, identifier="x" * 100) == []
    assert any("identifier" in fault for fault in _event(contract, identifier="x" * 101))


def test_an_unknown_parameter_is_caught(contract: StripeContract) -> None:
    assert any("'quantity' was unexpected" in fault for fault in _event(contract, quantity="5"))
    assert any("'quantity' was unexpected" in fault for fault in _streamed(contract, quantity="5"))
    listed = contract.request_faults("GET", "/v1/prices?lookup_key=k", "", b"")
    assert any("'lookup_key' was unexpected" in fault for fault in listed)


def test_an_unknown_nested_parameter_is_caught(contract: StripeContract) -> None:
    meter = {
        "display_name": "Tokens",
        "event_name": "tokens",
        "default_aggregation[formula]": "sum",
    }
    assert _form(contract, "/v1/billing/meters", **meter) == []
    faults = _form(contract, "/v1/billing/meters", **meter, **{"default_aggregation[by]": "day"})
    assert any("'by' was unexpected" in fault for fault in faults)


def test_an_unknown_parameter_of_a_deletion_is_caught(contract: StripeContract) -> None:
    path = "/v1/subscriptions/sub_1"
    assert contract.request_faults("DELETE", f"{path}?invoice_now=true", "", b"") == []
    faults = contract.request_faults("DELETE", f"{path}?invoice=true", "", b"")
    assert any("'invoice' was unexpected" in fault for fault in faults)


@pytest.mark.parametrize(
    "change",
    [{"timestamp": "yesterday"}, {"payload": "5"}, {"event_name": "n" * 101}],
    ids=["a timestamp in words", "a payload that is no map", "a name too long"],
)
def test_a_parameter_of_the_wrong_kind_is_caught(
    contract: StripeContract, change: dict[str, str]
) -> None:
    fields = {k: v for k, v in EVENT.items() if not ("payload" in change and k[:8] == "payload[")}
    assert _form(contract, "/v1/billing/meter_events", **{**fields, **change})


def test_a_missing_parameter_and_an_unknown_path_are_caught(contract: StripeContract) -> None:
    faults = _form(contract, "/v1/billing/meter_events", event_name="n")
    assert any("'payload' is a required property" in fault for fault in faults)
    assert _form(contract, "/v1/billing/meter_eventz", **EVENT)


def test_what_newer_sdks_may_send_passes_by_name_and_nothing_beside_it(
    contract: StripeContract,
) -> None:
    item = {"customer": "cus_1", "items[0][plan]": "p"}
    assert _form(contract, "/v1/subscriptions", **item) == []
    faults = _form(contract, "/v1/subscriptions", **item, **{"items[0][scheme]": "s"})
    assert any("'scheme' was unexpected" in fault for fault in faults)


def test_a_wrong_answer_is_caught(contract: StripeContract) -> None:
    path = "/v1/billing/meter_events"
    refusal = {"error": {"type": "invalid_request_error", "message": "no"}}
    assert contract.answer_faults("POST", path, 400, json.dumps(refusal).encode()) == []
    refusal["error"]["type"] = "made_up"
    assert contract.answer_faults("POST", path, 400, json.dumps(refusal).encode())
    assert contract.answer_faults("POST", path, 200, b'{"object": "billing.meter_event"}')


def test_the_description_is_read_once_per_process(monkeypatch: pytest.MonkeyPatch) -> None:
    stripe_contract()

    def refuse(*_: object) -> None:
        raise AssertionError("read again")

    monkeypatch.setattr(runpy, "run_path", refuse)
    stripe_contract()
