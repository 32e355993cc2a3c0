"""Memory that grows must be condemned, however slowly, and warming up must not."""

from itertools import accumulate

import pytest

from scripts.chaos_parts.memory import ALLOWANCE, JUDGED_FROM, Memory, memory

MB = 1_000_000
HALF_HOUR = 1_800


def watched(samples: list[int]) -> Memory:
    found = memory(samples, every=1.0)
    assert found is not None
    return found


def test_what_is_filled_once_and_then_stays_is_flat() -> None:
    filling = [min(200 + second / 5, 280) * MB for second in range(HALF_HOUR)]
    found = watched([round(each) for each in filling])
    assert found.flat is True
    assert found.growth == 0
    assert found.quarters[0] < found.quarters[1] == found.quarters[3] == 280


def test_a_leak_of_a_few_kilobytes_a_request_is_not_flat() -> None:
    requests_a_second, leaked = 5 / 3, 10_000
    steps = [round(requests_a_second * leaked)] * (HALF_HOUR - 1)
    found = watched(list(accumulate([250 * MB, *steps])))
    assert found.growth > ALLOWANCE
    assert found.flat is False


def test_one_peak_is_no_growth() -> None:
    samples = [250 * MB] * HALF_HOUR
    samples[-60:] = [900 * MB] * 60
    assert watched(samples).flat is True


@pytest.mark.parametrize("seconds", [60, int(JUDGED_FROM) - 1])
def test_a_short_drill_is_not_judged(seconds: int) -> None:
    assert watched([(100 + second) * MB for second in range(seconds)]).flat is None


def test_too_few_looks_tell_nothing() -> None:
    assert memory([MB] * 5, every=1.0) is None
