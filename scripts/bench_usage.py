"""Usage of many customers in the ledger and at both services, made in bulk for benchmarks.

PostgreSQL makes the rows itself, from their number alone: which customer, when, which model, how
many tokens. All else of a record is what recording a plain reply writes, so a row is as large as a
real one and has as many meter events. Attempts have succeeded and meter events are delivered. The
same sums, by the hour, are then entered into the stand-ins by their control routes, so that all
three records agree.
"""

import asyncio
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, TypeVar

import httpx
import psycopg
from stripe import StripeClient

from activities.reply_columns import bill_reply
from activities.stripe_catalog import create_customer
from tallystick.ledger.terms import TermsInForce
from tallystick.plans import PlanTerms
from tallystick.pricing import rate

PLAN, MARKUP = "pass-through", Decimal("0.20")
PLAN_BEGAN = datetime(2026, 1, 1, tzinfo=UTC)
MODELS = ("claude-sonnet-5-5", "claude-haiku-4-5-20251001", "claude-opus-5-5")
METERS_OF_A_RECORD = 3
"""Of a plain one: its charge, its input, its output."""
_LANES = 16
_PAGE = 10_000
_T = TypeVar("_T")


@dataclass(frozen=True)
class Usage:
    """So many records in [start, end), evenly spread over time and over customers."""

    records: int
    customers: int
    start: datetime
    end: datetime


_ASKED = """
CREATE TEMPORARY TABLE asked AS
SELECT
    n,
    'bench-' || n %% %(customers)s AS customer_id,
    'request-' || n AS request_id,
    %(start)s::timestamptz + (%(end)s::timestamptz - %(start)s::timestamptz)
        * (n::float8 / %(records)s) AS at,
    n %% %(models)s AS kind,
    200 + n * 7919 %% 5000 AS input,
    20 + n * 104729 %% 800 AS output
FROM generate_series(0, %(records)s::bigint - 1) AS n
"""
_KINDS = """
CREATE TEMPORARY TABLE kinds (
    kind bigint PRIMARY KEY, model text, evidence jsonb, explanation text, price_book text,
    input_usd numeric, output_usd numeric
)
"""
_ATTEMPTS = """
INSERT INTO attempts (
    attempt_id, customer_id, request_id, number, fingerprint, model, estimated_input_tokens,
    prompt_chars, outcome, started_at, finished_at, claude_request_id, message_id, usage
)
SELECT
    n + 1, customer_id, request_id, 1, md5(request_id), model, input, 4 * input, 'succeeded',
    at - interval '2 seconds', at, 'req_' || md5(request_id), 'msg_' || md5(request_id),
    evidence -> 'usage' || jsonb_build_object('input_tokens', input, 'output_tokens', output)
FROM asked JOIN kinds USING (kind)
"""
_RECORDS = """
INSERT INTO usage_records (
    usage_record_id, customer_id, request_id, attempt_id, attempts, fingerprint, served_at,
    billed_at, model, message_id, claude_request_id, stop_reason, partial, prompt_chars,
    response_chars, input_tokens, output_tokens, cache_write_5m_tokens, cache_write_1h_tokens,
    cache_read_tokens, web_searches, evidence, status, reason, price_book, plan, plan_valid_from,
    cost_usd, charge_nano_usd, lines, explanation, warnings
)
SELECT
    n + 1, customer_id, request_id, n + 1, 1, md5(request_id), at, at, model,
    'msg_' || md5(request_id), 'req_' || md5(request_id), 'end_turn', false, 4 * input,
    4 * output, input, output, 0, 0, 0, 0,
    evidence || jsonb_build_object(
        'id', 'msg_' || md5(request_id),
        'usage', evidence -> 'usage'
            || jsonb_build_object('input_tokens', input, 'output_tokens', output)
    ),
    'priced', '', price_book, %(plan)s, %(plan_began)s,
    input * input_usd + output * output_usd,
    round((input * input_usd + output * output_usd) * (1 + %(markup)s) * 1000000000),
    jsonb_build_array(
        jsonb_build_object(
            'kind', 'input', 'model', model, 'quantity', input,
            'unit_usd', trim_scale(input_usd)::text,
            'amount_usd', trim_scale(input * input_usd)::text
        ),
        jsonb_build_object(
            'kind', 'output', 'model', model, 'quantity', output,
            'unit_usd', trim_scale(output_usd)::text,
            'amount_usd', trim_scale(output * output_usd)::text
        )
    ),
    explanation, '[]'
FROM asked JOIN kinds USING (kind)
"""
_EVENTS = """
INSERT INTO meter_events (
    usage_record_id, customer_id, request_id, identifier, meter, value, occurred_at, billed_at,
    stripe_customer_id, first_sent_at, delivered_at
)
SELECT
    usage_record_id, customer_id, request_id,
    'tallystick-' || encode(sha256(convert_to(
        '["' || customer_id || '","' || request_id || '","' || meter || '"]', 'UTF8'
    )), 'hex'),
    meter, value, served_at, billed_at, stripe_customer_id,
    served_at + interval '3 seconds', served_at + interval '4 seconds'
FROM usage_records
JOIN customers USING (customer_id)
CROSS JOIN LATERAL (
    VALUES ('tallystick_charge_nano_usd', charge_nano_usd),
           ('tallystick_input_tokens', input_tokens),
           ('tallystick_output_tokens', output_tokens)
) AS metered (meter, value)
ORDER BY usage_record_id
"""
_SERVED = """
SELECT
    extract(epoch FROM date_trunc('hour', served_at, 'UTC'))::bigint AS hour,
    model, count(*), sum(input_tokens)::bigint, sum(output_tokens)::bigint
FROM usage_records GROUP BY hour, model
"""
_COUNTED = """
SELECT
    extract(epoch FROM date_trunc('hour', occurred_at, 'UTC'))::bigint AS hour,
    stripe_customer_id, meter, sum(value)::bigint
FROM meter_events GROUP BY hour, stripe_customer_id, meter
"""
_MID = 1_800
"""Seconds into the hour, where its sum is entered."""


async def seed(
    database_url: str, stripe: StripeClient, claude_url: str, stripe_url: str, usage: Usage
) -> None:
    """Make the usage in a ledger that has none yet, and at the stand-ins behind these addresses."""
    await _add_customers(database_url, stripe, usage.customers)
    served, counted = await asyncio.to_thread(_write, database_url, usage)
    async with httpx.AsyncClient(timeout=600) as http:
        for rows in _pages(served):
            told = {"rows": [_outside(*row) for row in rows]}
            await _post(http, f"{claude_url}/_sandbox/reports/outside", told)
        for rows in _pages(counted):
            told = {"events": [_event(*row) for row in rows]}
            await _post(http, f"{stripe_url}/_sandbox/meter_usage", told)


async def _add_customers(database_url: str, stripe: StripeClient, count: int) -> None:
    lanes = asyncio.Semaphore(_LANES)

    async def add(name: str) -> tuple[str, str]:
        async with lanes:
            return name, await create_customer(stripe, name, name)

    rows = await asyncio.gather(*(add(f"bench-{number}") for number in range(count)))
    async with await psycopg.AsyncConnection.connect(_plain(database_url)) as connection:
        await connection.cursor().executemany(
            "INSERT INTO customers (customer_id, stripe_customer_id, name, plan, status, time_zone)"
            " VALUES (%s, %s, 'A customer', %s, 'active', 'UTC')",
            [(*row, PLAN) for row in rows],
        )


def _write(database_url: str, usage: Usage) -> tuple[list[Any], list[Any]]:
    """Write attempts, records and events; returns their sums as Claude and as Stripe have them."""
    numbers = {
        "records": usage.records,
        "customers": usage.customers,
        "start": usage.start,
        "end": usage.end,
        "models": len(MODELS),
    }
    terms = {"plan": PLAN, "plan_began": PLAN_BEGAN, "markup": MARKUP}
    with psycopg.connect(_plain(database_url)) as connection:
        connection.execute("SET LOCAL synchronous_commit = off")
        connection.execute(_ASKED, numbers)
        connection.execute(_KINDS)
        connection.cursor().executemany(
            "INSERT INTO kinds VALUES (%s, %s, %s, %s, %s, %s, %s)",
            [(number, *_plain_reply(model, usage.start)) for number, model in enumerate(MODELS)],
        )
        connection.execute(_ATTEMPTS)
        connection.execute(_RECORDS, terms)
        connection.execute(_EVENTS)
        for table, column in (("attempts", "attempt_id"), ("usage_records", "usage_record_id")):
            connection.execute(
                "SELECT setval(pg_get_serial_sequence(%s, %s), %s)", (table, column, usage.records)
            )
        served = connection.execute(_SERVED).fetchall()
        counted = connection.execute(_COUNTED).fetchall()
    # As autovacuum would have done before a day is over.
    with psycopg.connect(_plain(database_url), autocommit=True) as connection:
        connection.execute("VACUUM ANALYZE attempts, usage_records, meter_events, customers")
    return served, counted


def _plain_reply(model: str, at: datetime) -> tuple[Any, ...]:
    """Return what recording a plain reply of a model writes beside its counts, and its prices."""
    reply: dict[str, Any] = {
        "type": "message",
        "role": "assistant",
        "model": model,
        "content": [{"type": "text", "text": "A stick that was split in two."}],
        "stop_reason": "end_turn",
        "usage": {
            "input_tokens": 2_000,
            "output_tokens": 400,
            "cache_creation_input_tokens": 0,
            "cache_read_input_tokens": 0,
            "cache_creation": {"ephemeral_5m_input_tokens": 0, "ephemeral_1h_input_tokens": 0},
            "output_tokens_details": {"thinking_tokens": 0},
            "server_tool_use": None,
            "service_tier": "standard",
            "inference_geo": "global",
            "speed": "standard",
        },
    }
    agreed = TermsInForce(
        plan=PLAN,
        plan_from=PLAN_BEGAN,
        own_from=None,
        terms=PlanTerms.read({"model": "pass-through", "markup": str(MARKUP)}),
    )
    rating = rate(reply, at=at)
    columns = bill_reply(reply, rating, agreed, asked_model=model).columns
    prices = {line.kind: line.unit_usd for line in rating.lines}
    return (
        model,
        json.dumps(columns["evidence"]),
        columns["explanation"],
        columns["price_book"],
        prices["input"],
        prices["output"],
    )


def _outside(hour: int, model: str, requests: int, input: int, output: int) -> dict[str, Any]:
    return {
        "at": hour + _MID,
        "model": model,
        "requests": requests,
        "tokens": {"input": input, "output": output},
    }


def _event(hour: int, customer: str, meter: str, value: int) -> dict[str, Any]:
    return {"event_name": meter, "customer": customer, "value": value, "timestamp": hour + _MID}


async def _post(http: httpx.AsyncClient, url: str, body: Any) -> None:
    (await http.post(url, json=body)).raise_for_status()


def _pages(rows: Sequence[_T]) -> Iterator[Sequence[_T]]:
    for start in range(0, len(rows), _PAGE):
        yield rows[start : start + _PAGE]


def _plain(database_url: str) -> str:
    return database_url.replace("postgresql+psycopg://", "postgresql://")
