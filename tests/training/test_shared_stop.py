"""Who is asked to stop, and when; see test_lost_worker.py for real machines."""

import signal

import pytest

from byol_tf.training.shared_stop import SharedStopRequest


class Other:
    """Another machine's part in the sums: what it adds to ours."""

    def __init__(self):
        self.adds = [0, 0, 0]
        self.asked = 0

    def summed(self, numbers):
        self.asked += 1
        return numbers + self.adds


@pytest.fixture
def clock(monkeypatch):
    now = [0.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    return now


@pytest.fixture
def other():
    return Other()


@pytest.fixture
def stop(mirrored, clock, other):
    request = SharedStopRequest(mirrored, total_steps=1000)
    request._summed = other.summed
    return request


def test_one_sum_over_all_replicas(mirrored, clock):
    request = SharedStopRequest(mirrored, total_steps=9)
    assert request._summed([0, 1, 5]).numpy().tolist() == [0, 2, 10]
    assert request.agreed(1) is None
    request.number = signal.SIGINT
    clock[0] += 1
    assert request.agreed(2) == signal.SIGINT


def test_about_once_a_second(stop, clock, other):
    asked = []
    for step in range(101, 141):  # It went on from step 100.
        clock[0] += 100.0 if step == 101 else 0.125  # The first is compiled.
        other.adds[2] = round(1e6 * (clock[0] - stop._time))
        before = other.asked
        assert stop.agreed(step) is None
        if other.asked > before:
            asked.append(step)
    assert asked == [101, 102, 110, 118, 126, 134]


def test_slow_steps_and_the_last_one(stop, clock, other):
    for step in (1, 2, 3):
        clock[0] += 5
        stop.agreed(step)
    assert other.asked == 3
    clock[0] += 1e-3
    other.adds[2] = 1000
    stop.agreed(4)  # The next would be in 1000 steps.
    assert stop.agreed(999) is None and other.asked == 4
    stop.agreed(1000)
    assert other.asked == 5


def test_by_the_own_signal_or_the_others(stop, clock, other):
    clock[0] += 5
    assert stop.agreed(1) is None
    other.adds = [0, 1, 0]
    clock[0] += 5
    assert stop.agreed(2) == signal.SIGTERM
    stop.number = signal.SIGINT
    clock[0] += 5
    assert stop.agreed(3) == signal.SIGINT
