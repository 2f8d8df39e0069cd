"""From a configuration to the encoder and the BYOL model, ready for `fit`."""

import dataclasses
import functools
import pathlib

import keras

from byol_tf import augment
from byol_tf.config import Config, ConfigError
from byol_tf.model.byol import BYOL
from byol_tf.model.distributed_fit import sublayers
from byol_tf.model.normalization import BatchNorm
from byol_tf.model.resnet import ResNet
from byol_tf.model.variants import BYOL_ITSELF, Variant, VariedBYOL
from byol_tf.optim.lars import LARS
from byol_tf.optim.schedules import WarmupCosine


def build_encoder(config: Config) -> ResNet:
    """The encoder, initialised by the configuration's seed.

    Raises:
      ConfigError: if no network is as the flags say.
    """
    keras.utils.set_random_seed(config.seed)
    stem = dict(
        width=config.encoder_width,
        stem=config.stem,
        zero_init_gamma=config.zero_init_gamma,
        dtype=config.precision,
        recompute=config.recompute,
        normalization=config.normalization,
    )
    try:
        if config.encoder_depth is not None:
            return ResNet(config.encoder_depth, **stem)
        return ResNet(
            blocks=config.encoder_blocks,
            channels=config.encoder_channels,
            bottleneck=config.encoder_bottleneck,
            group_strides=config.encoder_group_strides or None,
            stem_channels=config.stem_channels,
            **stem,
        )
    except ValueError as error:
        raise ConfigError(
            f"--encoder_depth, or --encoder_blocks and those below it: {error}"
        ) from error


def load_encoder(path: pathlib.Path) -> keras.Model:
    """Reads an encoder that was saved as a .keras file.

    Raises:
      ConfigError: if it is none.
    """
    try:
        return keras.saving.load_model(path, compile=False)
    except Exception as error:  # Keras raises errors of many kinds here.
        raise ConfigError(
            f"--encoder: {path} is no model that Keras can load: "
            f"{str(error).splitlines()[0]} (A checkpoint of the official "
            "release becomes one by --mode=convert.)"
        ) from error


def build_byol(
    config: Config, total_steps: int, steps_per_epoch: float, num_classes: int
) -> BYOL:
    """The compiled model, with the published optimizer and schedules.

    Args:
      config: of the run, with its `image_size`.
      total_steps: length of the training.
      steps_per_epoch: not rounded, for the length of the warm-up.
      num_classes: 0 if there are no labels.
    """
    differs = variant(config)
    method = BYOL
    if differs != BYOL_ITSELF:
        method = functools.partial(VariedBYOL, variant=differs)
    model = method(
        build_encoder(config),
        config.projector_hidden,
        config.projection_size,
        config.tau_base,
        total_steps=total_steps,
        num_classes=num_classes or None,
        image_size=config.image_size,
        recipes=recipes(config),
        micro_batches=config.micro_batches,
        seed=config.seed,
        normalization=config.normalization,
        dtype=config.precision,
    )
    if not config.cross_replica_batch_norm:
        for layer in sublayers(model):
            if isinstance(layer, BatchNorm):
                layer.cross_replica = False
    warmup_steps = int(config.warmup_epochs * steps_per_epoch)
    learning_rate = WarmupCosine(
        config.base_learning_rate,
        config.batch_size,
        total_steps=total_steps,
        warmup_steps=min(warmup_steps, total_steps),
    )
    model.compile(
        LARS(learning_rate, weight_decay=config.weight_decay),
        steps_per_execution=config.steps_per_execution,
        jit_compile={"on": True, "off": False}.get(config.jit_compile, "auto"),
    )
    # Now, so that a checkpoint finds the optimizer's variables.
    model.optimizer.build(model.trainable_variables)
    return model


def variant(config: Config) -> Variant:
    """In what the configuration's method differs from BYOL."""
    names = (field.name for field in dataclasses.fields(Variant))
    return Variant(**{name: getattr(config, name) for name in names})


def recipes(config: Config) -> tuple[augment.Recipe, augment.Recipe]:
    """The augmentations T and T' of the configuration."""
    return tuple(
        augment.Recipe(
            crop_area=(config.crop_min_area, 1.0),
            flip=config.flip,
            jitter=config.jitter,
            brightness=config.brightness,
            contrast=config.contrast,
            saturation=config.saturation,
            hue=config.hue,
            grayscale=config.grayscale,
            blur=blur,
            solarize=solarize,
        )
        for blur, solarize in zip(config.blur, config.solarize)
    )
