"""How an error is written into a history: what a person reads of it, and no more.

Temporal refuses a failure of more than 2 MB, and puts `Failure exceeds size limit.`, for good, in
its place. An error carries all that it was raised from, and what a library raises may quote a whole
body; a row of the error table that says `retry` would then end a request for the words of its
cause. So every error, and every cause of it, is cut here, where all of them pass: its type, its
details and whether it is retried never change.
"""

from temporalio.api.failure.v1 import Failure
from temporalio.converter import DefaultFailureConverter, PayloadConverter

WORDS_LIMIT = 4_000
"""Characters of a message from its beginning, and of a trace from its end, where it was raised."""


class BoundedFailureConverter(DefaultFailureConverter):
    """Keeps an error small enough to be told."""

    def to_failure(
        self, exception: BaseException, payload_converter: PayloadConverter, failure: Failure
    ) -> None:
        """Write the error; called again for each of its causes."""
        super().to_failure(exception, payload_converter, failure)
        failure.message = failure.message[:WORDS_LIMIT]
        failure.stack_trace = failure.stack_trace[-WORDS_LIMIT:]


class SealedFailureConverter(BoundedFailureConverter):
    """Moves the words to where the codec encrypts them, as Temporal's own converter does."""

    def to_failure(
        self, exception: BaseException, payload_converter: PayloadConverter, failure: Failure
    ) -> None:
        """Write the error; called again for each of its causes."""
        super().to_failure(exception, payload_converter, failure)
        words = {"message": failure.message, "stack_trace": failure.stack_trace}
        failure.encoded_attributes.CopyFrom(payload_converter.to_payloads([words])[0])
        failure.message, failure.stack_trace = "Encoded failure", ""
