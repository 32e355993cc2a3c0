"""`tallystick quote`: what a request would cost, before anything is sent."""

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer

from tallystick.cli.access import in_ledger
from tallystick.cli.customer_terms import in_force
from tallystick.cli.output import JsonFlag, fail, note, out, print_json, print_rows
from tallystick.cli.stdin import read_stdin
from tallystick.contracts import QuoteOrder, RequestQuote
from tallystick.plans import quote_request
from tallystick.pricing import NoPriceError


def register(app: typer.Typer) -> None:
    """Add the command to the root."""
    app.command()(quote)


def quote(
    prompt: Annotated[
        str, typer.Argument(metavar="[PROMPT]", help="The prompt, or - for stdin.")
    ] = "",
    file: Annotated[str, typer.Option(help="Take the prompt from a text file.")] = "",
    body: Annotated[
        str, typer.Option(help="Take a whole Messages API body from a JSON file, or - for stdin.")
    ] = "",
    model: Annotated[str, typer.Option(help="A model id; the body's, or claude-sonnet-5-5.")] = "",
    max_tokens: Annotated[
        int, typer.Option(help="Output tokens at the most; the body's, or 1024.")
    ] = 0,
    customer: Annotated[str, typer.Option(help="Charge by this customer's plan.")] = "",
    as_json: bool = JsonFlag,
) -> None:
    """Say what a request would cost, and what caching or a batch would save. Nothing is sent."""
    if sum(map(bool, (prompt, file, body))) != 1:
        fail("PROMPT: give a prompt, --file or --body, and only one of them")
    params = _body(body) if body else _prompt(prompt, file)
    if model:
        params["model"] = model
    if max_tokens:
        params["max_tokens"] = max_tokens
    params = {"model": "claude-sonnet-5-5", "max_tokens": 1_024, **params}
    try:
        QuoteOrder.parse({"params": params})
        made = _quote(params, customer)
    except (NoPriceError, ValueError) as error:
        fail(str(error))
    if as_json:
        print_json(made.model_dump(mode="json"))
    else:
        _show(made)


def _quote(params: dict[str, Any], customer: str) -> RequestQuote:
    now = datetime.now(UTC)
    if not customer:
        return quote_request(params, now)
    agreed = in_ledger(lambda tx: in_force(tx, customer, now))
    return quote_request(params, now, agreed.terms, plan=agreed.plan)


def _prompt(prompt: str, file: str) -> dict[str, Any]:
    text = _read(file, "--file") if file else read_stdin("PROMPT") if prompt == "-" else prompt
    return {"messages": [{"role": "user", "content": text}]}


def _body(path: str) -> dict[str, Any]:
    try:
        params = json.loads(read_stdin("--body") if path == "-" else _read(path, "--body"))
    except ValueError as error:
        fail(f"--body: not JSON: {error}")
    if not isinstance(params, dict):
        fail("--body: should be a JSON object, the body of a Messages API call")
    return params  # pyright: ignore[reportUnknownVariableType]


def _read(path: str, option: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        fail(f"{option}: {path!r} cannot be read as text: {error}")


def _show(made: RequestQuote) -> None:
    out.print(made.explanation, highlight=False, soft_wrap=True)
    payer = f"charge on plan {made.plan}" if made.plan else "provider's price"
    print_rows(
        (payer, ""),
        [
            ("prompt tokens, at least", made.input_tokens_low),
            ("prompt tokens, likely", made.input_tokens_likely),
            ("prompt tokens, at most", made.input_tokens_high),
            ("answer tokens, at most", made.max_tokens),
            ("$ at least", made.charge_low_usd),
            ("$ at most", made.charge_high_usd),
            ("$ saved by each read from the cache", made.cache_saves_usd),
            ("$ extra to keep it there first", made.cache_costs_usd),
            ("$ saved by a batch, at most", made.batch_saves_usd),
        ],
    )
    for warning in made.warnings:
        note(f"warning: {warning}")
