"""Every path through every workflow, each driven for real: one module per workflow type.

A module names its `PATHS`, and its `drive` takes each of them and hands over the run whose history
is to be kept. `record.py` drives them all; `test_replay.py` replays what was kept, and fails where
a path has no recording.
"""

from types import ModuleType

from tallystick.contracts import (
    BILLING_CYCLE,
    CLAUDE_REQUEST,
    MESSAGE_BATCH,
    RECONCILIATION,
    SWEEP,
)
from tests.replay.paths import billing_cycle, claude_request, message_batch, reconciliation, sweep

WORKFLOWS: dict[str, ModuleType] = {
    CLAUDE_REQUEST: claude_request,
    BILLING_CYCLE: billing_cycle,
    MESSAGE_BATCH: message_batch,
    SWEEP: sweep,
    RECONCILIATION: reconciliation,
}
