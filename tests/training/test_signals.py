"""Real signals: the first is noted, the second stops."""

import os
import signal
import threading

import pytest

from byol_tf.training.signals import StopRequest, noting_signals


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_first_signal_is_noted(number):
    before = signal.getsignal(number)
    request = StopRequest()
    with noting_signals(request):
        assert request.number is None
        os.kill(os.getpid(), number)
        assert request.number == number
    assert signal.getsignal(number) is before


def test_the_second_stops_at_once():
    request = StopRequest()
    with pytest.raises(KeyboardInterrupt), noting_signals(request):
        os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGINT)
    assert request.number == signal.SIGTERM


def test_an_ignored_signal_stays_ignored():
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        request = StopRequest()
        with noting_signals(request):
            os.kill(os.getpid(), signal.SIGINT)
            assert request.number is None
            os.kill(os.getpid(), signal.SIGTERM)
            assert request.number == signal.SIGTERM
        assert signal.getsignal(signal.SIGINT) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)


def test_in_another_thread_nothing_changes():
    handlers = []

    def look():
        with noting_signals(StopRequest()):
            handlers.append(signal.getsignal(signal.SIGTERM))

    before = signal.getsignal(signal.SIGTERM)
    thread = threading.Thread(target=look)
    thread.start()
    thread.join()
    assert handlers == [before]
