"""Answers kept under idempotency keys, for 24 hours of the sandbox's clock.

v1 replays what it answered, a 500 included; v2 works again on what had failed and never repeats a
success (facts on Stripe, 'SDK'). Either refuses a key that comes back with other parameters, and
one whose first call is still at work.
"""

from dataclasses import dataclass, replace

from tallystick.sandbox.stripe.wire import Refusal

KEPT_SECONDS = 24 * 3600


@dataclass(frozen=True, slots=True)
class Answer:
    """A finished answer; `kept` says whether it is to be replayed."""

    status: int
    body: bytes
    headers: dict[str, str]
    kept: bool

    def replayed(self) -> "Answer":
        """Return the same answer, marked as Stripe marks a replay."""
        return replace(self, headers={**self.headers, "Idempotent-Replayed": "true"})


@dataclass(slots=True)
class _Slot:
    fingerprint: bytes
    since: float
    answer: Answer | None = None


class Replays:
    """The keys of one account."""

    def __init__(self) -> None:
        self._slots: dict[str, _Slot] = {}

    def begin(self, key: str, fingerprint: bytes, now: float) -> Answer | None:
        """Reserve the key, or return the answer it stands for.

        Raises:
            Refusal: 400 for other parameters, 409 while the first call is at work.
        """
        slot = self._slots.get(key)
        if slot is None or now - slot.since >= KEPT_SECONDS:
            self._slots[key] = _Slot(fingerprint, now)
            return None
        if slot.fingerprint != fingerprint:
            raise Refusal(
                400,
                f"Keys for idempotent requests can only be used with the same parameters they "
                f"were first used with. Try using a key other than '{key}'.",
                type="idempotency_error",
            )
        if slot.answer is None:
            raise Refusal(
                409,
                f"There is currently another in-progress request using this key: {key}.",
                type="idempotency_error",
                code="idempotency_key_in_use",
            )
        return slot.answer

    def end(self, key: str, answer: Answer | None) -> None:
        """Keep the answer under its key, or free the key when there is none to keep."""
        if answer is not None and answer.kept:
            self._slots[key].answer = answer
        else:
            del self._slots[key]
