"""BYOL with parts taken out, exchanged or added, to see what each is good for.

Source: arXiv 2006.07733, section 5 and its appendices; the authors' talk at
NeurIPS 2020. Recipes: flags/ablations/.
"""

import dataclasses

import keras
import tensorflow as tf

from byol_tf.model import losses
from byol_tf.model.byol import BYOL
from byol_tf.optim.schedules import warmup_tau

# Of the linear predictor's ridge, as a share of the mean eigenvalue.
RIDGE = 1e-4


@dataclasses.dataclass(frozen=True)
class Variant:
    """In what a model differs from BYOL; by default in nothing.

    Attributes:
      tau_schedule: "cosine", from BYOL's `tau_base` to 1; "constant"; or
        "warmup", from there to `tau_end` in a straight line, and constant.
      tau_end: see `tau_schedule`; in [0, 1].
      tau_warmup_steps: length of that line, at least 1.
      predictor: "mlp"; "none"; or "optimal_linear", see `linear_predictor`.
      predictor_rate: factor on the learning rate of the predictor.
      target: "moving_average"; or "online", and the targets are the online
        network's own projections, through which gradient flows, as in SimCLR.
      negatives_weight: beta, weight of `losses.repulsion_loss`. With predictor
        "none", target "online" and 1 the loss is SimCLR's.
      temperature: its alpha.
    """

    tau_schedule: str = "cosine"
    tau_end: float = 0.999
    tau_warmup_steps: int = 1000
    predictor: str = "mlp"
    predictor_rate: float = 1.0
    target: str = "moving_average"
    negatives_weight: float = 0.0
    temperature: float = 0.1

    @property
    def solves_predictor(self) -> bool:
        """Whether the predictor is solved for, and no layer of the network."""
        return self.predictor == "optimal_linear"


BYOL_ITSELF = Variant()


@keras.saving.register_keras_serializable(package="byol_tf")
class VariedBYOL(BYOL):
    """A variant of BYOL.

    Negatives and the linear predictor are of the whole batch, over all
    replicas; with `micro_batches`, of a part of it over all replicas.

    Args:
      *args: see `BYOL`.
      variant: in what it differs.
      **kwargs: see `BYOL`.
    """

    def __init__(self, *args, variant: Variant = BYOL_ITSELF, **kwargs):
        self.variant = variant  # Before the networks are made.
        super().__init__(*args, **kwargs)

    def network(self, encoder, name):
        has_predictor = self.variant.predictor == "mlp"
        return super().network(encoder, name, predictor=has_predictor)

    def tau(self, step):
        variant = self.variant
        if variant.tau_schedule == "constant":
            return tf.constant(self.tau_base, tf.float64)
        if variant.tau_schedule == "warmup":
            ends = (self.tau_base, variant.tau_end)
            return warmup_tau(step, *ends, variant.tau_warmup_steps)
        return super().tau(step)

    def step_along(self, gradients):
        """The predictor's step is `predictor_rate` times the optimizer's."""
        rate, predictor = self.variant.predictor_rate, self.online.predictor
        if rate == 1 or predictor is None:
            super().step_along(gradients)
            return
        parameters = predictor.trainable_variables
        before = [tf.identity(parameter) for parameter in parameters]
        super().step_along(gradients)
        for parameter, start in zip(parameters, before):
            parameter.assign(start + rate * (parameter - start))

    def representation_loss(self, online1, online2, target1, target2):
        """The sum over both views, and the negatives' if they have a weight."""
        variant = self.variant
        if variant.target == "online":
            targets1, targets2 = online1["projection"], online2["projection"]
        else:
            targets1 = tf.stop_gradient(target1["projection"])
            targets2 = tf.stop_gradient(target2["projection"])
        predictions1 = online1["prediction"]
        predictions2 = online2["prediction"]
        if variant.solves_predictor:
            matrix = linear_predictor(
                tf.concat([predictions1, predictions2], 0),
                tf.concat([targets2, targets1], 0),
            )
            predictions1 = tf.matmul(predictions1, matrix)
            predictions2 = tf.matmul(predictions2, matrix)
        loss = losses.regression_loss(predictions1, targets2)
        loss += losses.regression_loss(predictions2, targets1)
        if variant.negatives_weight:
            all1, all2 = of_all_replicas(targets1), of_all_replicas(targets2)
            context = tf.distribute.get_replica_context()
            first = context.replica_id_in_sync_group * tf.shape(targets1)[0]
            others = (variant.temperature, first)
            loss += variant.negatives_weight * (
                losses.repulsion_loss(predictions1, all1, all2, *others)
                + losses.repulsion_loss(predictions2, all2, all1, *others)
            )
        return tf.reduce_mean(loss)

    def get_config(self):
        return {
            **super().get_config(),
            "variant": dataclasses.asdict(self.variant),
        }

    @classmethod
    def from_config(cls, config, custom_objects=None):
        variant = Variant(**config["variant"])
        config = config | {"variant": variant}
        return super().from_config(config, custom_objects)


def linear_predictor(projections: tf.Tensor, targets: tf.Tensor) -> tf.Tensor:
    """The matrix that best predicts a batch's targets: least squares.

    W = (Z'Z + ridge)^-1 Z'T, where T are the targets' directions, which is what
    the loss compares, over all replicas. No gradient flows through it.

    Args:
      projections: Z, float [n, d], a replica's part.
      targets: T before its normalisation, float [n, d].

    Returns:
      W, [d, d].
    """
    z = tf.cast(tf.stop_gradient(projections), tf.float64)
    t = tf.stop_gradient(losses.l2_normalize(targets))
    products = tf.stack(
        [
            tf.matmul(z, z, transpose_a=True),
            tf.matmul(z, tf.cast(t, tf.float64), transpose_a=True),
        ]
    )
    if tf.distribute.get_strategy().num_replicas_in_sync > 1:
        products = tf.distribute.get_replica_context().all_reduce(
            tf.distribute.ReduceOp.SUM, products
        )
    size = projections.shape[-1]
    ridge = RIDGE * tf.linalg.trace(products[0]) / size + 1e-12
    identity = tf.eye(size, dtype=tf.float64)
    solved = tf.linalg.solve(products[0] + ridge * identity, products[1])
    return tf.cast(tf.stop_gradient(solved), projections.dtype)


def of_all_replicas(part: tf.Tensor) -> tf.Tensor:
    """The parts [n, d] of all replicas, [replicas * n, d], in their order.

    A gradient flows back to each replica's part, from all of them.
    """
    if tf.distribute.get_strategy().num_replicas_in_sync == 1:
        return part
    return tf.distribute.get_replica_context().all_gather(part, axis=0)
