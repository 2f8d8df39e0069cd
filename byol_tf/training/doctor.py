"""The collapse doctor: does the training still learn, and if not, why?

`diagnose` names a cause only where its evidence was observed. What was measured
for the limits below, on two networks: "tiny" (d = 8) and that of
flags/quickstart.flags (d = 64), on the bundled images and photos of CIFAR-10.
"""

import collections.abc
import dataclasses
import sys

import keras
import numpy as np
import tensorflow as tf
import tqdm

from byol_tf.model.byol import BYOL
from byol_tf.training import collapse
from byol_tf.training.checkpoints import passed
from byol_tf.training.collapse import Collapse
from byol_tf.training.observation import Observation, Observer

POLICIES = ("stop", "warn", "ignore")

# Deviation of the projections, times sqrt(d), below which they have collapsed.
# Healthy: at least 0.27 (tiny), 0.63 (quickstart, 937 steps), 0.75 (photos, 160
# steps). Without a predictor: 0.05 to 0.08 (tiny), 0.13 to 0.16 (quickstart),
# 0.04 to 0.15 (photos), each from about step 40 on.
COLLAPSED_STD = 0.2
# Effective rank below which they have, whatever their deviation: they lie on a
# line. Healthy: at least 2.8 (tiny). LARS at a rate of 200: 1.02.
COLLAPSED_RANK = 1.2
# The same as a share of d: they fill a few of many directions. Healthy: at
# least 0.18 (quickstart; photos with d = 64), 0.15 (photos with d = 256, 600
# steps). With neither target nor a predictor that learns: 0.025 to 0.033, and
# features worse than an untrained encoder's.
COLLAPSED_RANK_SHARE = 0.04
# Before, a random network and young moving averages say nothing of a collapse.
FIRST_STEPS = 50
# What a step may change a kernel by, as a share of its norm. Healthy: 0.02
# (quickstart), 0.07 (the highest published rate, 7.2), 0.005 to 0.02 (Adam at
# 0.001). Adam at 0.2: 3.7; LARS at 200: 2.
LONGEST_UPDATE = 0.3
# Learning rates from here on are LARS's: published ones begin at 0.2.
LARS_RATE = 0.1
# Below, the target is the online network of two steps ago.
LEAST_TAU = 0.5
# By schedule tau ends at 1; in this last part the target may stand still.
STILL_AT_THE_END = 0.9

NOT_FINITE = "not finite"
COLLAPSED = "collapsed projections"


@dataclasses.dataclass(frozen=True)
class Cause:
    """A fault that was observed.

    Attributes:
      name: in a few words, for the record.
      text: what is wrong, as a sentence.
      remedy: what to do about it, as a sentence.
    """

    name: str
    text: str
    remedy: str


@dataclasses.dataclass(frozen=True)
class Diagnosis:
    """Of one observation.

    Attributes:
      symptom: `NOT_FINITE`, `COLLAPSED`, or "" while the network learns.
      text: the symptom with its figures.
      causes: the faults, with a symptom or without one yet.
      suspects: for a symptom without a cause, what to look at.
    """

    symptom: str
    text: str
    causes: tuple[Cause, ...]
    suspects: str

    @property
    def found(self) -> list[str]:
        """Names of symptom and causes; empty if the training is healthy."""
        symptoms = [self.symptom] if self.symptom else []
        return symptoms + [cause.name for cause in self.causes]


def diagnose(seen: Observation) -> Diagnosis:
    """What an observation shows."""
    symptom, text = _symptom(seen)
    causes = (
        *_faults_of_the_images(seen),
        *_faults_of_the_networks(seen),
        *_faults_of_the_target(seen),
        *_faults_of_the_optimizer(seen, symptom),
    )
    trust = (
        f" at trust ratios from {seen.trust_ratios[0]:.2g} to "
        f"{seen.trust_ratios[-1]:.2g}"
        if seen.trust_ratios
        else ""
    )
    suspects = (
        "No known fault was seen. Usual suspects: a learning rate too high "
        f"(it is {seen.learning_rate:.3g} under {seen.optimizer}{trust}, with "
        f"a gradient norm of {seen.gradient_norm:.2g}), the weight decay, too "
        "weak an augmentation, too small a batch."
    )
    return Diagnosis(symptom, text, causes, suspects)


def _symptom(seen: Observation) -> tuple[str, str]:
    if not seen.is_finite:
        part = "the loss is" if not np.isfinite(seen.loss) else "parameters are"
        value = seen.loss if not np.isfinite(seen.loss) else "not finite"
        return NOT_FINITE, f"{part} {value}"
    spread = seen.projections["projection_std"] * seen.projection_size**0.5
    rank = seen.projections["effective_rank"]
    least_rank = max(
        COLLAPSED_RANK, COLLAPSED_RANK_SHARE * seen.projection_size
    )
    flat = spread < COLLAPSED_STD or rank < least_rank
    if flat and seen.step >= FIRST_STEPS:
        return COLLAPSED, (
            "the projections have collapsed (deviation "
            f"{seen.projections['projection_std']:.2g}, {spread:.2g} of "
            f"1/sqrt(d); effective rank {rank:.3g} of {seen.projection_size}; "
            f"mean cosine {seen.projections['mean_cosine']:.3f})"
        )
    return "", ""


def _faults_of_the_images(seen: Observation) -> collections.abc.Iterator[Cause]:
    if not seen.images_are_finite:
        yield Cause(
            "images not finite",
            "The images contain NaN or infinite values.",
            "Look for them in the data.",
        )
    if seen.views_are_equal:
        yield Cause(
            "equal views",
            "The two views are the same image: there is nothing to predict.",
            "Give BYOL's recipes, or the flags --crop_min_area, --jitter and "
            "those around them, some augmentation.",
        )


def _faults_of_the_networks(
    seen: Observation,
) -> collections.abc.Iterator[Cause]:
    # Negatives keep projections apart without the others' help.
    alone = seen.negatives_weight == 0
    if seen.predictor_is_identity and alone:
        yield Cause(
            "predictor missing",
            "The predictor is missing: predictions equal projections.",
            "Put an MLP back as model.online.predictor, or leave out "
            "--predictor.",
        )
    if seen.target_is_online and alone:
        yield Cause(
            "target missing",
            "The target is the online network itself, and gradient flows "
            "through it.",
            "Leave out --target, or give --negatives_weight.",
        )
    if seen.unnormalized:
        yield Cause(
            "normalization missing",
            "Layers of the online network have a scale and an offset in place "
            "of BatchNorm.",
            "Leave out --normalization, or give group or calibrated.",
        )
    frozen = seen.encoder_kernels > 0 and seen.trainable_kernels == 0
    if frozen:
        yield Cause(
            "encoder frozen",
            f"The encoder is frozen: none of its {seen.encoder_kernels} "
            "kernels is trainable.",
            "Set encoder.trainable = True before BYOL is built.",
        )
    elif seen.encoder_gradient_norm == 0:
        yield Cause(
            "no gradient",
            "No gradient reaches the encoder: it is 0 for all its kernels.",
            "Look for a stop_gradient or a rounding in the encoder.",
        )
    if seen.predictor_is_fixed and not frozen:
        yield Cause(
            "predictor fixed",
            "The predictor does not learn.",
            "Leave its `trainable` True, and --predictor_rate above 0.",
        )
    for network, idle in seen.idle_batch_norms.items():
        if idle and not (frozen and network == "online"):
            yield Cause(
                f"BatchNorm in inference mode ({network})",
                f"{idle} of {seen.batch_norms[network]} BatchNorm layers of "
                f"the {network} network are in inference mode: they do not "
                "normalise by the batch.",
                "Leave their `trainable` True, and call the network with "
                "training=True.",
            )


def _faults_of_the_target(seen: Observation) -> collections.abc.Iterator[Cause]:
    if not seen.steps_since or seen.target_is_online:
        return
    if seen.tau < LEAST_TAU or seen.target_lag == 0:
        yield Cause(
            "target copied",
            f"The target is a copy of the online network (tau is "
            f"{seen.tau:.3g}, their kernels differ by {seen.target_lag:.2g} of "
            "their norm).",
            "Give --tau_base, BYOL's tau_base, a value such as 0.99.",
        )
    # A frozen network leaves nothing to follow.
    if (
        seen.target_moved == 0
        and seen.trainable_kernels
        and seen.progress_before < STILL_AT_THE_END
    ):
        yield Cause(
            "target not moving",
            f"The target did not move in {seen.steps_since} steps (tau is "
            f"{seen.tau:.6g}): it stays a network that learned nothing.",
            "Give --tau_base, BYOL's tau_base, a value such as 0.99."
            if seen.tau == 1
            else "Look for equation 1, the moving average, in the update.",
        )


def _faults_of_the_optimizer(
    seen: Observation, symptom: str
) -> collections.abc.Iterator[Cause]:
    update = (
        f"a step changes a kernel by {seen.relative_update:.2g} of its norm"
    )
    if seen.relative_update > LONGEST_UPDATE:
        if seen.optimizer != "LARS" and seen.learning_rate >= LARS_RATE:
            yield Cause(
                f"LARS learning rate under {seen.optimizer}",
                f"A learning rate of {seen.learning_rate:.3g} is one for LARS, "
                f"and the optimizer is {seen.optimizer}: {update}.",
                "Compile with byol_tf.LARS, or divide the rate by some "
                "hundreds.",
            )
        else:
            yield Cause(
                "learning rate too high",
                f"The learning rate, {seen.learning_rate:.3g}, is too high: "
                f"{update}.",
                "Lower --base_learning_rate, the optimizer's learning_rate.",
            )
    if symptom == NOT_FINITE and seen.unscaled_float16:
        yield Cause(
            "float16 overflow",
            "It computes in float16 without a loss scale: values above 65,504 "
            "overflow.",
            'Take dtype="mixed_bfloat16", or "mixed_float16" with compile\'s '
            "auto_scale_loss.",
        )


class Doctor:
    """Examines a model at intervals, and acts on what it finds.

    Args:
      model: compiled.
      images: see `Observer`.
      policy: `stop` raises `Collapse` once the loss or a parameter is not
        finite, or the projections have collapsed at two successive
        examinations; `warn` says so in a line on stderr, once; `ignore` is
        silent. Faults without a symptom are said once unless ignored.
    """

    def __init__(self, model: BYOL, images: np.ndarray, policy: str = "stop"):
        if policy not in POLICIES:
            raise ValueError(f"{policy!r} is none of {', '.join(POLICIES)}.")
        self._observer = Observer(model, images)
        self._policy = policy
        self._said = set()
        self._collapsed_before = False
        self._step = 0
        self._diagnosis = None

    def examine(
        self,
        step: int,
        logs: dict[str, float],
        projections: dict[str, float],
    ) -> dict[str, float | list[str]]:
        """Looks at the model after a step; says nothing yet.

        Args:
          step: number of steps done.
          logs: of the step, as `BYOL.update` returns them.
          projections: `collapse.figures` of projections of many images.

        Returns:
          The columns of metrics.jsonl: `Observation.figures`, and `found`, the
          names of what is wrong, if anything is.
        """
        seen = self._observer.observe(step, logs, projections)
        self._step, self._diagnosis = seen.step, diagnose(seen)
        found = self._diagnosis.found
        return seen.figures | ({"found": found} if found else {})

    def parameters_are_finite(self) -> bool:
        """Whether the state may be kept."""
        return self._observer.parameters_are_finite()

    def judge(self) -> None:
        """Says what the last examination found, as the policy has it.

        Raises:
          Collapse: if training is to stop.
        """
        diagnosis = self._diagnosis
        before = self._collapsed_before
        self._collapsed_before = diagnosis.symptom == COLLAPSED
        certain = diagnosis.symptom == NOT_FINITE or (
            self._collapsed_before and before
        )
        if certain and self._policy == "stop":
            raise Collapse(
                f"training stopped at step {self._step}: "
                f"{_in_words(diagnosis)} With --on_collapse=warn it goes on."
            )
        if self._policy == "ignore":
            return
        names = {cause.name for cause in diagnosis.causes}
        if certain:
            names.add(diagnosis.symptom)
        else:
            diagnosis = dataclasses.replace(diagnosis, symptom="", text="")
        if names - self._said:
            self._said |= names
            line = f"step {self._step}: {_in_words(diagnosis)}"
            tqdm.tqdm.write(f"byol_tf: warning: {line}", file=sys.stderr)


def _in_words(diagnosis: Diagnosis) -> str:
    """One line: the symptom, why, and what to do."""
    parts = [f"{diagnosis.text}."] if diagnosis.text else []
    for cause in diagnosis.causes:
        parts += [cause.text, cause.remedy]
    if not diagnosis.causes:
        parts.append(diagnosis.suspects)
    return " ".join(parts)


class CollapseDoctor(keras.callbacks.Callback):
    """The doctor in `model.fit`.

    >>> model.fit(dataset, callbacks=[byol_tf.CollapseDoctor(images)])

    Args:
      images: some hundred training images, [n, height, width, 1 or 3], uint8
        or float in [0, 1].
      every: steps between two examinations; whether the loss is finite is
        looked at after each.
      on_collapse: "stop", "warn" or "ignore", see `Doctor`.

    Attributes:
      figures: of the last examination, see `Doctor.examine`.
    """

    def __init__(
        self, images: np.ndarray, every: int = 100, on_collapse: str = "stop"
    ):
        super().__init__()
        self._images = images
        self._every = every
        self._policy = on_collapse
        self.figures = {}

    def on_train_begin(self, logs=None):
        self._doctor = Doctor(self.model, self._images, self._policy)
        self._step = int(self.model.optimizer.iterations.numpy())
        self._diverged = False

    def on_train_batch_end(self, batch, logs=None):
        before = self._step  # One call may have taken several steps.
        self._step = int(self.model.optimizer.iterations.numpy())
        due = passed(self._every, before, self._step)
        diverged = not np.isfinite(logs["loss"])
        if due or (diverged and not self._diverged):
            projections = collapse.figures(self._projections())
            self.figures = self._doctor.examine(self._step, logs, projections)
            self._doctor.judge()
        self._diverged = diverged

    def _projections(self) -> np.ndarray:
        """Of a view of each image, [n, d]."""
        online, parts = self.model.online, []
        for start in range(0, len(self._images), 64):
            images = tf.convert_to_tensor(self._images[start : start + 64])
            view, _ = self.model.two_views(images)
            parts.append(online(view, training=False)["projection"].numpy())
        return np.concatenate(parts)


def found(rows: list[dict]) -> list[str]:
    """What was wrong with a training, by its rows of metrics.jsonl.

    Returns:
      The names of all faults, and the symptom if the last examination had it;
      empty for a healthy training.
    """
    examined = [row for row in rows if "projection_std" in row]
    symptoms = (NOT_FINITE, COLLAPSED)
    faults = [
        name
        for row in examined
        for name in row.get("found", ())
        if name not in symptoms
    ]
    last = examined[-1].get("found", ()) if examined else ()
    return list(
        dict.fromkeys([name for name in last if name in symptoms] + faults)
    )
