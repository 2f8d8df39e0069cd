"""A signal to one machine stops all of them, after the same step."""

import time

import tensorflow as tf

from byol_tf.training.signals import STOP_SIGNALS, StopRequest
from byol_tf.training.strategy import summing

# About so long machines go on before they ask each other again. A sum over two
# processes of one machine took 2.5 ms, so little of the time is spent on it.
SECONDS = 1.0


class SharedStopRequest(StopRequest):
    """Whether a signal has asked any machine of a strategy to stop.

    The machines ask each other by a sum of a few numbers, about once a second:
    the times are in it as well, so that all know after which step is the next.

    Args:
      strategy: over all machines.
      total_steps: after which they ask in any case.
    """

    def __init__(self, strategy: tf.distribute.Strategy, total_steps: int):
        super().__init__()
        self._replicas = strategy.num_replicas_in_sync
        self._total_steps = total_steps
        self._next_step = 0
        self._step, self._time = None, time.monotonic()
        self._summed = summing(strategy)

    def agreed(self, step: int) -> int | None:
        """All machines have to call it after the same steps."""
        if step < self._next_step:
            return None
        steps = 0 if self._step is None else step - self._step
        seconds = time.monotonic() - self._time
        self._step, self._time = step, self._time + seconds
        own = [int(self.number == number) for number in STOP_SIGNALS]
        # Whole numbers, whose sum is the same in whatever order.
        numbers = tf.constant([*own, round(1e6 * seconds)], tf.int64)
        *counts, total = self._summed(numbers).numpy()
        seconds = max(int(total), 1) / 1e6 / self._replicas
        pause = max(int(steps * SECONDS / seconds), 1)
        self._next_step = min(step + pause, self._total_steps)
        for number, count in zip(STOP_SIGNALS, counts):
            if count:
                return self.number or number
        return None
