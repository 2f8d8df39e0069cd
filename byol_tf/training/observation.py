"""What the collapse doctor looks at: facts and figures of a model as it learns.

They are taken on one fixed batch of images, and change nothing: a training
that is looked at more often ends with the same parameters.
"""

import dataclasses
import math

import keras
import numpy as np
import tensorflow as tf

from byol_tf.model.batch_free import Affine
from byol_tf.model.byol import BYOL
from byol_tf.model.distributed_fit import sublayers
from byol_tf.model.normalization import BatchNorm
from byol_tf.model.variants import BYOL_ITSELF
from byol_tf.optim.lars import LARS

# Images of the batch on which gradients are measured, at most.
IMAGES = 64

# Optimizers whose step on a weight is about the learning rate, whatever the
# gradient's size.
_STEP_IS_THE_RATE = (
    keras.optimizers.Adam,
    keras.optimizers.Adamax,
    keras.optimizers.Nadam,
    keras.optimizers.RMSprop,
    keras.optimizers.Lion,
)


@dataclasses.dataclass(frozen=True)
class Observation:
    """What is seen of a model after a step.

    Kernels are the trainable weights of rank 2 and more of encoder, projector
    and predictor. A figure that cannot be computed is NaN.

    Attributes:
      step: number of steps done.
      steps_since: of these, after the last observation.
      progress_before: share of the training done at the last observation.
      loss: of the step.
      tau: of the step; in [0, 1].
      learning_rate: of the step.
      optimizer: name of its class.
      projection_size: length of the projections, d.
      projections: `collapse.figures` of projections of many images.
      gradient_norm: global l2 norm of the loss's gradient, all of the online
        network but the classifier.
      encoder_gradient_norm: of the encoder alone.
      trust_ratios: least, median and greatest of the kernels under LARS; empty
        under another optimizer.
      relative_update: what a step changes a kernel by, as a share of its norm,
        the median over kernels. Under LARS, when momentum has built up; under
        others, of a kernel of the norm that it began with, because too long a
        step blows it up, and where BatchNorm follows, the gradient goes down
        as the norm goes up.
      target_moved: change of the target's kernels since the last observation,
        as a share of their norm.
      target_lag: distance of the target's kernels from the online network's,
        as a share of the target's norm.
      trainable_kernels, encoder_kernels: number of the encoder's kernels that
        learn, and of all.
      predictor_is_identity: whether predictions equal projections.
      predictor_is_fixed: whether there is a predictor, and it does not learn.
      target_is_online: whether the targets are of the online network, through
        which gradient flows.
      negatives_weight: of the other images of a batch, in the loss.
      unnormalized: whether layers of the online network have a scale and an
        offset in BatchNorm's place, and nothing more.
      views_are_equal: whether the two views are the same images.
      idle_batch_norms: for `online` and `target`, how many BatchNorm layers
        take no notice of the batch in a training step.
      batch_norms: how many there are in each.
      images_are_finite, parameters_are_finite: whether there is no NaN or inf.
      unscaled_float16: whether it computes in float16 without a loss scale.
    """

    step: int
    steps_since: int
    progress_before: float
    loss: float
    tau: float
    learning_rate: float
    optimizer: str
    projection_size: int
    projections: dict[str, float]
    gradient_norm: float
    encoder_gradient_norm: float
    trust_ratios: tuple[float, ...]
    relative_update: float
    target_moved: float
    target_lag: float
    trainable_kernels: int
    encoder_kernels: int
    predictor_is_identity: bool
    predictor_is_fixed: bool
    target_is_online: bool
    negatives_weight: float
    unnormalized: bool
    views_are_equal: bool
    idle_batch_norms: dict[str, int]
    batch_norms: dict[str, int]
    images_are_finite: bool
    parameters_are_finite: bool
    unscaled_float16: bool

    @property
    def is_finite(self) -> bool:
        """Whether loss, parameters and projections are."""
        values = (self.loss, *self.projections.values())
        return self.parameters_are_finite and all(map(math.isfinite, values))

    @property
    def figures(self) -> dict[str, float]:
        """The columns of metrics.jsonl: functions of the state alone."""
        names = ("trust_ratio_min", "trust_ratio_median", "trust_ratio_max")
        return self.projections | {
            "gradient_norm": self.gradient_norm,
            "encoder_gradient_norm": self.encoder_gradient_norm,
            **dict(zip(names, self.trust_ratios)),
            "relative_update": self.relative_update,
            "target_lag": self.target_lag,
        }


class Observer:
    """Observes one model, and remembers where its target was.

    It keeps a copy of the target's kernels in the host's memory.

    Args:
      model: compiled.
      images: [n, height, width, 1 or 3] as `BYOL` takes them in `fit`; at most
        `IMAGES` of them are used.
    """

    def __init__(self, model: BYOL, images: np.ndarray):
        self._model = model
        self._variant = getattr(model, "variant", BYOL_ITSELF)
        self._images = tf.convert_to_tensor(images[:IMAGES])
        self._sizes = {
            kernel.path: max(_norm([kernel]), 1e-12)
            for kernel in self._online_kernels()
        }
        self._remember(int(model.optimizer.iterations.numpy()))

    def observe(
        self,
        step: int,
        logs: dict[str, float],
        projections: dict[str, float],
    ) -> Observation:
        """What is to be seen after a step.

        Args:
          step: number of steps done.
          logs: of the step, as `BYOL.update` returns them.
          projections: `collapse.figures` of projections of many images.
        """
        model, optimizer = self._model, self._optimizer()
        moved = [
            now.numpy() - before
            for now, before in zip(self._kernels(model.target), self._before)
        ]
        behind = [
            target.numpy() - online.numpy()
            for target, online in zip(
                self._kernels(model.target), self._kernels(model.online)
            )
        ]
        size = _norm(self._kernels(model.target))
        encoder_kernels = _kernels(model.encoder.weights)
        predictor, variant = model.online.predictor, self._variant
        observation = Observation(
            step=step,
            steps_since=step - self._step,
            progress_before=self._step / model.total_steps,
            loss=float(logs["loss"]),
            tau=float(logs["tau"]),
            learning_rate=float(logs["learning_rate"]),
            optimizer=type(optimizer).__name__,
            projection_size=model.projection_size,
            projections=projections,
            target_moved=_norm(moved) / max(size, 1e-12),
            target_lag=_norm(behind) / max(size, 1e-12),
            encoder_kernels=len(encoder_kernels),
            trainable_kernels=sum(k.trainable for k in encoder_kernels),
            predictor_is_fixed=predictor is not None
            and bool(_kernels(predictor.weights))
            and not (predictor.trainable_variables and variant.predictor_rate),
            target_is_online=variant.target == "online",
            negatives_weight=variant.negatives_weight,
            unnormalized=any(
                type(layer) is Affine
                for part in _parts(model.online)
                for layer in sublayers(part)
            ),
            images_are_finite=bool(_is_finite(self._images)),
            parameters_are_finite=self.parameters_are_finite(),
            unscaled_float16=model.compute_dtype == "float16"
            and optimizer is model.optimizer,
            **self._probe(float(logs["learning_rate"])),
        )
        self._remember(step)
        return observation

    def parameters_are_finite(self) -> bool:
        """Whether no weight of the two networks is NaN or infinite."""
        return all(bool(_is_finite(w)) for w in self._model.weights)

    def _optimizer(self):
        """The optimizer, inside of one that scales the loss."""
        optimizer = self._model.optimizer
        return getattr(optimizer, "inner_optimizer", optimizer)

    def _kernels(self, network):
        """The kernels that the moving average is of, in either network."""
        return [
            weight
            for weight, online in zip(
                network.weights, self._model.online.weights
            )
            if weight.shape.rank > 1
        ]

    def _probe(self, learning_rate: float) -> dict:
        """What a training step on the images would be like; it is not taken."""
        model, optimizer = self._model, self._optimizer()
        # By their parts: Keras goes on to list a layer that was replaced.
        target = (model.target.encoder, model.target.projector)
        layers = {
            "online": _batch_norms(_parts(model.online)),
            "target": _batch_norms(target),
        }
        with keras.StatelessScope() as scope:  # Keeps what would be assigned.
            view1, view2 = model.two_views(self._images)
            _, gradients = model.loss_and_gradients(view1, view2)
            online = model.online(view1, training=True)
            idle = {
                name: sum(
                    scope.get_current_value(layer.moving_mean) is None
                    for layer in members
                )
                for name, members in layers.items()
            }
        scale = float(model.optimizer.scale_loss(tf.ones([])))
        gradients = {
            variable.path: tf.cast(gradient, variable.dtype) / scale
            for variable, gradient in zip(
                model.online.trainable_variables, gradients
            )
            if gradient is not None
        }

        def norm_of(part):
            return _norm(
                [
                    gradients[variable.path]
                    for variable in part.trainable_variables
                    if variable.path in gradients
                ]
            )

        pairs = [
            (kernel, gradients[kernel.path])
            for kernel in self._online_kernels()
            if kernel.path in gradients
        ]
        return {
            "predictor_is_identity": not self._variant.solves_predictor
            and bool(
                tf.reduce_all(online["prediction"] == online["projection"])
            ),
            "views_are_equal": bool(tf.reduce_all(view1 == view2)),
            "batch_norms": {n: len(members) for n, members in layers.items()},
            "idle_batch_norms": idle,
            "gradient_norm": math.hypot(*map(norm_of, _parts(model.online))),
            "encoder_gradient_norm": norm_of(model.encoder),
            "trust_ratios": _trust_ratios(optimizer, pairs),
            "relative_update": self._relative_update(learning_rate, pairs),
        }

    def _relative_update(self, learning_rate: float, pairs) -> float:
        """See `Observation`; pairs are of a kernel and its gradient."""
        optimizer = self._optimizer()
        if isinstance(optimizer, LARS):
            # A steady gradient adds up to this in the momentum buffer.
            momentum = optimizer.momentum
            return learning_rate * optimizer.trust_coefficient / (1 - momentum)
        return learning_rate * _median(
            math.sqrt(math.prod(kernel.shape)) / self._sizes[kernel.path]
            if isinstance(optimizer, _STEP_IS_THE_RATE)
            else _norm([gradient])
            * _norm([kernel])
            / self._sizes[kernel.path] ** 2
            for kernel, gradient in pairs
        )

    def _online_kernels(self) -> list:
        return [
            kernel
            for part in _parts(self._model.online)
            for kernel in _kernels(part.trainable_variables)
        ]

    def _remember(self, step: int) -> None:
        self._before = [
            kernel.numpy() for kernel in self._kernels(self._model.target)
        ]
        self._step = step


def _trust_ratios(optimizer, pairs) -> tuple[float, ...]:
    """Least, median and greatest over (kernel, gradient) pairs under LARS."""
    if not isinstance(optimizer, LARS) or not pairs:
        return ()
    ratios = [
        float(optimizer.trust_ratio(optimizer.decayed(gradient, k), k))
        for k, gradient in pairs
    ]
    return min(ratios), _median(ratios), max(ratios)


def _median(values) -> float:
    values = list(values)
    return float(np.median(values)) if values else 0.0


def _parts(online) -> tuple[keras.layers.Layer, ...]:
    """What the online network learns with, without the classifier."""
    parts = (online.encoder, online.projector, online.predictor)
    return tuple(part for part in parts if part is not None)


def _batch_norms(parts) -> list:
    kinds = (BatchNorm, keras.layers.BatchNormalization)
    return [
        layer
        for part in parts
        for layer in sublayers(part)
        if isinstance(layer, kinds)
    ]


def _kernels(variables) -> list:
    return [variable for variable in variables if variable.shape.rank > 1]


def _norm(arrays) -> float:
    """Global l2 norm."""
    return math.sqrt(sum(float(tf.norm(array)) ** 2 for array in arrays))


def _is_finite(array) -> tf.Tensor:
    return tf.reduce_all(tf.math.is_finite(tf.cast(array, tf.float32)))
