"""What paths are driven on: one Temporal server with virtual time, and databases of their own."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from temporalio.client import Client as TemporalClient
from temporalio.client import WorkflowHandle


@dataclass(frozen=True)
class Stage:
    """Where a module of paths drives them; `keep` records the run behind a handle as a path's."""

    temporal: TemporalClient
    new_database: Callable[[], Awaitable[str]]
    keep: Callable[[str, WorkflowHandle[Any, Any]], Awaitable[None]]
