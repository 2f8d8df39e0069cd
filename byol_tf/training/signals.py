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
      is_chief: whether this process is the one that writes checkpoints.
    """

    def __init__(self, number: int, step: int, is_chief: bool = True):
        self.number = number
        name = signal.Signals(number).name
        way_on = "the same command goes on from there."
        if not is_chief:
            way_on = (
                "the checkpoint is the first worker's to write. The same "
                "command on all machines goes on from it."
            )
        super().__init__(f"interrupted by {name} at step {step}; {way_on}")


class StopRequest:
    """Whether a signal has asked to stop.

    Attributes:
      number: of the signal that this process got, or None.
    """

    def __init__(self):
        self.number = None

    def agreed(self, step: int) -> int | None:
        """The signal for which to stop after this step, or None."""
        return self.number


@contextlib.contextmanager
def noting_signals(request: StopRequest):
    """Within it, the first signal is only noted; a second one stops at once.

    In a thread other than the main one, where Python does not allow to handle
    signals, nothing changes. A signal that the process was started to ignore,
    as a shell does with SIGINT for what runs in the background, stays ignored.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in STOP_SIGNALS}
    before = {n: h for n, h in before.items() if h != signal.SIG_IGN}

    def restore():
        for number, handler in before.items():
            signal.signal(number, handler)

    def note(number, frame):
        request.number = number
        restore()

    for number in before:
        signal.signal(number, note)
    try:
        yield
    finally:
        restore()
