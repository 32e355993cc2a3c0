"""Which version of a deployment a worker is, so that old and new code can run side by side.

A worker with `TALLYSTICK_DEPLOYMENT` and `TALLYSTICK_BUILD_ID` gets work only once its version is
made the current one (docs/versions.md). A request is pinned: it ends on the build that began it, so
a change of its workflow needs no thought for requests in flight. Everything else moves to the
current build with its next task, an account's cycle at the latest where its next period begins as a
new run: those live for months, and would otherwise keep every old build running. Their histories
must replay in new code, which the tests of replay hold them to.
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
