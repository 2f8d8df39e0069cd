"""A contestant: our training step."""

import json
import statistics
import sys
import time

import keras
import tensorflow as tf

from byol_tf.benchmarks.alternation import answer
from byol_tf.benchmarks.memory import peak, resident
from byol_tf.model.byol import BYOL
from byol_tf.model.resnet import ResNet
from byol_tf.optim.lars import LARS
from byol_tf.training import threads


def main() -> None:
    """Builds what the first argument says, and answers questions."""
    setting = json.loads(sys.argv[1])
    threads.side_by_side()
    before = resident()
    contestant = OurStep(**setting)
    answer(
        {
            "steps": contestant.steps,
            "parts": contestant.parts,
            "flops": contestant.flops,
            "memory": lambda: peak() - before,
        }
    )


class OurStep:
    """BYOL on random images.

    Args:
      depth: of the ResNet.
      size: of the images, in pixels.
      batch: images.
      hidden: hidden length of the heads.
      projection: their output length.
      precision: a dtype policy.
      optimizer: "lars", or "sgd" for Keras's without momentum.
      augmented: whether a step begins with images, in uint8, or with views.
      normalization: see `ResNet`, as for the next.
      recompute: whether blocks run twice, for less memory.
    """

    def __init__(
        self,
        depth: int,
        size: int,
        batch: int,
        hidden: int,
        projection: int,
        precision: str = "float32",
        optimizer: str = "lars",
        augmented: bool = False,
        normalization: str = "batch",
        recompute: bool = False,
    ):
        self.model = BYOL(
            ResNet(
                depth,
                normalization=normalization,
                recompute=recompute,
                dtype=precision,
            ),
            hidden,
            projection,
            total_steps=10**6,
            normalization=normalization,
            dtype=precision,
        )
        optimizers = {
            "lars": lambda: LARS(1e-3, weight_decay=1e-6),
            "sgd": lambda: keras.optimizers.SGD(1e-3),
        }
        self.model.compile(optimizers[optimizer]())
        self.model.optimizer.build(self.model.trainable_variables)
        shape = [batch, size, size, 3]
        self._views = [tf.random.uniform(shape, seed=seed) for seed in (0, 1)]
        self._images = tf.cast(255 * self._views[0], tf.uint8)
        if augmented:
            self._step = tf.function(
                lambda: self.model.train_step(self._images)
            )
        else:
            self._step = tf.function(lambda: self.model.update(*self._views))

    def steps(self, count: int) -> list[float]:
        """The seconds of each of so many steps."""
        return [_seconds(self._step) for _ in range(count)]

    def parts(self, rounds: int) -> dict[str, float]:
        """Median seconds of the parts of a step, each on its own by turns.

        `forward_and_backward` is all but the augmentation, the optimizer and
        the moving average; on several cores its parts run side by side.
        """
        model, views = self.model, self._views
        functions = {
            "augmentation": lambda: model.two_views(self._images),
            "target_forward": lambda: _all(model.target, "projection", views),
            "online_forward": lambda: _all(model.online, "prediction", views),
            "forward_and_backward": lambda: model.loss_and_gradients(*views),
            "step": lambda: model.update(*views),
        }
        functions = {
            name: tf.function(function) for name, function in functions.items()
        }
        seconds = {name: [] for name in functions}
        for turn in range(rounds + 1):
            for name, function in functions.items():
                elapsed = _seconds(function)
                if turn:  # The first compiles.
                    seconds[name].append(elapsed)
        return {name: statistics.median(s) for name, s in seconds.items()}

    def flops(self) -> int:
        """Floating-point operations of a step's graph, without augmentation."""
        views = [tf.TensorSpec(view.shape) for view in self._views]
        graph = tf.function(self.model.update).get_concrete_function(*views)
        profiler = tf.compat.v1.profiler
        options = profiler.ProfileOptionBuilder.float_operation()
        options["output"] = "none"
        return profiler.profile(graph.graph, options=options).total_float_ops


def _all(network, name: str, views):
    return [outputs[name] for outputs in network.of_views(*views)]


def _seconds(function) -> float:
    """Until one of its results can be read."""
    start = time.perf_counter()
    result = tf.nest.flatten(function())[0]
    result.numpy()
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
