"""What one stand-in knows and does, without HTTP: its cache, its journal, its faults and its time.

Messages and message batches stand on it and share the one cache and the one journal; usage and cost
reports tell what the journal has, or what they were asked to tell instead.
"""

import time
from collections import Counter
from collections.abc import Iterator

from tallystick.sandbox.claude.batch_faults import BATCH_FAULTS
from tallystick.sandbox.claude.batches import Batches
from tallystick.sandbox.claude.bodies import MessagesBody
from tallystick.sandbox.claude.caching import PromptCache
from tallystick.sandbox.claude.errors import ApiError
from tallystick.sandbox.claude.faults import CLAUDE_FAULTS, ClaudeFault
from tallystick.sandbox.claude.journal import Journal
from tallystick.sandbox.claude.latency import Latency
from tallystick.sandbox.claude.models import (
    MAX_OUTPUT_TOKENS,
    MAX_PROMPT_TOKENS,
    geography,
    resolve,
)
from tallystick.sandbox.claude.prompt import segments_of
from tallystick.sandbox.claude.replies import Draft, Reply, draft_reply, new_id
from tallystick.sandbox.claude.reports import Reports
from tallystick.sandbox.claude.used import Used
from tallystick.sandbox.clock import Clock, SettableClock
from tallystick.sandbox.faults import FaultOrder, Faults
from tallystick.sandbox.holds import Holds


class ClaudeService:
    """One stand-in. `calls` counts those for reports, by method and path.

    Args:
        faults: armed from the start.
        latency: how long replies take; none by default.
        clock: what the stand-in's own clock shows until it is set.
        minimum_cached_tokens: prefixes with fewer are not cached.
    """

    def __init__(
        self,
        *,
        faults: FaultOrder | None = None,
        latency: Latency | None = None,
        clock: Clock = time.time,
        minimum_cached_tokens: int = 1_024,
    ):
        self.faults = Faults((*CLAUDE_FAULTS, *BATCH_FAULTS), faults)
        self.holds = Holds()
        self.latency = latency or Latency()
        self.clock = SettableClock(clock)
        self.reports = Reports(self._journalled)
        self.journal = Journal(self.clock, self.reports.add)
        self.calls = Counter[str]()
        self.batches = Batches(self.clock, self.journal)
        self._cache = PromptCache(self.clock, minimum_cached_tokens)

    def reply(self, body: MessagesBody, key: str, fault: ClaudeFault | None = None) -> Reply:
        """Do the work of one request: draft the reply, write it, let the fault reshape it.

        Raises:
            ApiError: 400 or 404 for what the model cannot do or is not.
        """
        reply = self.draft(body, key).write(new_id("msg"))
        return reply if fault is None else fault.reshape(reply)

    def draft(
        self, body: MessagesBody, key: str, *, batched: bool = False, reads: bool = True
    ) -> Draft:
        """Use the cache, which without `reads` is missed, and decide the reply.

        Raises:
            ApiError: 400 or 404 for what the model cannot do or is not.
        """
        model = resolve(body.model)
        geo = geography(model, body.inference_geo)
        segments = segments_of(body)
        if body.max_tokens > MAX_OUTPUT_TOKENS:
            raise ApiError(400, f"max_tokens: {body.max_tokens} > {MAX_OUTPUT_TOKENS}")
        if (size := sum(segment.tokens for segment in segments)) > MAX_PROMPT_TOKENS:
            raise ApiError(400, f"prompt is too long: {size} tokens > {MAX_PROMPT_TOKENS} maximum")
        prompt = self._cache.serve(f"{key}\0{model}", segments, reads=reads)
        return draft_reply(body, model, geo, prompt, batched=batched)

    def _journalled(self) -> Iterator[Used]:
        return self.journal.used()
