"""How the times of a stopping worker stand to each other."""

from tallystick.settings import Settings
from workflows import billing_cycle, claude_request, message_batch, reconciliation, sweep


def test_a_dead_worker_is_noticed_before_a_stopping_one_must_be_done() -> None:
    timeouts = {
        f"{module.__name__}.{name}": value.total_seconds()
        for module in (billing_cycle, claude_request, message_batch, reconciliation, sweep)
        for name, value in vars(module).items()
        if name.endswith("_HEARTBEAT")
    }
    assert len(timeouts) == 6
    grace = Settings().shutdown_grace
    assert all(seconds < grace for seconds in timeouts.values()), timeouts
