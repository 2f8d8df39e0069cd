"""Records official steps on a network of any depth and width.

    pip install "jax[cpu]==0.10.2" dm-haiku==0.0.17
    python tests/golden/record_haiku.py OUT.npz --depth=50 --width=2

The golden files from the release itself are of two small networks. This says
the release's network, loss and optimizer again in JAX and Haiku, whose modules
and derivatives the release uses, and so records the same for any other. That it
says the same is checked first: its three steps must be those of
`train_tiny_resnet_f64.npz`.

Source: google-deepmind/deepmind-research `byol/byol_experiment.py`,
`byol/utils/{networks,helpers,optimizers,schedules}.py`.
"""

import argparse
import json
import math
import pathlib
import zlib

import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np

jax.config.update("jax_enable_x64", True)

# depth -> (blocks, channels, bottleneck, name); 0 is the official TinyResNet.
NETWORKS = {
    0: ((1, 1, 1, 1), (8, 8, 8, 8), False, "tiny_res_net"),
    18: ((2, 2, 2, 2), (64, 128, 256, 512), False, "res_net18"),
    34: ((3, 4, 6, 3), (64, 128, 256, 512), False, "res_net34"),
    50: ((3, 4, 6, 3), (256, 512, 1024, 2048), True, "res_net50"),
    101: ((3, 4, 23, 3), (256, 512, 1024, 2048), True, "res_net101"),
    152: ((3, 8, 36, 3), (256, 512, 1024, 2048), True, "res_net152"),
    200: ((3, 24, 36, 3), (256, 512, 1024, 2048), True, "res_net200"),
}
BATCH_NORM = {
    "create_scale": True,
    "create_offset": True,
    "decay_rate": 0.9,
    "eps": 1e-5,
}
PARAMETERS = ("online_params", "target_params", "mu")
STATES = ("online_state", "target_state")


class Encoder(hk.Module):
    """The release's ResNet, of Haiku's blocks."""

    def __init__(self, depth: int, width: int):
        blocks, channels, bottleneck, name = NETWORKS[depth]
        super().__init__(name)
        self.conv = hk.Conv2D(
            64 * width, 7, 2, with_bias=False, name="initial_conv"
        )
        self.norm = hk.BatchNorm(**BATCH_NORM, name="initial_batchnorm")
        self.groups = [
            hk.nets.ResNet.BlockGroup(
                width * channels[i],
                blocks[i],
                stride=(1, 2, 2, 2)[i],
                bn_config=BATCH_NORM,
                resnet_v2=False,
                bottleneck=bottleneck,
                use_projection=True,
                name=f"block_group_{i}",
            )
            for i in range(4)
        ]

    def __call__(self, x, training):
        x = jax.nn.relu(self.norm(self.conv(x), training))
        x = hk.max_pool(x, (1, 3, 3, 1), (1, 2, 2, 1), "SAME")
        for group in self.groups:
            x = group(x, training, False)
        return jnp.mean(x, axis=(1, 2))


class MLP(hk.Module):
    """Projector or predictor."""

    def __init__(self, hidden: int, outputs: int, name: str):
        super().__init__(name)
        self.sizes = hidden, outputs

    def __call__(self, x, training):
        x = hk.Linear(self.sizes[0])(x)
        x = jax.nn.relu(hk.BatchNorm(**BATCH_NORM)(x, training))
        return hk.Linear(self.sizes[1], with_bias=False)(x)


def network(meta: dict) -> hk.TransformedWithState:
    """(parameters, state, images, training) -> outputs by name, state."""

    def apply(images, training):
        mean = jnp.array([0.485, 0.456, 0.406])
        x = (images - mean) / jnp.array([0.229, 0.224, 0.225])
        embedding = Encoder(meta["depth"], meta["width"])(x, training)
        sizes = meta["hidden"], meta["proj"]
        projection = MLP(*sizes, "projector")(embedding, training)
        prediction = MLP(*sizes, "predictor")(projection, training)
        logits = hk.Linear(meta["classes"], name="classifier")(
            jax.lax.stop_gradient(embedding)
        )
        return {
            "embedding": embedding,
            "projection": projection,
            "prediction": prediction,
            "logits": logits,
        }

    return hk.without_apply_rng(hk.transform_with_state(apply))


def regression_loss(x, y):
    """[batch], in [0, 4]."""

    def normalize(x):
        squares = jnp.sum(jnp.square(x), -1, keepdims=True)
        return x * jax.lax.rsqrt(jnp.maximum(squares, 1e-12))

    return jnp.sum(jnp.square(normalize(x) - normalize(y)), -1)


def gradients_of(meta: dict):
    """The compiled loss with its gradient, outputs and new states."""
    forward = network(meta).apply

    def loss(params, target_params, states, view1, view2, labels):
        outputs = {"view1": {}, "view2": {}}
        new_states = dict(states)
        for role, parameters in (("online", params), ("target", target_params)):
            state = states[f"{role}_state"]
            for view, images in (("view1", view1), ("view2", view2)):
                outputs[view][role], state = forward(
                    parameters, state, images, True
                )
            new_states[f"{role}_state"] = state
        stop = jax.lax.stop_gradient
        repr_loss = jnp.mean(
            sum(
                regression_loss(
                    outputs[a]["online"]["prediction"],
                    stop(outputs[b]["target"]["projection"]),
                )
                for a, b in (("view1", "view2"), ("view2", "view1"))
            )
        )
        log_probs = jax.nn.log_softmax(outputs["view1"]["online"]["logits"])
        classif_loss = -jnp.mean(
            jnp.take_along_axis(log_probs, labels[:, None], 1)
        )
        losses = {"repr_loss": repr_loss, "classif_loss": classif_loss}
        return repr_loss + classif_loss, (losses, outputs, new_states)

    return jax.jit(jax.value_and_grad(loss, has_aux=True))


def lars(meta: dict, module: str, name: str, p, g, mu, learning_rate):
    """The new parameter and momentum."""
    if not (name == "b" or "norm" in module):
        g = g + meta["wd"] * p
        norms = jnp.linalg.norm(p.ravel()), jnp.linalg.norm(g.ravel())
        usable = (norms[0] > 0) & (norms[1] > 0)
        g = g * jnp.where(usable, 1e-3 * norms[0] / norms[1], 1.0)
    mu = 0.9 * mu + g
    return p - learning_rate * mu, mu


def schedules(meta: dict, step: int) -> tuple[float, float]:
    """Learning rate, which the release computes in float32, and tau."""

    def cosine(step, steps):
        return 0.5 * (1 + math.cos(math.pi * min(step, steps) / steps))

    warmup, steps = meta["warmup"], meta["max_steps"]
    peak = meta["lr"] * meta["batch"] / 256
    if step < warmup:
        learning_rate = step / warmup * peak
    else:
        learning_rate = peak * cosine(step - warmup, steps - warmup)
    tau = 1 - (1 - meta["ema"]) * cosine(step, steps)
    return float(np.float32(learning_rate)), tau


def official_step(meta: dict, gradients, trees: dict, step: int, batch: dict):
    """New trees; what is recorded of the step: values, and trees."""
    views = [batch[name] / 255.0 for name in ("view1", "view2")]
    params, target_params = trees["online_params"], trees["target_params"]
    states = {name: trees[name] for name in STATES}
    (loss, (losses, outputs, states)), grads = gradients(
        params, target_params, states, *views, batch["labels"]
    )
    learning_rate, tau = schedules(meta, step)
    new = {name: {} for name in PARAMETERS}
    for module, entries in params.items():
        for name, p in entries.items():
            p, mu = lars(
                meta,
                module,
                name,
                p,
                grads[module][name],
                trees["mu"][module][name],
                learning_rate,
            )
            target = target_params[module][name]
            target = target + (1 - tau) * (p - target)
            for tree, value in zip(PARAMETERS, (p, target, mu), strict=True):
                new[tree].setdefault(module, {})[name] = value
    logs = {
        "loss": loss,
        **losses,
        "learning_rate": learning_rate,
        "tau": tau,
    }
    recorded = {f"logs::{name}": value for name, value in logs.items()}
    for view, roles in outputs.items():
        for role, values in roles.items():
            for name, value in values.items():
                if name != "embedding":
                    recorded[f"{role}::{name}_{view}"] = value
        recorded[f"embedding::{view}"] = roles["online"]["embedding"]
    new |= states
    return new, recorded, new | {"grads": grads}


def named_trees(meta: dict) -> dict:
    """The starting point, by the rule that README.md gives."""
    images = jax.ShapeDtypeStruct((2, 32, 32, 3), jnp.float64)
    params, state = jax.eval_shape(
        lambda rng, x: network(meta).init(rng, x, True),
        jax.random.PRNGKey(0),
        images,
    )

    def value(role, module, name, shape):
        seed = zlib.crc32(f"0:{role}:{module}:{name}".encode())
        v = np.random.RandomState(seed).randn(*shape)
        if name == "w":
            return v / math.sqrt(math.prod(shape[:-1]))
        return 1 + 0.2 * v if name == "scale" else 0.1 * v

    def mapped(tree, function):
        return {
            module: {n: function(module, n, x) for n, x in entries.items()}
            for module, entries in tree.items()
        }

    def zeros(tree):
        return mapped(tree, lambda m, n, x: np.zeros(x.shape, x.dtype))

    trees = {
        f"{role}_params": mapped(
            params, lambda m, n, x, role=role: value(role, m, n, x.shape)
        )
        for role in ("online", "target")
    }
    return trees | {
        "mu": zeros(params),
        "online_state": zeros(state),
        "target_state": zeros(state),
    }


def digest(name: str, value) -> np.ndarray:
    """L2 norm, sum and eight elements of a tensor; see README.md."""
    flat = np.asarray(value, np.float64).ravel()
    random = np.random.RandomState(zlib.crc32(name.encode()))
    chosen = random.randint(0, flat.size, 8)
    return np.array([np.linalg.norm(flat), flat.sum(), *flat[chosen]])


def flatten(tree) -> dict[str, np.ndarray]:
    """{"module::name": array}, sorted."""
    return {
        f"{module}::{name}": np.asarray(tree[module][name])
        for module in sorted(tree)
        for name in sorted(tree[module])
    }


def distance(ours, official) -> float:
    """Relative, in the Euclidean norm."""
    difference = np.ravel(ours) - np.ravel(official)
    return float(np.linalg.norm(difference) / np.linalg.norm(official))


def check() -> None:
    """Repeats the release's own steps; raises if they differ."""
    path = pathlib.Path(__file__).with_name("train_tiny_resnet_f64.npz")
    with np.load(path) as file:
        golden = dict(file)
    meta = json.loads(str(golden["meta"])) | {"depth": 0}
    trees = {}
    for key, value in golden.items():
        if key.startswith("init::"):
            _, tree, module, name = key.split("::")
            trees.setdefault(tree, {}).setdefault(module, {})[name] = value
    gradients = gradients_of(meta)
    errors = []
    for i in range(meta["steps"]):
        batch = {
            name: golden[f"batch{i}::{name}"]
            for name in ("view1", "view2", "labels")
        }
        step = meta["start_step"] + i
        trees, values, recorded = official_step(
            meta, gradients, trees, step, batch
        )
        errors += [
            distance(value, golden[f"step{i}::{key}"])
            for key, value in values.items()
        ]
        for tree, arrays in recorded.items():
            digests = dict(
                zip(
                    golden[f"names::{tree}"],
                    golden[f"step{i}::digests::{tree}"],
                    strict=True,
                )
            )
            for name, array in flatten(arrays).items():
                # A bias before BatchNorm has a gradient of rounding errors.
                if not name.endswith("/linear::b"):
                    errors.append(distance(digest(name, array), digests[name]))
    worst = max(errors)
    print(f"{path.name}: repeated to a relative error of {worst:.1e}")
    if worst > 1e-12:
        raise SystemExit("This does not say what the release says.")


def squares(random: np.random.RandomState, meta: dict) -> np.ndarray:
    """Images of coloured squares: uint8 [batch, size, size, 3]."""
    side = 4
    shape = (meta["batch"], meta["size"] // side, meta["size"] // side, 3)
    colours = random.randint(0, 256, shape).astype(np.uint8)
    return colours.repeat(side, axis=1).repeat(side, axis=2)


def main() -> None:
    """Checks, records and writes."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=pathlib.Path)
    parser.add_argument("--depth", type=int, choices=NETWORKS, default=50)
    parser.add_argument("--width", type=int, default=1)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--steps", type=int, default=2)
    arguments = parser.parse_args()
    check()

    meta = {
        "depth": arguments.depth,
        "width": arguments.width,
        "batch": arguments.batch,
        "size": arguments.size,
        "steps": arguments.steps,
        **{"start_step": 9, "max_steps": 100, "warmup": 10, "classes": 10},
        **{"hidden": 64, "proj": 32, "lr": 0.2, "wd": 1e-3, "ema": 0.996},
        "recorder": pathlib.Path(__file__).name,
    }
    arrays = {"meta": np.array(json.dumps(meta))}
    trees = named_trees(meta)
    gradients = gradients_of(meta)
    random = np.random.RandomState(0)
    for i in range(meta["steps"]):
        batch = {
            "view1": squares(random, meta),
            "view2": squares(random, meta),
            "labels": random.randint(0, meta["classes"], meta["batch"]),
        }
        arrays |= {f"batch{i}::{name}": a for name, a in batch.items()}
        trees, values, recorded = official_step(
            meta, gradients, trees, meta["start_step"] + i, batch
        )
        arrays |= {
            f"step{i}::{key}": np.asarray(x) for key, x in values.items()
        }
        for tree, modules in recorded.items():
            tensors = flatten(modules)
            arrays[f"names::{tree}"] = np.array(list(tensors))
            arrays[f"step{i}::digests::{tree}"] = np.stack(
                [digest(name, tensor) for name, tensor in tensors.items()]
            )
    outputs, _ = network(meta).apply(
        trees["online_params"],
        trees["online_state"],
        arrays["batch0::view1"] / 255.0,
        False,
    )
    arrays |= {f"eval::{name}": np.asarray(a) for name, a in outputs.items()}
    np.savez_compressed(arguments.out, **arrays)
    print(f"{arguments.out}: {arguments.out.stat().st_size} bytes")


if __name__ == "__main__":
    main()
