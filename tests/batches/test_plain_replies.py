"""What is written fast is written right: ordinary replies come out as the slow way writes them."""

import json
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from activities.batch_settling import ChunkRater
from activities.plain_replies import PlainReplies, read_plain
from activities.reply_columns import bill_reply
from tallystick.ledger.batch_settling import COLUMNS, Billing
from tallystick.ledger.batch_tables import BatchJob
from tallystick.ledger.terms import TermsInForce
from tallystick.plans import PlanTerms
from tallystick.pricing import rate
from tests.pricing.replies import reply, usage

ENDED = datetime(2026, 11, 20, 12, tzinfo=UTC)
PLAN = datetime(2026, 1, 1, tzinfo=UTC)
MARK = "0123456789ab-1-"
TERMS = [
    PlanTerms(model="pass-through"),
    PlanTerms.model_validate(
        {
            "model": "pass-through",
            "markup": "0.123457",
            "markup_by_kind": {"output": "0.333333", "cache_read": "-0.5"},
            "discount": "0.071",
        }
    ),
    PlanTerms.model_validate({"model": "pass-through", "discount": "1"}),
]
MODELS = [
    "claude-sonnet-5-5",
    "claude-haiku-5-5",
    "claude-haiku-4-5-20251001",
    "claude-opus-4-6",
    "claude-fable-5-2",
]
UNUSUAL: dict[str, dict[str, Any]] = {
    "a model nobody knows": {"model": "claude-unheard-of"},
    "a refusal before any output": {"stop_reason": "refusal", "content": []},
    "a refusal after some output": {"stop_reason": "refusal"},
    "no stop reason": {"stop_reason": None},
    "a tool's block": {"content": [{"type": "tool_use", "id": "t", "name": "n", "input": {}}]},
    "a block of unknown shape": {"content": [{"type": "text", "text": "x", "citations": None}]},
    "text that is no text": {"content": [{"type": "text", "text": 5}]},
    "content that is no list": {"content": "x"},
    "no content": {"content": None},
    "an id that is no word": {"id": "msg 1\t\\"},
    "usage that is no object": {"usage": 5},
}
UNUSUAL_USAGE: dict[str, dict[str, Any]] = {
    "a search": {"server_tool_use": {"web_search_requests": 2}},
    "another tier": {"service_tier": "standard"},
    "a tier without a price": {"service_tier": "priority"},
    "another geography": {"inference_geo": "us"},
    "a geography nobody knows": {"inference_geo": "eu"},
    "fast": {"speed": "fast"},
    "a count nobody knows": {"input_video_tokens": 5},
    "iterations": {"iterations": [{"type": "message", "input_tokens": 7, "output_tokens": 3}]},
    "writes that do not add up": {"cache_creation_input_tokens": 9},
    "writes without lifetimes": {"cache_creation": None, "cache_creation_input_tokens": 9},
    "a lifetime nobody knows": {"cache_creation": {"ephemeral_1d_input_tokens": 0}},
    "a count below zero": {"input_tokens": -1},
    "a count that is true": {"input_tokens": True},
    "a count that is a fraction": {"output_tokens": 1.5},
    "no output": {"output_tokens": None},
}


def billing(terms: PlanTerms) -> Billing:
    job = BatchJob.model_construct(job_id="job", customer_id="acme")
    return Billing(job, TermsInForce(terms, "plan", PLAN, None), ENDED, doubled=False)


def slowly(terms: PlanTerms, message: dict[str, Any]) -> dict[str, Any]:
    """Return the columns of a reply as any other request's are made."""
    agreed = billing(terms).agreed
    rating = rate(message, at=ENDED, batch=True)
    return bill_reply(message, rating, agreed, asked_model="").columns


def written(row: str) -> dict[str, Any]:
    """Read one row of COPY's text format back."""
    fields = row.removesuffix("\n").split("\t")
    assert len(fields) == len(COLUMNS)
    read: dict[str, Any] = {}
    for (name, type_), field in zip(COLUMNS.items(), fields, strict=True):
        text = None if field == "\\N" else field.encode().decode("unicode_escape")
        if text is None:
            read[name] = None
        elif type_ == "jsonb":
            read[name] = json.loads(text)
        elif type_ in ("integer", "bigint"):
            read[name] = int(text)
        elif type_ == "boolean":
            read[name] = text == "t"
        else:
            read[name] = text
    return read


def row_of(terms: PlanTerms, message: dict[str, Any]) -> dict[str, Any]:
    line = {"custom_id": f"{MARK}7", "result": {"type": "succeeded", "message": message}}
    chunk = ChunkRater(MARK, billing(terms)).rate([json.dumps(line).encode() + b"\n"], 0)
    return written(chunk.rows.decode())


def must_agree(terms: PlanTerms, message: dict[str, Any]) -> None:
    row = row_of(terms, message)
    for name, value in slowly(terms, message).items():
        if name in ("plan", "plan_valid_from", "customer_terms_from"):
            continue  # the same for the whole batch: not in its rows
        if name == "cost_usd" and value is not None:
            assert type(value)(row[name]) == value
        else:
            assert row[name] == (value or None if name == "stop_reason" else value), name


counts = st.integers(0, 10**6) | st.sampled_from([0, 1, 99_999, 100_000, 100_001])


@given(
    terms=st.sampled_from(TERMS),
    model=st.sampled_from(MODELS),
    used=st.tuples(counts, counts, counts, counts, counts),
    stop_reason=st.sampled_from(["end_turn", "max_tokens", "stop_sequence"]),
    texts=st.lists(st.text(max_size=20), max_size=3),
)
def test_an_ordinary_reply_is_billed_as_any_other_to_the_letter(
    terms: PlanTerms,
    model: str,
    used: tuple[int, int, int, int, int],
    stop_reason: str,
    texts: list[str],
) -> None:
    message = reply(
        model,
        usage(*used, service_tier="batch", inference_geo="global", output_tokens_details={"x": 1}),
        stop_reason=stop_reason,
        content=[{"type": "text", "text": text} for text in texts],
    )
    assert read_plain(message) is not None
    must_agree(terms, message)


def test_the_fast_way_is_the_one_that_is_taken() -> None:
    fast = PlainReplies(billing(TERMS[0]).agreed, ENDED)
    for model in MODELS:
        assert fast.fields(reply(model, usage(5, 7, service_tier="batch"))) is not None


@pytest.mark.parametrize("change", UNUSUAL.values(), ids=UNUSUAL)
def test_an_unusual_reply_is_left_to_the_slow_way(change: dict[str, Any]) -> None:
    message = {**reply(MODELS[0], usage(5, 7, 3, 0, 9, service_tier="batch")), **change}
    fast = PlainReplies(billing(TERMS[1]).agreed, ENDED)
    assert fast.fields(message) is None
    must_agree(TERMS[1], message)


@pytest.mark.parametrize("change", UNUSUAL_USAGE.values(), ids=UNUSUAL_USAGE)
def test_unusual_usage_is_left_to_the_slow_way(change: dict[str, Any]) -> None:
    used = {**usage(5, 7, 3, 0, 9, service_tier="batch"), **change}
    message = reply(MODELS[0], used)
    assert PlainReplies(billing(TERMS[1]).agreed, ENDED).fields(message) is None
    must_agree(TERMS[1], message)
