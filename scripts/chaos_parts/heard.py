"""What a caller has heard in the end."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Heard:
    """An answer, by the id of its message, or a refusal, by its reason; neither is told nothing.

    `told` is a refusal in words.
    """

    message_id: str | None = None
    refused: str | None = None
    told: str = ""
