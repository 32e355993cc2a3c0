"""The well-known pattern, to stand beside Tallystick: call Claude, tell Stripe, answer.

What a competent engineer in a hurry would write: official SDKs as they come, the Anthropic one with
its own retries; long answers streamed, as the SDK demands; two meter events after the call, as the
published `token-meter` of Stripe sends them, without identifiers; what goes wrong with Stripe is
logged and does not spoil the answer (facts on Stripe, 'What stripe/ai teaches'). One thing is done
for the drill: an event names its request beside the value, which Stripe ignores, so that events can
be counted by request instead of by guessing.

Runs by itself: `baseline.py PORT`, with ANTHROPIC_API_KEY, ANTHROPIC_BASE_URL, STRIPE_API_KEY and
STRIPE_API_BASE in the environment.
"""

import logging
import os
import sys
from typing import Any

import uvicorn
from anthropic import AsyncAnthropic
from anthropic.types import Message
from fastapi import FastAPI
from fastapi.responses import JSONResponse
from pydantic import BaseModel
from stripe import StripeClient, StripeError

METERS = {"input": "claude_input_tokens", "output": "claude_output_tokens"}
STREAM_FROM = 21_334
"""Of `max_tokens`: the SDK refuses to wait so long for an answer that is not streamed."""

log = logging.getLogger("baseline")


class Question(BaseModel):
    stripe_customer_id: str
    request_id: str
    params: dict[str, Any]


class Baseline:
    """The service, on clients as their SDKs make them."""

    def __init__(self, claude: AsyncAnthropic, payments: StripeClient):
        self._claude, self._payments = claude, payments

    async def answer(self, question: Question) -> JSONResponse:
        try:
            message = await self._call(question.params)
        except Exception as error:
            log.exception("%s failed", question.request_id)
            return JSONResponse({"error": type(error).__name__}, 502)
        await self._meter(question, message)
        return JSONResponse(message.model_dump(mode="json"))

    async def _call(self, params: dict[str, Any]) -> Message:
        if params["max_tokens"] < STREAM_FROM:
            return await self._claude.messages.create(**params)
        async with self._claude.messages.stream(**params) as stream:
            return await stream.get_final_message()

    async def _meter(self, question: Question, message: Message) -> None:
        used = message.usage
        cached = (used.cache_creation_input_tokens or 0) + (used.cache_read_input_tokens or 0)
        for kind, tokens in (("input", used.input_tokens + cached), ("output", used.output_tokens)):
            payload = {
                "stripe_customer_id": question.stripe_customer_id,
                "value": str(tokens),
                "request_id": question.request_id,
            }
            try:
                await self._payments.v1.billing.meter_events.create_async(
                    {"event_name": METERS[kind], "payload": payload}
                )
            except StripeError:
                log.exception("%s: %s tokens are not metered", question.request_id, kind)


def main() -> None:
    """Serve until killed."""
    payments = StripeClient(
        os.environ["STRIPE_API_KEY"], base_addresses={"api": os.environ["STRIPE_API_BASE"]}
    )
    app = FastAPI()
    app.post("/ask")(Baseline(AsyncAnthropic(), payments).answer)
    uvicorn.run(app, host="127.0.0.1", port=int(sys.argv[1]), log_level="warning")


if __name__ == "__main__":
    main()
