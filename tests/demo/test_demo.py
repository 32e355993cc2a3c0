"""The demo itself, as a person runs it, with fewer requests."""

import asyncio
import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest

from tallystick.sandbox.claude import create_claude_app
from tallystick.sandbox.server import serve
from tallystick.sandbox.stripe import create_stripe_app

ROOT = Path(__file__).parents[2]
KINDS = {"input", "output", "cache_write_5m", "cache_write_1h", "cache_read"}
ALL_FAULTS = {
    "claude": {
        "rate_limited", "error_500", "error_529", "undelivered", "refusal", "cut_stream",
        "truncated_stream",
    },
    "stripe": {"rate_limited", "no_answer", "server_error"},
}  # fmt: skip


async def run(*arguments: str, **environment: str) -> tuple[int, str, str]:
    """Run the demo; returns exit code, standard output and standard error."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        str(ROOT / "scripts" / "demo.py"),
        *arguments,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env={**os.environ, **environment},
    )
    out, err = await process.communicate()
    assert process.returncode is not None
    return process.returncode, out.decode(), err.decode()


def agrees(shown: dict[str, Any]) -> bool:
    return (
        shown["claude_tokens"] == shown["ledger_tokens"] == shown["stripe_tokens"]
        and shown["charge_usd"] == shown["stripe_usd"]
    )


async def test_a_run_with_every_fault_ends_in_one_object_that_tallies():
    code, out, err = await run("--json", "--requests", "24")

    assert code == 0, err
    shown = json.loads(out)
    assert shown["tally"] is True
    assert shown["differences"] == []
    assert agrees(shown)
    assert shown["requests"] == shown["answered"] == 24
    assert shown["refused"] >= 1
    assert shown["billed"] == shown["metered"] == 24 - shown["refused"]
    assert shown["claude_tokens"].keys() == KINDS
    assert all(count > 0 for count in shown["claude_tokens"].values())
    assert float(shown["charge_usd"]) > float(shown["cost_usd"]) > 0
    struck = {service: set(faults) for service, faults in shown["faults"].items()}
    assert struck == ALL_FAULTS
    # What Claude served and nobody received: an undelivered reply and two broken streams at least.
    lost = shown["lost_attempts"]
    assert lost["served"] == lost["unknown_outcomes"] >= 3
    assert float(lost["cost_usd"]) > 0
    # A job of small documents; a lost create, passing errors and a cut file cost nobody anything.
    batch = shown["batch"]
    assert batch["agrees"] is batch["tally"] is agrees(batch) is True
    assert batch["documents"] == batch["succeeded"] == batch["billed"] == 200
    assert batch["faults"]["claude"].keys() == {"undelivered", "item_errored", "cut_results"}
    assert batch["lost_attempts"]["served"] == 0
    assert float(batch["saved_usd"]) == float(batch["charge_usd"]) > 0  # half of the price
    # A closed period for each model; what is due was collected, to the cent.
    assert [each["model"] for each in shown["statements"]] == ["pass-through", "hybrid", "prepaid"]
    assert all(each["agrees"] and float(each["usage_usd"]) > 2 for each in shown["statements"])
    assert [bool(each["invoices"]) for each in shown["statements"]] == [True, True, False]
    # One event that Stripe forgot is found and sent again; lost calls turn out as our cost.
    day = shown["reconciliation"]
    assert day["agrees"] is True
    assert day["differences"]["lost_event, settled"] == 1
    assert day["differences"].keys() == {"lost_event, settled", "lost_call, settled"}
    assert day["repairs"].keys() == {"resend, done", "settle_attempts, done"}
    assert day["repairs"]["settle_attempts, done"] == lost["served"]


async def test_with_both_keys_set_it_uses_what_answers_at_the_base_addresses(tmp_path: Path):
    (tmp_path / "deeds.md").write_text("What was owed was carved before the grain was measured.")
    async with serve(create_claude_app()) as claude, serve(create_stripe_app()) as stripe:
        code, out, err = await run(
            "--json", "--requests", "6", "--documents", str(tmp_path),
            ANTHROPIC_API_KEY="sk-ant-test",
            ANTHROPIC_BASE_URL=claude,
            STRIPE_API_KEY="sk_test_1",
            STRIPE_API_BASE=stripe,
            STRIPE_METER_EVENTS_BASE=stripe,
            DATABASE_URL="postgresql://somebody-elses/ledger",
            TEMPORAL_ADDRESS="somebody-elses:7233",
        )  # fmt: skip

    assert code == 0, err
    shown = json.loads(out)
    assert shown["tally"] is True
    assert agrees(shown)
    assert shown["answered"] == shown["metered"] == 6
    assert shown["faults"] == {}
    assert shown["lost_attempts"]["served"] is None  # the real Claude cannot be asked
    assert shown["batch"] is None  # a real one takes up to a day
    assert shown["statements"] == []  # nor can a real Stripe's clock be moved on
    assert shown["reconciliation"] is None  # nor is the day over


@pytest.mark.parametrize(
    ("arguments", "environment", "word"),
    [
        (["--documents", "/nonexistent"], {}, "--documents"),
        ([], {"ANTHROPIC_API_KEY": "sk-ant-test"}, "STRIPE_API_KEY"),
        ([], {"TALLYSTICK_CLAUDE_TIMEOUT": "soon"}, "TALLYSTICK_CLAUDE_TIMEOUT"),
    ],
)
async def test_bad_input_gets_one_line_that_names_it(
    arguments: list[str], environment: dict[str, str], word: str
):
    code, out, err = await run(*arguments, **environment)

    assert code == 1
    assert out == ""
    assert err.startswith("error: ")
    assert word in err
    assert len(err.splitlines()) == 1
