"""What worker and replayer must agree on, in one plugin: workflows, converter and sandbox.

A history replays only under the converter and the code that wrote it. Tests therefore replay with
this very plugin, and cannot pass with a configuration that no worker has.
"""

from temporalio.plugin import SimplePlugin
from temporalio.worker.workflow_sandbox import SandboxedWorkflowRunner, SandboxRestrictions

from tallystick.payloads.converter import data_converter
from tallystick.settings import get_settings
from workflows.billing_cycle import BillingCycleWorkflow
from workflows.claude_request import ClaudeRequestWorkflow
from workflows.message_batch import MessageBatchWorkflow
from workflows.reconciliation import ReconciliationWorkflow
from workflows.sweep import SweepWorkflow

WORKFLOWS = [
    ClaudeRequestWorkflow,
    BillingCycleWorkflow,
    SweepWorkflow,
    MessageBatchWorkflow,
    ReconciliationWorkflow,
]

# Pure modules without state: passed through, they are loaded once and not once for each workflow,
# which is most of what the sandbox costs (facts on Temporal, 'Figures').
_PURE = ("tallystick", "workflows")

_RUNNER = SandboxedWorkflowRunner(
    restrictions=SandboxRestrictions.default.with_passthrough_modules(*_PURE)
)


class TallystickPlugin(SimplePlugin):
    """Workflows, data converter and sandbox of every Tallystick worker and replayer."""

    def __init__(self) -> None:
        super().__init__(  # pyright: ignore[reportUnknownMemberType]
            "tallystick",
            data_converter=data_converter(get_settings().keyring),
            workflows=WORKFLOWS,
            workflow_runner=_RUNNER,
        )
