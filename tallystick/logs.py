"""What processes log: our own progress, and of libraries only trouble. Never keys or prompts.

Whatever is logged while a step or a workflow runs, by us or by a library, carries the ids that
Temporal knows at that moment: they are put on each line where it is written, so nobody who logs has
to think of them. A line that belongs to no request has none.
"""

import json
import logging
from collections.abc import Mapping
from datetime import UTC, datetime

from temporalio import activity, workflow

from tallystick.contracts import named_by
from tallystick.settings import LogFormat

TEMPORAL_LOGGER = logging.getLogger("temporalio.core")
"""Where the core of Temporal's SDK writes."""


def configure_logging(form: LogFormat) -> None:
    """Log to standard error. Libraries' request logs are left out: ours name what was done."""
    handler = logging.StreamHandler()
    handler.setFormatter(_Json() if form == "json" else _Text())
    logging.basicConfig(level=logging.WARNING, handlers=[handler])
    logging.getLogger("tallystick").setLevel(logging.INFO)


def ids() -> Mapping[str, str | int]:
    """Return the chain of ids at this moment: customer, request, workflow, run, step, attempt."""
    if activity.in_activity():
        step = activity.info()
        if step.workflow_id is None:
            return {"activity": step.activity_type, "attempt": step.attempt}
        return {
            **_of_workflow(step.workflow_id),
            "run_id": step.workflow_run_id or "",
            "activity": step.activity_type,
            "attempt": step.attempt,
        }
    if workflow.in_workflow():
        run = workflow.info()
        return {**_of_workflow(run.workflow_id), "run_id": run.run_id}
    return {}


def _of_workflow(workflow_id: str) -> Mapping[str, str]:
    return {**named_by(workflow_id), "workflow_id": workflow_id}


class _Text(logging.Formatter):
    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s %(name)s %(message)s%(ids)s")

    def format(self, record: logging.LogRecord) -> str:
        record.ids = "".join(f" {name}={value}" for name, value in ids().items())
        return super().format(record)


class _Json(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        line = {
            "at": datetime.fromtimestamp(record.created, UTC).isoformat(),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
            **ids(),
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False, default=str)
