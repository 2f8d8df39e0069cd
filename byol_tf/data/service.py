"""`--data_service`: images that other machines read and crop.

The workers of a tf.data service share out the steps of the stream among them
and send each step's batch when it is ready; here they are put in order again.
What does not come, because a worker was lost, or cannot be made there, is made
here: image and crops are functions of seed and position, so they are the same.
"""

import itertools
import socket
import sys
import threading
import time
from collections.abc import Callable

import numpy as np
import tensorflow as tf
import tqdm

from byol_tf.config import Config, ConfigError
from byol_tf.data import images
from byol_tf.data.loading import load_or_another
from byol_tf.data.sources import (
    DAMAGED,
    ArraySource,
    EncodedSource,
    Source,
    damaged,
)

# Seconds to wait for a batch before it is made here.
PATIENCE = 20

# Batches that wait for an earlier one: so many bytes, but at least so many.
MAX_WAITING_BYTES = 2**31
MIN_WAITING = 4

# Images that one worker of the service reads and decodes at once, at most.
_CALLS = 64

# Seconds between two attempts to reach the service; how long one may take.
_RETRY = 5
_CONNECT_TIMEOUT = 5


def served_batches(
    address: str,
    source: EncodedSource,
    draw: Callable,
    load: Callable,
    first_step: int,
    parallel_calls: int,
) -> tf.data.Dataset:
    """The endless stream of batches, as the workers of tf.data service send it.

    Args:
      address: HOST:PORT of the service's dispatcher.
      source: of the images; the workers see its files under the same paths.
      draw: step -> (numbers of its images [n], random numbers [n, …]).
      load: (number of an image, its random numbers, what decodes the file) ->
        (float32 crops, int32 label), in a graph.
      first_step: steps before it are left out.
      parallel_calls: of the images that must be read here.
    """

    def served(first_step: int) -> tf.data.Dataset:
        return _batches_there(draw, load, first_step).apply(
            tf.data.experimental.service.distribute(
                tf.data.experimental.service.ShardingPolicy.DYNAMIC,
                f"grpc://{address}",
                compression=None,
            )
        )

    @tf.function(
        input_signature=[
            tf.TensorSpec([], tf.int64),
            tf.TensorSpec([None], tf.int64),
        ]
    )
    def load_here(step, places):
        numbers, draws = draw(step)
        examples = tf.data.Dataset.from_tensor_slices(
            (tf.gather(numbers, places), tf.gather(draws, places))
        )
        loaded = load_or_another(source, examples, load, parallel_calls)
        return loaded.batch(tf.size(places, tf.int64)).get_single_element()

    _, *spec = _batches_there(draw, load, first_step).element_spec
    size = sum(each.shape.num_elements() * each.dtype.size for each in spec)
    most = max(MIN_WAITING, MAX_WAITING_BYTES // size)

    def batches():
        arrivals = _Arrivals(served, first_step, most, address)
        try:
            for step in itertools.count(first_step):
                batch = arrivals.take(step)
                if batch is None:
                    crops, labels = load_here(step, range(spec[1].shape[0]))
                else:
                    crops, labels = batch
                    (missing,) = np.nonzero(damaged(labels))
                    if missing.size:
                        crops, labels = crops.copy(), labels.copy()
                        crops[missing], labels[missing] = load_here(
                            step, missing
                        )
                yield crops, labels
        finally:
            arrivals.close()

    # What is known of a batch when a graph is made of it is what is known of
    # one made here; else the graphs would round differently.
    signature = tuple(
        tf.TensorSpec([None, *each.shape[1:]], each.dtype) for each in spec
    )
    stream = tf.data.Dataset.from_generator(batches, output_signature=signature)
    return stream.prefetch(tf.data.AUTOTUNE)


def check_service(config: Config, source: Source) -> None:
    """Raises ConfigError if --data_service, if given, cannot send images."""
    if not config.data_service:
        return
    if isinstance(source, ArraySource):
        raise ConfigError(
            "--data_service sends images that are read from files, but those "
            f"of --dataset={config.dataset} are in memory: leave it out, or "
            "keep files on the disk by --in_memory_gb=0."
        )
    address = config.data_service
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host, int(port)), _CONNECT_TIMEOUT).close()
    except OSError as error:
        raise ConfigError(
            f"--data_service={address} is not reached ({error}); "
            "start one by `python -m byol_tf.data_server dispatcher "
            f"--port={port}`."
        ) from error


def _batches_there(draw, load, first_step: int) -> tf.data.Dataset:
    """What the service computes: batches from a step on, with their step.

    There is no Python in the graph, for another process could not run it. An
    image that cannot be loaded so is labelled DAMAGED.
    """

    def examples_of(step):
        numbers, draws = draw(step)
        return tf.fill(tf.shape(numbers), step), numbers, draws

    def one(step, number, draws):
        def load_there(step, number, draws):
            return step, *load(number, draws, images.decode_elsewhere)

        example = tf.data.Dataset.from_tensors((step, number, draws))
        loaded = example.map(load_there)
        _, crops, label = loaded.element_spec

        def mark(step, number, draws):
            black = tf.zeros(crops.shape, crops.dtype)
            return step, black, tf.fill(label.shape, DAMAGED)

        return loaded.ignore_errors().concatenate(example.map(mark)).take(1)

    # Each step is given to one worker: a split of the service is an element of
    # the first data set.
    steps = tf.data.Dataset.range(first_step, np.iinfo(np.int64).max)
    examples = steps.map(examples_of)
    share = examples.element_spec[1].shape[0]
    loaded = examples.unbatch().interleave(
        one,
        cycle_length=_CALLS,
        num_parallel_calls=tf.data.AUTOTUNE,
        deterministic=True,
    )
    batches = loaded.batch(share, drop_remainder=True)
    return batches.map(lambda step, crops, labels: (step[0], crops, labels))


class _Arrivals:
    """What the service has sent and was not used yet, by step.

    Args:
      served: first step -> the service's stream of (step, crops, labels).
      first_step: that will be asked for.
      most: number of batches to keep.
      address: of the service, for messages.
    """

    def __init__(
        self,
        served: Callable[[int], tf.data.Dataset],
        first_step: int,
        most: int,
        address: str,
    ):
        self._served = served
        self._wanted = first_step
        self._most = most
        self._address = address
        self._batches = {}
        self._answers = True  # Nothing has been waited for in vain, lately.
        self._closed = False
        self._changed = threading.Condition()
        threading.Thread(target=self._receive, daemon=True).start()

    def take(self, step: int) -> tuple[np.ndarray, np.ndarray] | None:
        """The batch of a step, the one after that of the last call.

        Returns:
          None if it has to be made here: the service does not answer, or sends
          later ones only.
        """

        def decided():
            return step in self._batches or len(self._batches) >= self._most

        with self._changed:
            came = self._changed.wait_for(
                decided, PATIENCE if self._answers else 0
            )
            if not came and self._answers and not self._batches:
                self._answers = False
                self._say("has sent nothing for a while; images are made here")
            self._wanted = step + 1
            batch = self._batches.pop(step, None)
            self._changed.notify_all()
            return batch

    def close(self) -> None:
        """Ends the thread that receives, with what it waits for."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def _receive(self) -> None:
        while not self._closed:
            try:
                for step, *batch in self._served(self._wanted):
                    self._put(int(step), [each.numpy() for each in batch])
                    if self._closed:
                        return
            except tf.errors.OpError as error:
                reason = error.message or type(error).__name__
                self._say(f"fails: {reason.splitlines()[0]}")
            time.sleep(_RETRY)

    def _put(self, step: int, batch) -> None:
        with self._changed:
            if step >= self._wanted:  # Else it was made here.
                if not self._answers:
                    self._answers = True
                    self._say("sends images again")
                self._batches[step] = batch
                self._changed.notify_all()
            self._changed.wait_for(
                lambda: self._closed or len(self._batches) < self._most
            )

    def _say(self, what: str) -> None:
        tqdm.tqdm.write(
            f"byol_tf: --data_service={self._address} {what}.", file=sys.stderr
        )
