"""When a failed payment is tried again and what becomes of a subscription that never pays."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

_DAY = 86400


class Dunning(BaseModel):
    """The account's settings: 8 retries in two weeks unless told otherwise.

    `retry_days` are counted from the first failure. `then` is the subscription's status after the
    last of them.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    retry_days: Annotated[tuple[Annotated[float, Field(gt=0)], ...], Field(max_length=100)] = (
        1, 3, 5, 7, 9, 11, 13, 14,
    )  # fmt: skip
    then: Literal["past_due", "unpaid", "canceled"] = "past_due"

    def next_attempt(self, first_failed_at: int, attempts: int) -> int | None:
        """Return when to try again after so many attempts, None when that was the last."""
        if attempts > len(self.retry_days):
            return None
        return first_failed_at + int(self.retry_days[attempts - 1] * _DAY)


class Outcome(BaseModel):
    """What a customer's next `times` charges shall do, whatever the card: one of these.

    `decline_code` refuses, `partial` takes so many cents and no more, `action_required` waits for
    the cardholder; with none of them the charge succeeds.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    customer: str
    times: Annotated[int, Field(ge=1)] = 1
    decline_code: str | None = None
    partial: Annotated[int, Field(ge=1)] | None = None
    action_required: bool = False
