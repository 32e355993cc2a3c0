"""Which version of a deployment a worker is, so that old and new code can run side by side.

A worker with `TALLYSTICK_DEPLOYMENT` and `TALLYSTICK_BUILD_ID` gets work only once its version is
made the current one (docs/versions.md). Every run is then pinned: it ends on the build that began
it, so a change of its workflow needs no thought for what is in flight. An account's cycle lives for
years, and would keep every old build running; it begins a new run in the current build as soon as
it has something to do and hears that there is one (`workflows.billing_cycle`).
"""

from temporalio.common import VersioningBehavior, WorkerDeploymentVersion
from temporalio.worker import WorkerDeploymentConfig

from tallystick.settings import Settings


def deployment_config(settings: Settings) -> WorkerDeploymentConfig | None:
    """Return the version that a worker declares; None leaves it unversioned.

    Raises:
        SettingsError: when the settings name half of one.
    """
    if settings.version is None:
        return None
    deployment, build_id = settings.version
    return WorkerDeploymentConfig(
        version=WorkerDeploymentVersion(deployment, build_id),
        use_worker_versioning=True,
        # Here and not at the workflows: the server takes no such word from an unversioned worker.
        default_versioning_behavior=VersioningBehavior.PINNED,
    )
