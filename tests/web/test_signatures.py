"""Only what Stripe signed, and signed now, is taken; all else is refused in a line and counted."""

import json

import pytest
from pydantic import SecretStr
from stripe import WebhookSignature

from tallystick.web.signatures import RejectedError, verify
from tallystick.web.webhooks import MAX_BODY
from tests.web.conftest import NEW, NOW, OLD, Door, invoice_event

AT = int(NOW.timestamp())
BODY = b'{"id": "evt_1", "amount": 100}'
NOTHING = "0" * 64


def signed(secret: str = NEW, at: int = AT) -> str:
    return WebhookSignature.generate_signature_header(BODY.decode(), secret, at)


def judge(header: str | None, body: bytes = BODY) -> None:
    verify(body, header, [SecretStr(OLD), SecretStr(NEW)], AT)


@pytest.mark.parametrize(
    "header",
    [
        signed(OLD),
        signed(NEW),
        f"t={AT},v1={NOTHING},{signed().partition(',')[2]},v0=old",  # Stripe rolls a secret
        signed(at=AT - 300),
        signed(at=AT + 300),
    ],
)
def test_what_a_secret_of_ours_signed_within_five_minutes_is_taken(header: str) -> None:
    judge(header)


@pytest.mark.parametrize(
    ("header", "reason"),
    [
        (None, "unsigned"),
        ("", "unsigned"),
        ("nonsense", "malformed"),
        (f"v1={NOTHING}", "malformed"),
        (f"t=yesterday,v1={NOTHING}", "malformed"),
        (f"t=-{AT},v1={NOTHING}", "malformed"),
        (f"t={'9' * 5_000},v1={NOTHING}", "malformed"),
        # A second timestamp could freshen up an old signature, were the wrong one read.
        (f"{signed(at=AT - 86_400)},t={AT}", "malformed"),
        (f"t={AT},{signed(at=AT - 86_400)}", "malformed"),
        (f"t={AT}", "forged"),
        (f"t={AT},v1={NOTHING}", "forged"),
        (f"t={AT},v0={signed().partition('v1=')[2]}", "forged"),
        (signed("whsec_stranger"), "forged"),
        (signed(at=AT - 301), "stale"),
        (signed(at=AT + 301), "future"),
    ],
)
def test_everything_else_is_refused_with_its_reason(header: str | None, reason: str) -> None:
    with pytest.raises(RejectedError) as caught:
        judge(header)
    assert caught.value.reason == reason


@pytest.mark.parametrize("body", [BODY.replace(b"1", b"9", 1), BODY + b" ", b"", b"\xff\xfe"])
def test_one_altered_byte_is_a_forgery(body: bytes) -> None:
    with pytest.raises(RejectedError) as caught:
        judge(signed(), body)
    assert caught.value.reason == "forged"


async def test_a_refusal_is_one_line_counted_and_leaves_nothing(door: Door) -> None:
    event = invoice_event("evt_1")
    answers = {
        "unsigned": await door.post(json.dumps(event), ""),
        "malformed": await door.post(json.dumps(event), "nonsense"),
        "forged": await door.deliver(event, secret="whsec_stranger"),
        "too_large": await door.deliver(" " * (MAX_BODY + 1)),
    }
    assert {reason: answer.status_code for reason, answer in answers.items()} == {
        "unsigned": 400, "malformed": 400, "forged": 400, "too_large": 413,
    }  # fmt: skip
    assert all(answer.text.count("\n") == 1 for answer in answers.values())
    assert await door.events() == []
    rejected = (await door.health())["signatures_rejected"]
    assert rejected == dict.fromkeys(answers, 1) | {"stale": 0, "future": 0}
    metrics = await door.metrics()
    assert 'tallystick_webhooks_rejected_total{reason="forged"} 1\n' in metrics
    assert 'tallystick_webhooks_rejected_total{reason="stale"} 0\n' in metrics
