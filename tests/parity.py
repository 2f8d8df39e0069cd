"""Measures how far our numbers are from the official release's.

python tests/parity.py > docs/PARITY.md
python tests/parity.py augmentation checkpoint
"""

import contextlib
import dataclasses
import json
import pathlib
import sys
import zlib
from collections.abc import Callable, Iterator

import keras
import numpy as np
import tensorflow as tf

import byol_tf
from byol_tf import augment, image_operations
from byol_tf.data import images as host
from byol_tf.deepmind import Architecture, read_checkpoint
from byol_tf.model.resnet import DEPTHS, normalize

GOLDEN = pathlib.Path(__file__).parent / "golden"
# A bias that feeds a BatchNorm has a gradient of rounding errors alone.
NO_GRADIENT = ("projector/linear::b", "predictor/linear::b")


@dataclasses.dataclass(frozen=True)
class Row:
    """One line of the table: a worst error, and what it may be."""

    quantity: str
    error: float
    tolerance: float


def load(name: str) -> dict[str, np.ndarray]:
    with np.load(GOLDEN / name) as file:
        return dict(file)


# --- Distances ----------------------------------------------------------------


def relative(ours, official) -> float:
    """Euclidean norm of the difference, relative to that of the official."""
    ours, official = same_shape(ours, official)
    difference = np.linalg.norm(np.ravel(ours) - np.ravel(official))
    return float(difference / np.linalg.norm(official))


def same_shape(ours, official) -> tuple[np.ndarray, np.ndarray]:
    ours, official = np.asarray(ours), np.asarray(official)
    assert ours.shape == official.shape, (ours.shape, official.shape)
    return ours, official


def relative_to_digest(name: str, ours, digest) -> float:
    """Distance of a tensor from its official digest (golden/README.md).

    The worst of: the norm's, relative to it; the elements', relative to the
    greatest; the sum's, relative to the greatest that such a norm can have.
    """
    flat = np.asarray(ours, np.float64).ravel()
    random = np.random.RandomState(zlib.crc32(name.encode()))
    elements = flat[random.randint(0, flat.size, 8)]
    norm = digest[0]
    return float(
        max(
            abs(np.linalg.norm(flat) - norm) / norm,
            abs(flat.sum() - digest[1]) / (norm * np.sqrt(flat.size)),
            np.abs(elements - digest[2:]).max() / np.abs(flat).max(),
        )
    )


def absolute(ours, official) -> float:
    """Greatest difference of two images' values, which are in [0, 1]."""
    ours, official = same_shape(ours, official)
    return float(np.abs(ours - official).max())


# --- Training -----------------------------------------------------------------


@contextlib.contextmanager
def precision(dtype: str) -> Iterator[None]:
    """Everything in float64, or float32."""
    keras.config.set_floatx(dtype)
    keras.config.set_dtype_policy(dtype)
    try:
        yield
    finally:
        keras.config.set_floatx("float32")
        keras.config.set_dtype_policy("float32")


def build(meta: dict, **dtype) -> byol_tf.BYOL:
    """The model that a training file was recorded with, compiled."""
    depth = meta.get("depth")
    if depth is None:
        depth = {"TinyResNet": 0, "ResNet18": 18}[meta["encoder"]]
    sizes = (
        {"depth": depth}
        if depth
        else {"blocks": (1, 1, 1, 1), "channels": (8, 8, 8, 8)}
    )
    model = byol_tf.BYOL(
        byol_tf.ResNet(**sizes, width=meta["width"], **dtype),
        projector_hidden=meta["hidden"],
        projection_size=meta["proj"],
        tau_base=meta["ema"],
        total_steps=meta["max_steps"],
        num_classes=meta["classes"],
        **dtype,
    )
    schedule = byol_tf.WarmupCosine(
        meta["lr"],
        meta["batch"],
        total_steps=meta["max_steps"],
        warmup_steps=meta["warmup"],
    )
    model.compile(byol_tf.LARS(schedule, weight_decay=meta["wd"]))
    return model


def named_trees(model: byol_tf.BYOL) -> dict:
    """The starting point of the larger files, by the rule of README.md."""

    def value(role: str, module: str, name: str, shape) -> np.ndarray:
        seed = zlib.crc32(f"0:{role}:{module}:{name}".encode())
        v = np.random.RandomState(seed).randn(*shape)
        if name == "w":
            return v / np.sqrt(np.prod(shape[:-1]))
        return 1 + 0.2 * v if name == "scale" else 0.1 * v

    trees = byol_tf.deepmind.to_haiku(model)
    for name, tree in trees.items():
        role, _, kind = name.partition("_")
        for module, entries in tree.items():
            for key, array in entries.items():
                entries[key] = (
                    value(role, module, key, array.shape)
                    if kind == "params"
                    else np.zeros_like(array)
                )
    return trees


def stored_trees(golden: dict[str, np.ndarray], prefix: str) -> dict:
    """The trees that a file holds under a prefix."""
    trees = {}
    for key, array in golden.items():
        if key.startswith(f"{prefix}::") and key.count("::") == 3:
            _, tree, module, name = key.split("::")
            trees.setdefault(tree, {}).setdefault(module, {})[name] = array
    return trees


def gradients_in_haiku(model: byol_tf.BYOL, gradients: list) -> dict:
    """Gradients under the official names, by way of the momentum's places."""
    saved = [m.numpy() for m in model.optimizer.momentums]
    for momentum, gradient in zip(
        model.optimizer.momentums, gradients, strict=True
    ):
        momentum.assign(gradient)
    tree = byol_tf.deepmind.to_haiku(model)["mu"]
    for momentum, value in zip(model.optimizer.momentums, saved, strict=True):
        momentum.assign(value)
    return tree


class Errors(dict):
    """quantity -> all distances measured of it."""

    def add(self, quantity: str, error: float) -> None:
        self.setdefault(quantity, []).append(error)

    def rows(self, tolerance: float) -> list[Row]:
        """The worst of each."""
        return [Row(name, max(self[name]), tolerance) for name in self]


QUANTITIES = {
    "projection": "projections",
    "prediction": "predictions",
    "logits": "logits",
    "embedding": "embeddings",
    "grads": "gradients",
    "mu": "LARS momentum",
    "online_params": "online parameters",
    "target_params": "target parameters",
    "online_state": "BatchNorm statistics, online",
    "target_state": "BatchNorm statistics, target",
}


def training(file: str, dtype: str) -> list[Errors]:
    """Distances of all that happens in the steps of a file; an entry a step.

    After the steps comes one more entry: the outputs of evaluation.
    """
    golden = load(file)
    meta = json.loads(str(golden["meta"]))
    with precision(dtype):
        model = build(meta)
        model.optimizer.build(model.trainable_variables)
        trees = stored_trees(golden, "init") or named_trees(model)
        byol_tf.deepmind.from_haiku(model, trees)
        model.optimizer.iterations.assign(meta["start_step"])
        steps = [
            training_step(model, golden, step, dtype)
            for step in range(meta["steps"])
        ]
        images = tf.constant(golden["batch0::view1"] / 255, dtype)
        evaluation = Errors()
        for name, ours in model.online(images).items():
            error = relative(ours, golden[f"eval::{name}"])
            evaluation.add("evaluation outputs", error)
    return [*steps, evaluation]


def training_step(model, golden: dict, step: int, dtype: str) -> Errors:
    """Takes a step, and measures all that a file holds of it."""
    errors = Errors()
    view1, view2 = (
        tf.constant(golden[f"batch{step}::{name}"] / 255, dtype)
        for name in ("view1", "view2")
    )
    gradients = []
    apply = model.optimizer.apply

    def recording_apply(found, variables):
        gradients.extend(found)
        apply(found, variables)

    model.optimizer.apply = recording_apply
    outputs = model.forward(view1, view2)
    logs = model.update(view1, view2, golden[f"batch{step}::labels"])
    model.optimizer.apply = apply

    for role in ("online", "target"):
        for name, ours in outputs[role].items():
            kind, _, view = name.partition("_")
            key = f"step{step}::{role}::{name}"
            if kind == "embedding" and role == "online":
                key = f"step{step}::embedding::{view}"
            if key in golden:
                errors.add(QUANTITIES[kind], relative(ours, golden[key]))
    for name, ours in logs.items():
        official = golden.get(f"step{step}::logs::{name}")
        if name == "top1_accuracy":
            if official is not None:
                errors.add("top-1 accuracy", abs(float(ours - official)))
        else:
            quantity = "losses" if "loss" in name else name.replace("_", " ")
            errors.add(quantity, relative(ours, official))

    trees = byol_tf.deepmind.to_haiku(model)
    trees["grads"] = gradients_in_haiku(model, gradients)
    for name, tree in trees.items():
        digests = dict(
            zip(
                golden[f"names::{name}"],
                golden[f"step{step}::digests::{name}"],
                strict=True,
            )
        )
        ours = {
            f"{module}::{key}": array
            for module, entries in tree.items()
            for key, array in entries.items()
        }
        assert set(ours) == set(digests), name
        for key, array in ours.items():
            if name in ("grads", "mu") and key in NO_GRADIENT:
                continue
            error = relative_to_digest(key, array, digests[key])
            full = golden.get(f"step{step}::{name}::{key}")
            if full is not None:
                error = max(error, relative(array, full))
            errors.add(QUANTITIES[name], error)
    return errors


def training_float64(file: str) -> list[Row]:
    """The worst of all steps."""
    worst = Errors()
    for errors in training(file, "float64"):
        for quantity, found in errors.items():
            worst.add(quantity, max(found))
    return worst.rows(1e-9)


def training_rounded(
    file: str, dtype: str, outputs: float, median: float
) -> list[Row]:
    """Against steps that the release took in float32, as far as that goes.

    The release's own float32 is about 1e-5 from its float64 in activations. In
    gradients it is 2e-3 (median tensor) to 4e-2 (worst), where a rounding
    moves an activation across the kink of a ReLU. After an update all this is
    in the parameters, and the second step's activations differ by 1e-4.

    Args:
      file: the golden file.
      dtype: of our own computation.
      outputs: tolerance of the first step's outputs.
      median: tolerance of its median gradient.
    """
    first, second, evaluation = training(file, dtype)
    rows = []
    for name in ("gradients", "LARS momentum"):
        errors = first.pop(name)
        middle, worst = float(np.median(errors)), max(errors)
        rows.append(Row(f"{name}, first step, median tensor", middle, median))
        rows.append(Row(f"{name}, first step, worst tensor", worst, 4e-2))
        rows.append(Row(f"{name}, second step", max(second.pop(name)), 4e-2))
    parameters = max(first.pop("online parameters"))
    rows.append(Row("online parameters, first step", parameters, 1e-4))
    return [
        *(
            dataclasses.replace(row, quantity=f"{row.quantity}, {step} step")
            for step, errors, tolerance in (
                ("first", first, outputs),
                ("second", second, 5e-4),
            )
            for row in errors.rows(tolerance)
        ),
        *rows,
        *evaluation.rows(1e-3),
    ]


# --- Augmentation -------------------------------------------------------------


def each(value, dtype=tf.float32) -> tf.Tensor:
    """The parameter of two images alike."""
    return tf.constant([value, value], dtype)


def chain(planes, parameters: list[dict]):
    """All operations, with given parameters for each image."""

    def column(name, dtype):
        values = [float(p.get(name) or 0) for p in parameters]
        return tf.cast(values, dtype)

    values = np.array([p["values_bcsh"] for p in parameters], np.float32).T
    brightness, contrast, saturation, hue = map(tf.constant, values)
    return augment.distort(
        planes,
        flipped=column("flip", tf.bool),
        order=tf.constant([p["order"] for p in parameters]),
        brightness=brightness,
        contrast=contrast,
        saturation=saturation,
        hue=hue,
        grayed=column("gray", tf.bool),
        sigma=column("sigma", tf.float32),
        solarized=column("solarize", tf.bool),
    )


def operation(name: str, parameters) -> Callable[[tf.Tensor], tf.Tensor]:
    """Our operation for a key of augment_ops.npz."""
    nothing = {"brightness": each(0.0), "contrast": each(1.0)}
    colours = {"saturation": each(1.0), "hue": each(0.0)}
    kind = name.split("_")[0]
    if kind in nothing:
        value = parameters.get("delta", parameters.get("factor"))
        arguments = nothing | {kind: each(value)}
        clipped = (
            image_operations.clip if parameters["clipped"] else tf.identity
        )
        return lambda x: clipped(
            image_operations.adjust_brightness_and_contrast(x, **arguments)
        )
    if kind in (*colours, "hsv"):
        value = parameters.get("delta", parameters.get("factor", 0.0))
        arguments = colours | ({kind: each(value)} if kind in colours else {})
        return lambda x: image_operations.adjust_saturation_and_hue(
            x, **arguments
        )
    if kind.startswith("blur"):
        sigma = parameters["sigma"]
        return lambda x: image_operations.gaussian_blur(
            x, tf.fill(x.shape[:1], sigma)
        )
    if kind.startswith("chain"):
        return lambda x: chain(x, [parameters] * 2)
    if kind == "postprocess":
        return lambda x: chain(x, parameters)
    return {
        "gray": image_operations.to_gray,
        "flip": image_operations.flip,
        "solarize": image_operations.solarize,
        "normalize": lambda x: image_operations.to_planes(
            normalize(image_operations.from_planes(x))
        ),
    }[kind]


def in_tf_data(function, planes):
    return next(iter(tf.data.Dataset.from_tensors(planes).map(function)))


# Ways to run a function.
WAYS = (
    lambda function, planes: function(planes),
    in_tf_data,
    lambda function, planes: tf.function(function)(planes),
    lambda function, planes: tf.function(function, jit_compile=True)(planes),
)


def augmentation() -> list[Row]:
    golden = load("augment_ops.npz")
    parameters = json.loads(str(golden["params_json"]))
    images = {
        size: image_operations.to_planes(
            tf.constant(golden[f"images{size}_u8"])
        )
        for size in ("", "224")
    }
    names = [name for name in parameters if name != "hsv"]
    errors = Errors()

    def everything(images):
        results = {}
        for name in names:
            planes = tf.gather(images[""], [0, 2])  # Two of the six are kept.
            if "224" in name:
                planes = images["224"]
            elif name.startswith("postprocess"):
                planes = images[""]
            result = operation(name, parameters[name])(planes)
            results[name] = tf.transpose(result, [0, 2, 3, 1])
        return results

    for run in WAYS:
        results = run(everything, images)
        for name, result in results.items():
            if "224" in name:
                result = result[:, ::2, ::2]
            kind = "blur, 224 pixels" if "224" in name else name.split("_")[0]
            kind = {
                "hsv": "HSV and back",
                "postprocess": "the release's random draws",
            }.get(kind, kind.replace("chain", "chain "))
            errors.add(kind, absolute(result, golden[name]))

    # Every pixel an image of its own, rotated back by its official hue.
    hue, saturation, value = (
        golden["hsv"][..., i].reshape(-1) for i in range(3)
    )
    pixels = tf.reshape(
        tf.gather(golden["images_u8"], [0, 2]) / np.float32(255), [-1, 1, 1, 3]
    )
    red = image_operations.adjust_saturation_and_hue(
        image_operations.to_planes(pixels), tf.ones_like(hue), -tf.constant(hue)
    )
    low = value * (1 - saturation)
    expected = np.stack([value, low, low], -1)
    errors.add("HSV", absolute(red[:, :, 0, 0], expected))
    return errors.rows(1e-5)


def host_preprocessing() -> list[Row]:
    golden = load("host_preprocess.npz")
    errors = Errors()
    for i in range(4):
        jpeg = tf.constant(golden[f"jpeg{i}"].tobytes())
        crop = host.central_crop(jpeg, 224, 224 / 256)
        window = tf.constant(golden[f"window{i}"], tf.int32)
        (resized,) = host.crops(jpeg, lambda _, w=window: w[None], 1, 224)
        for quantity, ours, key in (
            ("evaluation crop of a JPEG", crop, f"eval{i}"),
            ("window of a JPEG, resized", resized, f"crop_resized{i}"),
        ):
            error = absolute(ours[::3, ::3], golden[key])
            errors.add(quantity, error)
    return errors.rows(1e-5)


# --- Checkpoint, tensorflow-addons --------------------------------------------


def checkpoint() -> list[Row]:
    """An official checkpoint's outputs, from the file's bytes on."""
    trees = read_checkpoint(GOLDEN / "deepmind_checkpoint_tiny.pkl").trees
    sizes = Architecture.of_parameters(trees["online_params"])
    assert sizes.depth is None and sizes.blocks not in DEPTHS.values()
    model = byol_tf.BYOL(
        byol_tf.ResNet(blocks=sizes.blocks, channels=sizes.channels),
        projector_hidden=sizes.projector_hidden,
        projection_size=sizes.projection_size,
        total_steps=1,
        num_classes=sizes.num_classes,
    )
    model.compile(byol_tf.LARS())
    byol_tf.deepmind.from_haiku(model, trees)
    golden = load("deepmind_checkpoint_tiny_expected.npz")
    outputs = model.online(golden["images"] / np.float32(255))
    return [
        Row(name, relative(output, golden[name]), 1e-5)
        for name, output in outputs.items()
    ]


class Follow(keras.optimizers.SGD):
    """An optimizer that sets one variable to recorded values."""

    def follow(self, variable, values) -> None:
        self.variable, self.values = variable, iter(values)

    def apply(self, gradients, variables):
        self.variable.assign(next(self.values))
        self.iterations.assign_add(1)


def addons() -> list[Row]:
    golden = load("addons.npz")
    planes = image_operations.to_planes(tf.constant(golden["images"]))
    blur = max(
        absolute(
            image_operations.from_planes(
                image_operations.gaussian_blur(planes, each(float(name[5:])))
            ),
            golden[name],
        )
        for name in golden
        if name.startswith("blur_")
    )

    # A tau that hardly moves in so few of so many steps.
    model = byol_tf.BYOL(
        byol_tf.ResNet(blocks=(1,), channels=(4,), stem_channels=4),
        projector_hidden=16,
        projection_size=4,
        tau_base=float(golden["decay"]),
        total_steps=10**9,
    )
    model.compile(Follow())
    online, target = (
        network.projector.linear.bias
        for network in (model.online, model.target)
    )
    online.assign(golden["parameters"][0])
    target.assign(golden["averages"][0])
    model.optimizer.follow(online, golden["parameters"][1:])
    views = tf.random.stateless_uniform([2, 4, 16, 16, 3], [0, 0])
    average = 0.0
    for official in golden["averages"][1:]:
        model.update(*tf.unstack(views))
        average = max(average, relative(target, official))
    return [
        Row("gaussian_filter2d", blur, 1e-5),
        Row("MovingAverage", average, 1e-6),
    ]


# --- The table ----------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Group:
    """A part of the table: what is compared with which file, and how."""

    title: str
    file: str
    measure: Callable[[], list[Row]]
    slow: bool = False


def _training(title: str, file: str, slow: bool = False) -> Group:
    return Group(title, file, lambda: training_float64(file), slow)


GROUPS = {
    "tiny": _training(
        "TinyResNet, three steps in float64, across the end of the warm-up",
        "train_tiny_resnet_f64.npz",
    ),
    "tiny_x2": _training(
        "TinyResNet of width 2, two steps in float64",
        "train_tiny_resnet_x2_f64.npz",
    ),
    "resnet50": _training(
        "ResNet-50, two steps in float64",
        "train_resnet50_f64.npz",
        slow=True,
    ),
    "resnet18": Group(
        "ResNet-18, two steps of the release in float32, of ours in float64",
        "train_resnet18_f32.npz",
        lambda: training_rounded(
            "train_resnet18_f32.npz", "float64", outputs=2e-5, median=2e-3
        ),
        slow=True,
    ),
    "resnet18_float32": Group(
        "ResNet-18, two steps, both in float32",
        "train_resnet18_f32.npz",
        lambda: training_rounded(
            "train_resnet18_f32.npz", "float32", outputs=4e-5, median=1e-2
        ),
    ),
    "augmentation": Group(
        "Augmentation with given parameters in float32: the worst of eager, "
        "tf.data, graph and XLA",
        "augment_ops.npz",
        augmentation,
    ),
    "host_preprocessing": Group(
        "Decoding, cropping and resizing",
        "host_preprocess.npz",
        host_preprocessing,
    ),
    "checkpoint": Group(
        "An official checkpoint, read and evaluated in float32",
        "deepmind_checkpoint_tiny.pkl",
        checkpoint,
    ),
    "addons": Group(
        "tensorflow-addons 0.23 in float32",
        "addons.npz",
        addons,
    ),
}

HEADER = """\
# The same numbers as the official release

Every figure here was measured by the command above it, on a CPU, against the
files in `tests/golden/`, which the README there describes. The tests assert the
tolerances. `python tests/parity.py` prints the whole page.

An error is the Euclidean norm of the difference, relative to that of the
official tensor, and of all tensors and steps the worst. Where a file holds a
digest of a tensor, it is the worst of the norm's relative error, the greatest
element's error relative to the greatest element, and the sum's relative to the
norm times the root of the size. For images it is the greatest difference of a
pixel, whose range is [0, 1].

Tolerances are 1e-9 in float64, and 1e-5 for one operation in float32. The
release's own float32 is about 1e-5 from its float64 in activations, 2e-3
(median tensor) and 4e-2 (worst) in gradients; where its steps are in float32,
ours in float64 are held to that, twice in activations, and ours in float32,
which round as well, to twice and five times as much. Of the second step, whose
parameters come from those gradients, only the order is held.

Left out are the gradients, and momentum, of the two biases that feed a
BatchNorm: they are rounding errors around 0. ResNet-50 and width 2 were
recorded by `tests/golden/record_haiku.py`, which first repeats the release's
own three steps of TinyResNet.
"""


def table(group: str) -> str:
    """A section of docs/PARITY.md."""
    lines = [
        f"## {GROUPS[group].title}",
        "",
        f"`python tests/parity.py {group}` against "
        f"`tests/golden/{GROUPS[group].file}`",
        "",
        "| quantity | worst error | tolerance |",
        "| --- | --- | --- |",
    ]
    for row in GROUPS[group].measure():
        exceeded = "" if row.error <= row.tolerance else " **exceeded**"
        lines.append(
            f"| {row.quantity} | {row.error:.1e}{exceeded} | "
            f"{row.tolerance:.0e} |"
        )
    return "\n".join([*lines, ""])


def main(groups: list[str]) -> None:
    """Prints the page, or the sections that are asked for."""
    unknown = sorted(set(groups) - set(GROUPS))
    if unknown:
        sys.exit(f"{', '.join(unknown)}: none of {', '.join(GROUPS)}")
    if not groups:
        print(HEADER)
    for group in groups or GROUPS:
        print(table(group), flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
