"""Is a training the same on one device, several, and several machines?

    python tests/equality.py

Trains a small network in float64 for 20 steps, on one device and in the other
ways, each in processes of its own, and prints how far they end apart.
"""

import json
import os
import pathlib
import subprocess
import sys
import tempfile

if __name__ == "__main__":
    sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))

import numpy as np

from byol_tf.benchmarks.scaling import free_ports, tf_config

STEPS = 20
BATCH = 64
TOLERANCE = 1e-9

# Name -> settings, and the number of processes.
WAYS = {
    "1 device": (dict(), 1),
    "2 devices, 8 steps per execution": (
        dict(strategy="mirrored", logical_devices=2, steps_per_execution=8),
        1,
    ),
    "4 devices": (dict(strategy="mirrored", logical_devices=4), 1),
    "2 workers": (dict(strategy="multi_worker"), 2),
}


def train(settings: dict, path: pathlib.Path) -> None:
    """Trains as the settings say; writes weights and metrics as npz."""
    import keras

    import byol_tf
    from byol_tf import augment
    from byol_tf.config import Config
    from byol_tf.data.bundled import open_bundled
    from byol_tf.data.pipeline import training_batches
    from byol_tf.training.cluster import cluster_of
    from byol_tf.training.strategy import distributed, make_strategy

    config = Config(batch_size=BATCH, **settings)
    strategy = make_strategy(config)
    keras.utils.set_random_seed(0)
    with strategy.scope():
        encoder = byol_tf.ResNet(
            blocks=(1, 1), channels=(8, 16), stem_channels=8, dtype="float64"
        )
        model = byol_tf.BYOL(
            *(encoder, 16, 8, 0.9),
            total_steps=STEPS,
            num_classes=10,
            image_size=28,
            dtype="float64",
        )
        rate = byol_tf.WarmupCosine(
            0.5, BATCH, total_steps=STEPS, warmup_steps=4
        )
        model.compile(
            byol_tf.LARS(rate, weight_decay=1e-4),
            steps_per_execution=config.steps_per_execution,
        )
        model.optimizer.build(model.trainable_variables)

    metrics = {}
    source = open_bundled().train
    recipes = (augment.T, augment.T_PRIME)

    def batches(worker, workers):
        return training_batches(
            *(source, BATCH, 28, 0, recipes), worker=worker, workers=workers
        )

    def note(batch, logs):
        step = int(model.optimizer.iterations.numpy())
        for name, value in logs.items():
            metrics[f"metrics/{step}/{name}"] = float(value)

    model.fit(
        distributed(batches, BATCH, strategy),
        steps_per_epoch=STEPS,
        callbacks=[keras.callbacks.LambdaCallback(on_train_batch_end=note)],
        verbose=0,
    )
    if not cluster_of(config).is_chief:
        return
    weights = {}
    for network in (model.online, model.target):
        for i, weight in enumerate(network.weights):
            is_statistic = weight.name.startswith(("moving_", "updates"))
            kind = "BatchNorm" if is_statistic else network.name
            array = weight.numpy()
            weights[f"{kind}/{network.name}/{i}"] = array
            if kind != "BatchNorm" and array.ndim == 1:
                weights[f"biases, gamma, beta/{network.name}/{i}"] = array
    np.savez(path, **weights, **metrics)


def trained(way: str, folder: pathlib.Path) -> dict[str, np.ndarray]:
    """The result of `train`, run in as many processes as the way says."""
    settings, count = WAYS[way]
    path = folder / f"{way}.npz"
    workers = [f"127.0.0.1:{port}" for port in free_ports(count)]
    processes = []
    for index in range(count):
        environment = dict(os.environ)
        if count > 1:
            environment["TF_CONFIG"] = tf_config(workers, index)
        processes.append(
            subprocess.Popen(
                [sys.executable, __file__, json.dumps(settings), str(path)],
                env=environment,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                text=True,
            )
        )
    for process in processes:
        _, stderr = process.communicate(timeout=500)
        assert process.returncode == 0, stderr
    with np.load(path) as arrays:
        return dict(arrays)


def differences(one: dict, other: dict) -> dict[str, float]:
    """The greatest |a - b| / max(1, |a|) for each kind of value."""
    errors = {}
    for name, a in one.items():
        if name not in other:  # A step in the midst of an execution.
            continue
        kind = name.split("/")[0]
        error = np.max(np.abs(a - other[name]) / np.maximum(1, np.abs(a)))
        errors[kind] = max(errors.get(kind, 0.0), float(error))
    return errors


def main() -> None:
    """Prints the table."""
    with tempfile.TemporaryDirectory() as folder:
        one, *others = WAYS
        results = {way: trained(way, pathlib.Path(folder)) for way in WAYS}
    rows = {way: differences(results[one], results[way]) for way in others}
    kinds = list(rows[others[0]])
    print(f"| against {one} | {' | '.join(kinds)} |")
    print(f"| --- |{' ---: |' * len(kinds)}")
    for way, errors in rows.items():
        cells = " | ".join(f"{errors[kind]:.1e}" for kind in kinds)
        print(f"| {way} | {cells} |")


if __name__ == "__main__":
    if len(sys.argv) == 1:
        main()
    else:
        train(json.loads(sys.argv[1]), pathlib.Path(sys.argv[2]))
