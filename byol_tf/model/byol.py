"""BYOL: bootstrap your own latent (arXiv 2006.07733).

Source: the paper's section 3.1, algorithm 1 and appendix J; the official
`byol/byol_experiment.py`.
"""

import dataclasses

import keras
import tensorflow as tf

from byol_tf import augment
from byol_tf.model import losses
from byol_tf.model.distributed_fit import DistributedFit
from byol_tf.model.heads import Network
from byol_tf.optim.overflow import agree_on_overflow
from byol_tf.optim.schedules import cosine_tau


@keras.saving.register_keras_serializable(package="byol_tf")
class BYOL(DistributedFit):
    """Learns an image encoder without labels, in `fit`.

    The online network predicts, from one view of an image, the projection that
    the target network makes of another. The target is a moving average of the
    online network. What is worth keeping afterwards is `encoder`.

    Args:
      encoder: a built Keras model, float images [batch, height, width, 3] in
        [0, 1] -> features [batch, d]. It becomes the online network's; the
        target's is a second one of the same configuration, with an
        initialisation of its own, as in the release.
      projector_hidden: hidden length of projector and predictor.
      projection_size: length of projections and predictions.
      tau_base: the target's decay rate at step 0, in [0, 1]; it follows
        `cosine_tau` to 1.
      total_steps: number of optimizer steps of the whole training, K.
      num_classes: of a linear classifier that learns beside, on features
        through which no gradient passes; None for none.
      image_size: height and width of the views; None for those of the images.
      recipes: the augmentations T and T'.
      micro_batches: in so many parts the gradient of a batch is computed, one
        after the other, for less memory; the optimizer and the target take one
        step. BatchNorm normalises by the statistics of a part, and its moving
        averages are updated by each.
      seed: of the augmentation; an image's views at step k are a function of
        seed, k and its place in the global batch.
      normalization: of projector and predictor; the encoder has its own.

    `fit` takes batches of images or (images, labels). Images are uint8 in
    [0, 255] or float in [0, 1], [batch, height, width, 1 or 3]; or two crops of
    each, [batch, 2, height, width, 1 or 3], see `augment.views`. Labels are
    int [batch]; -1 stands for an unknown one.
    """

    def __init__(
        self,
        encoder: keras.Model,
        projector_hidden: int = 4096,
        projection_size: int = 256,
        tau_base: float = 0.996,
        *,
        total_steps: int,
        num_classes: int | None = None,
        image_size: int | None = None,
        recipes: tuple[augment.Recipe, augment.Recipe] = (
            augment.T,
            augment.T_PRIME,
        ),
        micro_batches: int = 1,
        seed: int = 0,
        normalization: str = "batch",
        **kwargs,
    ):
        super().__init__(**kwargs)
        if not encoder.built:
            raise ValueError(
                "BYOL needs a built encoder: call it once on an image, or "
                "give its build() an input shape."
            )
        if not 0 <= tau_base <= 1:
            raise ValueError(f"BYOL: tau_base={tau_base} is not in [0, 1].")
        if micro_batches < 1 or micro_batches != int(micro_batches):
            raise ValueError(
                f"BYOL: micro_batches={micro_batches} is no whole number above "
                "0."
            )
        self.projector_hidden = projector_hidden
        self.projection_size = projection_size
        self.tau_base = tau_base
        self.total_steps = total_steps
        self.num_classes = num_classes
        self.image_size = image_size
        self.recipes = tuple(recipes)
        self.micro_batches = micro_batches
        self.seed = seed
        self.normalization = normalization

        self.online = self.network(encoder, "online")
        twin = type(encoder).from_config(encoder.get_config())
        self.target = self.network(twin, "target")
        # Not `target.trainable = False`: that would put an encoder's Keras
        # BatchNormalization in inference mode, and the target normalises by
        # batch statistics.
        for parameter in self.target.trainable_variables:
            parameter.trainable = False
        self.built = True

    def network(self, encoder: keras.Model, name: str, **options) -> Network:
        """The online or the target network on its encoder."""
        return Network(
            encoder,
            self.projector_hidden,
            self.projection_size,
            self.num_classes,
            self.normalization,
            name=name,
            dtype=self.dtype_policy,
            **options,
        )

    @property
    def encoder(self) -> keras.Model:
        """The online network's encoder."""
        return self.online.encoder

    def call(self, images, training=False):
        """The encoder's features of the images."""
        return self.encoder(images, training=training)

    def make_train_function(self, force=False):
        """See `DistributedFit`; refuses what an optimizer can do beside."""
        _check_optimizer(self.optimizer)
        with self.distribute_strategy.scope():  # Too late in a step's graph.
            self.optimizer.build(self.trainable_variables)
        super().make_train_function(force)

    def train_step(self, data):
        """One step on a batch of images or (images, labels), for `fit`."""
        images, labels, _ = keras.utils.unpack_x_y_sample_weight(data)
        view1, view2 = self.two_views(images)
        return self.update(view1, view2, labels)

    def two_views(self, images):
        """The current step's views: t(x) with t ~ T, t'(x) with t' ~ T'.

        Inside a replica of a distribution strategy `images` are its part of the
        global batch, and all parts must be equally long, as `fit` sees to, for
        the views to be those of a single device.
        """
        step = tf.cast(self.optimizer.iterations, tf.int32)
        replica = tf.distribute.get_replica_context().replica_id_in_sync_group
        return augment.views(
            images,
            tf.stack([tf.constant(self.seed), step]),
            self.image_size,
            self.recipes,
            first=replica * tf.shape(images)[0],
        )

    def forward(self, view1, view2):
        """What both networks make of two views, as in a training step.

        Nothing is updated: the BatchNorm statistics are as before.

        Args:
          view1: float [batch, height, width, 3] in [0, 1].
          view2: another view of the same images, of the same size.

        Returns:
          {"online": {...}, "target": {...}}, each with `embedding_view1`,
          `projection_view1`, `prediction_view1`, `logits_view1` (if there is a
          classifier) and the same for view 2; see `Network`.
        """
        with keras.StatelessScope():  # Keeps what BatchNorm would assign.
            return {
                network.name: {
                    f"{name}_{view}": value
                    for view, outputs in zip(
                        ("view1", "view2"), network.of_views(view1, view2)
                    )
                    for name, value in outputs.items()
                }
                for network in (self.online, self.target)
            }

    def update(self, view1, view2, labels=None):
        """One step on given views: algorithm 1 of the paper.

        Args:
          view1: float [batch, height, width, 3] in [0, 1].
          view2: another view of the same images, of the same size.
          labels: int [batch], -1 for unknown; only the classifier sees them.

        Returns:
          A dict of scalars: `loss` (the sum of the next two), `repr_loss` in
          [0, 8], `classif_loss` and `top1_accuracy` of the classifier on view
          1 (0 without labels), and the step's `tau` and `learning_rate`.
        """
        figures, gradients = self._in_micro_batches(view1, view2, labels)

        # theta <- optimizer(theta, gradient, learning rate).
        step = tf.convert_to_tensor(self.optimizer.iterations)
        learning_rate = tf.convert_to_tensor(self.optimizer.learning_rate)
        tau = tf.cast(self.tau(step), self.variable_dtype)
        if isinstance(self.optimizer, keras.optimizers.LossScaleOptimizer):
            gradients, overflowed = agree_on_overflow(gradients)
            tau = tf.where(overflowed, tf.ones_like(tau), tau)
        self.step_along(gradients)
        # A step that float16 makes void is one as well: batches are counted.
        self.optimizer.iterations.assign(step + 1)

        # Equation 1, with the new theta: xi <- tau xi + (1 - tau) theta.
        for online, target in zip(self.online.weights, self.target.weights):
            if online.trainable:
                target.assign(tau * target + (1 - tau) * online)

        return figures | {"tau": tau, "learning_rate": learning_rate}

    def tau(self, step):
        """The target's decay rate at a step (section 3.3)."""
        return cosine_tau(step, self.tau_base, self.total_steps)

    def step_along(self, gradients) -> None:
        """Lets the optimizer change the online network."""
        self.optimizer.apply(gradients, self.online.trainable_variables)

    def _in_micro_batches(self, view1, view2, labels):
        """`loss_and_gradients` of the batch, part by part; their means.

        Part k has the images k, k + micro_batches, …: on however many replicas
        these are the same ones.
        """
        count, totals = self.micro_batches, None
        labelled = self._labelled_per_part(labels)
        if labels is None:
            labels = tf.fill([tf.shape(view1)[0]], -1)
        for k in range(count):
            # Not before the one before is done: its memory is free then.
            with tf.control_dependencies(_tensors(totals)):
                part = (x[k::count] for x in (view1, view2, labels))
                of_part = self.loss_and_gradients(*part, labelled)
            totals = of_part if totals is None else _sum(totals, of_part)
        return tf.nest.map_structure(
            lambda total: None if total is None else total / count, totals
        )

    def _labelled_per_part(self, labels):
        """How many labels a micro-batch of a replica has, in the mean."""
        if labels is None or self.num_classes is None:
            return None
        labelled = losses.count_labels(labels)
        replicas = tf.distribute.get_strategy().num_replicas_in_sync
        if replicas > 1:
            labelled = tf.distribute.get_replica_context().all_reduce(
                tf.distribute.ReduceOp.MEAN, labelled
            )
        return labelled / self.micro_batches

    def loss_and_gradients(self, view1, view2, labels=None, labelled=None):
        """The loss on given views, and its gradients; changes no parameter.

        Args:
          view1: see `update`, as for the next two.
          view2: another view.
          labels: of the images.
          labelled: see `losses.classification_loss`.

        Returns:
          `update`'s first four scalars; and the gradients of the online
          network's trainable variables, None where none flows, by the
          optimizer's `scale_loss`.
        """
        target1, target2 = self.target.of_views(view1, view2)
        with tf.GradientTape() as tape:
            online1, online2 = self.online.of_views(view1, view2)
            repr_loss = self.representation_loss(
                online1, online2, target1, target2
            )
            classif_loss, top1 = self._classification(online1, labels, labelled)
            loss = repr_loss + classif_loss
            # Keras sums gradients over replicas.
            replicas = tf.distribute.get_strategy().num_replicas_in_sync
            scaled_loss = self.optimizer.scale_loss(loss / replicas)

        gradients = tape.gradient(scaled_loss, self.online.trainable_variables)
        return {
            "loss": loss,
            "repr_loss": repr_loss,
            "classif_loss": classif_loss,
            "top1_accuracy": top1,
        }, gradients

    def representation_loss(self, online1, online2, target1, target2):
        """Equation 2, plus the same with the views exchanged.

        Args:
          online1: what the online network makes of view 1, see `Network`.
          online2: of view 2.
          target1: what the target network makes of view 1.
          target2: of view 2.

        Returns:
          A scalar in [0, 8], the mean over images.
        """
        return tf.reduce_mean(
            losses.regression_loss(
                online1["prediction"],
                tf.stop_gradient(target2["projection"]),
            )
            + losses.regression_loss(
                online2["prediction"],
                tf.stop_gradient(target1["projection"]),
            )
        )

    def _classification(self, outputs, labels, labelled):
        """The classifier's loss and accuracy; zeros without labels."""
        if "logits" not in outputs:
            return tf.zeros([], self.variable_dtype), tf.zeros([])
        logits = outputs["logits"]
        if labels is None:
            labels = tf.fill([tf.shape(logits)[0]], -1)
        labels = tf.cast(labels, tf.int32)
        if labels.shape.rank != 1:
            raise ValueError(
                f"BYOL needs labels of shape [batch], not {labels.shape}."
            )
        return (
            losses.classification_loss(logits, labels, labelled),
            losses.accuracy(logits, labels, labelled),
        )

    def get_config(self):
        return {
            **super().get_config(),
            "encoder": keras.saving.serialize_keras_object(self.encoder),
            "projector_hidden": self.projector_hidden,
            "projection_size": self.projection_size,
            "tau_base": self.tau_base,
            "total_steps": self.total_steps,
            "num_classes": self.num_classes,
            "image_size": self.image_size,
            "micro_batches": self.micro_batches,
            "recipes": [dataclasses.asdict(r) for r in self.recipes],
            "seed": self.seed,
            "normalization": self.normalization,
        }

    @classmethod
    def from_config(cls, config, custom_objects=None):
        config = dict(config)
        config["encoder"] = keras.saving.deserialize_keras_object(
            config["encoder"], custom_objects=custom_objects
        )
        config["recipes"] = tuple(
            augment.Recipe.from_config(r) for r in config["recipes"]
        )
        return cls(**config)


def _check_optimizer(optimizer: keras.optimizers.Optimizer) -> None:
    """Raises ValueError if online network and target would not step together.

    With `use_ema` the target follows other parameters than those with which
    `fit` ends, and BatchNorm's statistics are of others.
    """
    optimizer = getattr(optimizer, "inner_optimizer", optimizer)
    count = optimizer.gradient_accumulation_steps
    if count:
        raise ValueError(
            f"BYOL: gradient_accumulation_steps={count} of the optimizer does "
            "not work, for the target takes a step with each batch. Take "
            f"batches {count} times as large and BYOL(micro_batches={count})."
        )
    if optimizer.use_ema:
        raise ValueError(
            "BYOL: use_ema=True of the optimizer does not work, for it "
            "overwrites the online network at the end of fit. Leave it out: "
            "the target network is a moving average."
        )


def _tensors(structure) -> list[tf.Tensor]:
    """Those in a nested structure that has None in some places."""
    return [x for x in tf.nest.flatten(structure) if x is not None]


def _sum(totals, values):
    return tf.nest.map_structure(
        lambda total, value: None if total is None else total + value,
        totals,
        values,
    )
