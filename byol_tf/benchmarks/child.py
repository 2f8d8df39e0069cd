"""A command in a process of its own, which does not outlive a stopped parent.

A terminal's Ctrl-C reaches all processes of the terminal, and a training that
gets a second signal stops at once, without a checkpoint. So the child has a
session of its own, where it gets what its parent passes on, and nothing else.
"""

import contextlib
import signal
import subprocess

# Ctrl-C, what a scheduler sends before it kills, and a terminal that closes.
STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
# How a process ends that was told to: by itself, or where it stood.
STOPPED = (128 + signal.SIGTERM, -signal.SIGTERM)
_SECONDS_BETWEEN_LOOKS = 0.2
# Signals so close are one: `timeout` sends its own to the process, then to all.
_SECONDS_OF_ONE = 2.0


class Stopped(Exception):
    """A command did not come to its end, for a signal.

    Args:
      number: of the signal.
    """

    def __init__(self, number: int):
        self.number = number
        super().__init__(f"interrupted by {signal.Signals(number).name}")


@contextlib.contextmanager
def noting_stops():
    """Within it, signals to stop end nothing: they go to the list it gives.

    A signal that the process was started to ignore, as by nohup, stays
    ignored.
    """
    noted = []
    before = {number: signal.getsignal(number) for number in STOP_SIGNALS}
    before = {n: h for n, h in before.items() if h != signal.SIG_IGN}
    for number in before:
        signal.signal(number, lambda number, frame: noted.append(number))
    try:
        yield noted
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def run(command: list[str], noted: list[int], **options) -> int:
    """Runs a command to its end, and tells it once to stop, if a signal comes.

    Whichever signal came, the child gets SIGTERM: a training writes its
    checkpoint, and all else ends where it stands. A second signal, two seconds
    later, is one for the child, too, which then stops at once.

    Args:
      command: and its arguments.
      noted: the signals, see `noting_stops`; more may come while it runs.
      **options: of `subprocess.Popen`.

    Returns:
      The exit code.

    Raises:
      Stopped: if it ended by the signal, or was not begun for it.
    """
    if noted:
        raise Stopped(noted[0])
    process = subprocess.Popen(command, start_new_session=True, **options)
    passed_on = 0
    while process.returncode is None:
        is_new = len(noted) > passed_on
        if is_new:
            process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(_SECONDS_OF_ONE if is_new else _SECONDS_BETWEEN_LOOKS)
        if is_new:
            passed_on = len(noted)
    if noted and process.returncode in STOPPED:
        raise Stopped(noted[0])
    return process.returncode
