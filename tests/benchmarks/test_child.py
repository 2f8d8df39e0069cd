"""A child is told once for each signal, and waited for."""

import os
import signal
import sys
import threading
import time

import pytest

from byol_tf.benchmarks import child

# Says what it gets until a second after the first; ends as a training does.
PATIENT = """
import signal, sys, time
got = []
for number in (signal.SIGINT, signal.SIGTERM):
    signal.signal(number, lambda number, frame: got.append(number))
print("ready", flush=True)
end = time.monotonic() + 60
while not got and time.monotonic() < end:
    time.sleep(0.01)
time.sleep(1)
print(*map(int, got), flush=True)
sys.exit(143)
"""


@pytest.fixture(autouse=True)
def _no_signal_is_ignored():
    # As all are that nohup started: the hangup.
    before = {number: signal.getsignal(number) for number in child.STOP_SIGNALS}
    for number in before:
        signal.signal(number, signal.default_int_handler)
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def said(tmp_path, *numbers, pause=0.0) -> str:
    """What the child says of the signals that this process gets meanwhile."""
    path = tmp_path / "said.txt"

    def send():
        while "ready" not in path.read_text():
            time.sleep(0.01)
        for number in numbers:
            os.kill(os.getpid(), number)
            time.sleep(pause)

    with path.open("w") as output, child.noting_stops() as noted:
        sender = threading.Thread(target=send)
        sender.start()
        with pytest.raises(child.Stopped) as stopped:
            child.run([sys.executable, "-c", PATIENT], noted, stdout=output)
        sender.join()
    assert stopped.value.number == numbers[0]
    return path.read_text().split("\n")[1]


@pytest.mark.parametrize(
    "number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP]
)
def test_the_child_is_told_once(tmp_path, number):
    assert said(tmp_path, number, number, pause=0.3) == "15"


def test_a_later_signal_is_one_for_the_child_too(tmp_path, monkeypatch):
    monkeypatch.setattr(child, "_SECONDS_OF_ONE", 0.2)
    assert said(tmp_path, signal.SIGINT, signal.SIGTERM, pause=0.5) == "15 15"


def test_a_child_has_nothing_of_what_its_group_gets():
    script = "import os; print(os.getpgid(0) == os.getpid())"
    with child.noting_stops() as noted:
        reader, writer = os.pipe()
        code = child.run([sys.executable, "-c", script], noted, stdout=writer)
    os.close(writer)
    assert code == 0
    assert os.read(reader, 100) == b"True\n"
    os.close(reader)


def test_exit_codes():
    end = [sys.executable, "-c", "import sys; sys.exit(3)"]
    with child.noting_stops() as noted:
        assert child.run(end, noted) == 3
        os.kill(os.getpid(), signal.SIGINT)
        with pytest.raises(child.Stopped, match="interrupted by SIGINT"):
            child.run(end, noted)  # It is not begun.


def test_handlers_are_as_before_and_what_is_ignored_stays_so():
    before = signal.getsignal(signal.SIGINT)
    hangup = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with child.noting_stops() as noted:
            os.kill(os.getpid(), signal.SIGHUP)
            assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
        assert noted == []
        assert signal.getsignal(signal.SIGINT) == before
    finally:
        signal.signal(signal.SIGHUP, hangup)
