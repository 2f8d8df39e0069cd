"""The heads on the encoder, and the network that they make together.

Source: arXiv 2006.07733, section 3.1 and figure 2; the official
`byol/byol_experiment.py` (`_forward`) and `byol/utils/networks.py` (`MLP`).
"""

import keras
import tensorflow as tf

from byol_tf.model.batch_free import normalization as normalization_layer
from byol_tf.model.initializers import fan_in_truncated_normal
from byol_tf.model.normalization import statistics_apart
from byol_tf.model.resnet import ResNet


@keras.saving.register_keras_serializable(package="byol_tf")
class MLP(keras.layers.Layer):
    """Linear, BatchNorm, ReLU, linear: the projector and the predictor.

    Args:
      hidden: length of the hidden layer, which has a bias.
      outputs: length of the output, which has neither bias nor BatchNorm.
      normalization: "batch", or what `batch_free` has in BatchNorm's place.
    """

    def __init__(
        self, hidden: int, outputs: int, normalization: str = "batch", **kwargs
    ):
        super().__init__(**kwargs)
        self.normalization = normalization
        self.hidden = hidden
        self.outputs = outputs
        self.linear = keras.layers.Dense(
            hidden,
            kernel_initializer=fan_in_truncated_normal(),
            name="linear",
            dtype=self.dtype_policy,
        )
        self.norm = normalization_layer(
            normalization, name="batch_norm", dtype=self.dtype_policy
        )
        self.linear_1 = keras.layers.Dense(
            outputs,
            use_bias=False,
            kernel_initializer=fan_in_truncated_normal(),
            name="linear_1",
            dtype=self.dtype_policy,
        )

    def build(self, input_shape):
        self.linear.build(input_shape)
        self.norm.build((None, self.hidden))
        self.linear_1.build((None, self.hidden))

    def call(self, inputs, training=False):
        hidden = self.norm(self.linear(inputs), training=training)
        return self.linear_1(tf.nn.relu(hidden))

    def get_config(self):
        return {
            **super().get_config(),
            "hidden": self.hidden,
            "outputs": self.outputs,
            "normalization": self.normalization,
        }


class Network(keras.Model):
    """Encoder f, projector g, predictor q, and a linear classifier.

    The online and the target network are one each. The classifier learns on
    features through which no gradient passes: it tells during pretraining what
    the features are worth, and does not shape them.

    Args:
      encoder: a built Keras model, images -> [batch, features].
      projector_hidden: hidden length of projector and predictor.
      projection_size: output length of projector and predictor.
      num_classes: of the classifier; None leaves it out.
      normalization: of projector and predictor, see `MLP`.
      predictor: whether there is one; without it predictions are projections.

    Call arguments:
      images: float [batch, height, width, 3] in [0, 1].
      training: see `BatchNorm`.

    Returns:
      A dict, by the paper's names: `embedding` y [batch, features],
      `projection` z and `prediction` q(z) [batch, projection_size], and
      `logits` [batch, num_classes] if there is a classifier. In float32, or
      float64 under that policy.
    """

    def __init__(
        self,
        encoder: keras.Model,
        projector_hidden: int,
        projection_size: int,
        num_classes: int | None = None,
        normalization: str = "batch",
        predictor: bool = True,
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.encoder = encoder
        sizes = (projector_hidden, projection_size, normalization)
        dtype = self.dtype_policy
        self.projector = MLP(*sizes, name="projector", dtype=dtype)
        self.predictor = None
        if predictor:
            self.predictor = MLP(*sizes, name="predictor", dtype=dtype)
        self.classifier = None
        if num_classes:
            self.classifier = keras.layers.Dense(
                num_classes,
                kernel_initializer=fan_in_truncated_normal(),
                name="classifier",
                dtype=self.dtype_policy,
            )
        features = (None, _feature_size(encoder))
        self.projector.build(features)
        if self.predictor is not None:
            self.predictor.build((None, projection_size))
        if self.classifier is not None:
            self.classifier.build(features)
        self.built = True

    def call(self, images, training=False):
        embedding = self.encoder(images, training=training)
        projection = self.projector(embedding, training=training)
        prediction = projection
        if self.predictor is not None:
            prediction = self.predictor(projection, training=training)
        outputs = {
            "embedding": embedding,
            "projection": projection,
            "prediction": prediction,
        }
        if self.classifier is not None:
            outputs["logits"] = self.classifier(tf.stop_gradient(embedding))
        return {
            name: tf.cast(value, self.variable_dtype)
            for name, value in outputs.items()
        }

    def of_views(self, view1, view2) -> tuple[dict, dict]:
        """What it makes of two views in training, as in a call for each.

        In one pass where nothing but `BatchNorm` sees a batch, as in `ResNet`
        (in a subclass anything might): convolutions of twice the images take
        less than twice the time.

        Args:
          view1: float [batch, height, width, 3] in [0, 1].
          view2: another view of the same images, of the same size.
        """
        if type(self.encoder) is not ResNet:
            return self(view1, training=True), self(view2, training=True)
        with statistics_apart(2):
            both = self(tf.concat([view1, view2], 0), training=True)
        halves = {name: tf.split(value, 2) for name, value in both.items()}
        return tuple(
            {name: half[k] for name, half in halves.items()} for k in (0, 1)
        )


def _feature_size(encoder: keras.Model) -> int:
    """Length of an encoder's feature vectors."""
    if getattr(
        encoder, "inputs", None
    ):  # A functional model, perhaps of one image size only.
        shape = encoder.output_shape
    else:
        try:
            shape = encoder.compute_output_shape((None, None, None, 3))
        except NotImplementedError as error:
            raise ValueError(
                f"BYOL cannot tell the number of features of {encoder.name}: "
                "give its class a method compute_output_shape(input_shape)."
            ) from error
    if len(shape) != 2:
        raise ValueError(
            f"BYOL needs an encoder that gives [batch, features]; "
            f"{encoder.name} gives {shape}."
        )
    return shape[-1]
