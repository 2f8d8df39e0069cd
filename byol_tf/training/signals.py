"""Requests to stop, kept until the step that is under way is done."""

import contextlib
import signal
import threading

# What a terminal sends, and what a scheduler sends before it kills.
STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Interrupted(Exception):
    """Training stopped on a signal, after a checkpoint.

    Args:
      number: of the signal.
      step: that the checkpoint is of.
    """

    def __init__(self, number: int, step: int):
        self.number = number
        name = signal.Signals(number).name
        super().__init__(
            f"interrupted by {name} at step {step}; the same command goes on "
            "from there."
        )


class StopRequest:
    """Whether a signal has asked to stop."""

    def __init__(self):
        self.number = None


@contextlib.contextmanager
def noting_signals(request: StopRequest):
    """Within it, the first signal is only noted; a second one stops at once.

    In a thread other than the main one, where Python does not allow to handle
    signals, nothing changes.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in STOP_SIGNALS}

    def restore():
        for number, handler in before.items():
            signal.signal(number, handler)

    def note(number, frame):
        request.number = number
        restore()

    for number in STOP_SIGNALS:
        signal.signal(number, note)
    try:
        yield
    finally:
        restore()
