"""The paper's linear evaluation: a classifier on frozen features.

Source: arXiv 2006.07733, section 4 and appendix C; the official
`byol/eval_experiment.py` and `byol/configs/eval.py`.
"""

from collections.abc import Callable, Iterable

import keras
import numpy as np
import tensorflow as tf
import tqdm

from byol_tf.evaluation.kept_results import KeptState
from byol_tf.optim.nesterov import Nesterov
from byol_tf.optim.schedules import WarmupCosine

# Learning rates of a batch of 256 images that the paper chooses from.
BASE_RATES = (0.4, 0.3, 0.2, 0.1, 0.05)


class LinearClassifiers:
    """Several linear classifiers on the same features, one for each rate.

    They learn side by side, so that the features are computed once: by
    Nesterov's momentum, without weight decay, each by a cosine schedule of its
    own rate. Nothing of one reaches another, nor the encoder.

    Args:
      num_features: d.
      num_classes: c.
      base_rates: learning rates of a batch of 256 images, r of them.
      batch_size: images in a step; the rates grow with it.
      total_steps: after which the rates are 0.
      seed: of the initial kernel, which is the same for all rates.

    Attributes:
      base_rates: see above, as for the next.
      batch_size: images in a step.
      kernels: float32 [d, r, c].
      biases: float32 [r, c].
    """

    def __init__(
        self,
        num_features: int,
        num_classes: int,
        *,
        base_rates: tuple[float, ...] = BASE_RATES,
        batch_size: int,
        total_steps: int,
        seed: int = 0,
    ):
        self.base_rates = tuple(base_rates)
        self.batch_size = batch_size
        self._total_steps = total_steps
        # As dm-haiku's Linear: cut at two deviations of 1 / sqrt(d).
        kernel = keras.initializers.TruncatedNormal(
            stddev=num_features**-0.5, seed=seed
        )((num_features, 1, num_classes))
        count = len(self.base_rates)
        self.kernels = keras.Variable(tf.tile(kernel, [1, count, 1]))
        self.biases = keras.Variable(tf.zeros([count, num_classes]))
        self._optimizer = Nesterov(
            WarmupCosine(1.0, batch_size, total_steps=total_steps)
        )
        self._optimizer.build([self.kernels, self.biases])

    @property
    def variables(self) -> list[keras.Variable]:
        """The classifiers', and their optimizer's."""
        return [self.kernels, self.biases, *self._optimizer.variables]

    def logits(self, features: tf.Tensor) -> tf.Tensor:
        """float32 [batch, d] -> float32 [batch, r, c]."""
        return tf.tensordot(features, self.kernels, 1) + self.biases

    def update(self, features: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
        """One step on features [batch, d] and labels [batch].

        Returns:
          [r], the mean cross-entropy of each classifier before the step.
        """
        variables = [self.kernels, self.biases]
        with tf.GradientTape() as tape:
            logits = self.logits(features)
            shape = [1, len(self.base_rates)]
            losses = tf.reduce_mean(
                tf.nn.sparse_softmax_cross_entropy_with_logits(
                    tf.tile(labels[:, None], shape), logits
                ),
                axis=0,
            )
            # Each classifier's gradient is that of its own loss. Without
            # weight decay a factor of the loss is one of the learning rate.
            loss = tf.reduce_sum(tf.constant(self.base_rates) * losses)
        self._optimizer.apply(tape.gradient(loss, variables), variables)
        return losses

    def fit(
        self,
        encoder,
        batches_from: Callable[[int], Iterable],
        title: str = "linear",
        kept: KeptState | None = None,
    ) -> None:
        """Takes the steps up to `total_steps`.

        Args:
          encoder: images -> features [batch, d]; it is run as for inference,
            with its moving averages.
          batches_from: number of steps to leave out -> batches of (images,
            labels), augmented; as many as steps, or more.
          title: of the progress bar.
          kept: of `variables`, to go on from if the process was killed.

        Raises:
          ValueError: if features or a loss are not finite.
        """

        @tf.function(reduce_retracing=True)
        def step(images, labels):
            features = encoder(images, training=False)
            return self.update(tf.cast(features, tf.float32), labels)

        if kept is not None:
            kept.restore()
        first_step = int(self._optimizer.iterations)
        batches = iter(batches_from(first_step))
        with tqdm.tqdm(
            total=self._total_steps,
            initial=first_step,
            desc=title,
            unit="step",
            leave=False,
        ) as bar:
            for _ in range(first_step, self._total_steps):
                losses = step(*next(batches)).numpy()
                if not np.isfinite(losses).all():
                    raise ValueError(
                        "the linear classifiers' losses are not finite: "
                        "features are NaN or infinite, or grow without limit."
                    )
                bar.set_postfix(loss=f"{losses.min():.3f}", refresh=False)
                bar.update()
                if kept is not None:
                    kept.write_at_times()
        if kept is not None:
            kept.write()

    def scores(self, features: np.ndarray, chosen: int) -> np.ndarray:
        """One classifier's logits, [n, c], of features [n, d].

        Raises:
          ValueError: if features are so large that they are not finite.
        """
        kernel, bias = self.kernels[:, chosen], self.biases[chosen]
        with np.errstate(over="ignore", invalid="ignore"):
            logits = np.asarray(features, np.float32) @ kernel.numpy()
        if not np.isfinite(logits).all():
            raise ValueError(
                "the linear classifiers' scores are not finite: features are "
                "too large for float32."
            )
        return logits + bias.numpy()
