"""`tallystick conversation` and `explain`, as a person calls them, on a real ledger."""

import asyncio
import json
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest
import pytest_asyncio
from click.testing import Result
from typer.testing import CliRunner

from tallystick.cli.app import app
from tallystick.ledger.database import Ledger
from tests.insight.turns import usage
from tests.rerate.stand import NOON, add_customer, reply, serve


@pytest_asyncio.fixture
async def books(ledger: Ledger, database_url: str, monkeypatch: pytest.MonkeyPatch) -> Ledger:
    """Two days of one customer: three single calls, then a conversation that loses its cache."""
    monkeypatch.setenv("DATABASE_URL", database_url)
    await add_customer(ledger, "acme")
    for minute in range(3):
        await serve(ledger, reply(1_000, 100), at=NOON + timedelta(minutes=minute))
    kept = [usage(100, 100, write=10_000), usage(300, 100, write=10_000)]
    for index, counts in enumerate(kept):
        await serve(
            ledger,
            reply(usage=counts),
            conversation="chat",
            at=NOON + timedelta(days=1, minutes=10 * index),
        )
    return ledger


async def run(*command: str) -> Result:
    return await asyncio.to_thread(CliRunner().invoke, app, command)


async def told(*command: str) -> dict[str, Any]:
    result = await run(*command, "--json")
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


@pytest.mark.usefixtures("books")
async def test_a_conversation_is_shown_turn_by_turn() -> None:
    shown = await told("conversation", "acme", "chat")
    first, second = shown["turns"]
    assert (first["prompt_tokens"], first["resent_tokens"], first["cache_miss"]) == (
        10_100,
        0,
        None,
    )
    assert second["resent_tokens"] == 10_200
    assert second["cache_miss"]["cause"] == "expired"
    assert second["cache_miss"]["extra_usd"] == "0.024"
    assert shown["lost_cache_usd"] == "0.024"
    assert "history sent again" in shown["explanation"]
    words = (await run("conversation", "acme", "chat")).output
    assert words.startswith("2 turns came to $0.053")
    assert "cache expired or invalidated" in words


@pytest.mark.usefixtures("books")
async def test_two_days_are_compared_and_the_causes_add_up() -> None:
    shown = await told("explain", "acme", "--from", "2026-11-11", "--to", "2026-11-12")
    assert shown["against"] == {
        "from": "2026-11-10T00:00:00+00:00",
        "to": "2026-11-11T00:00:00+00:00",
    }
    assert (shown["before_usd"], shown["before_calls"]) == ("0.009", 3)
    # 20,000 written at $2.50, 400 at $2, 200 answered at $10 a million.
    assert (shown["after_usd"], shown["after_calls"]) == ("0.0528", 2)
    causes = {each["cause"]: Decimal(each["amount_usd"]) for each in shown["causes"]}
    assert sum(causes.values()) == Decimal(shown["difference_usd"]) == Decimal("0.0438")
    assert causes["cache_expired"] == Decimal("0.024")
    assert causes["calls"] == Decimal("-0.003")
    words = (await run("explain", "acme", "--from", "2026-11-11", "--to", "2026-11-12")).output
    assert "2026-11-11 to 2026-11-12 cost $0.053 in 2 calls, $0.044 more than" in words
    assert "cache expired or invalidated" in words


@pytest.mark.usefixtures("books")
async def test_any_two_periods_can_be_compared() -> None:
    shown = await told(
        "explain", "acme", "--from", "2026-11-11", "--to", "2026-11-12",
        "--against-from", "2026-11-11", "--against-to", "2026-11-12",
    )  # fmt: skip
    assert (shown["difference_usd"], shown["causes"]) == ("0", [])


@pytest.mark.usefixtures("books")
@pytest.mark.parametrize(
    ("command", "said"),
    [
        (("conversation", "acme", "none"), "has no conversation 'none'"),
        (("conversation", "nobody", "chat"), "no customer 'nobody'"),
        (("explain", "nobody", "--from", "2026-11-11"), "no customer 'nobody'"),
        (("explain", "acme", "--from", "soon"), "--from: 'soon' is neither"),
        (("explain", "acme", "--from", "2026-11-11", "--to", "2026-11-10"), "--to: 2026-11-10"),
        (("explain", "acme", "--from", "2026-11-11", "--against-to", "2026-11-10"), "--against-to"),
    ],
)
async def test_what_cannot_be_shown_is_said_in_one_line(
    command: tuple[str, ...], said: str
) -> None:
    result = await run(*command)
    assert result.exit_code == 1
    assert said in result.output
