"""What a drill does follows from its seed, and leaves out nothing that the stand-ins can do."""

from collections import Counter

from scripts.chaos_parts.schedule import deaths, waves
from tallystick.sandbox.claude.batch_faults import BATCH_FAULTS
from tallystick.sandbox.claude.faults import CLAUDE_FAULTS
from tallystick.sandbox.faults import FaultOrder, Faults
from tallystick.sandbox.stripe.faults import KINDS

FAULTS = {"claude": (*CLAUDE_FAULTS, *BATCH_FAULTS), "stripe": KINDS}
KNOWN = {service: [kind.name for kind in kinds] for service, kinds in FAULTS.items()}


def test_a_seed_is_one_schedule_and_another_seed_another() -> None:
    assert deaths(7, 600, 3) == deaths(7, 600, 3) != deaths(8, 600, 3)
    assert waves(7, 600, 5, KNOWN) == waves(7, 600, 5, KNOWN) != waves(8, 600, 5, KNOWN)


def test_everything_dies_within_the_load_and_the_spared_worker_never() -> None:
    for seconds in (9, 600):
        found = deaths(1, seconds, 3)
        assert {death.victim for death in found} == {"worker", "Temporal", "PostgreSQL"}
        assert all(death.at >= 0 and death.at + death.down <= seconds for death in found)
        assert all(death.slot > 0 for death in found)
    assert Counter(death.victim for death in deaths(1, 600, 3))["worker"] == 30


def test_every_fault_has_its_turn_and_is_ordered_as_the_stand_ins_take_it() -> None:
    for seconds in (9, 600):
        for service, kinds in FAULTS.items():
            faults = Faults(kinds)
            for wave in waves(1, seconds, 5, KNOWN):
                faults.add(FaultOrder.model_validate(wave.orders[service]))
            assert {rule["fault"] for rule in faults.state()["rules"]} == set(KNOWN[service])
