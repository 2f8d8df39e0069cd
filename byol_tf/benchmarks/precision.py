"""Is every --precision trained to the same accuracy? A table of kNN.

    python -m byol_tf.benchmarks.precision

Trains one small encoder on the bundled images in each precision and with each
seed, by the flags of the command line and the job `pretrain`, each in a process
of its own, and prints Markdown: the kNN accuracy of the encoder beside that of
the same encoder before its training. The network is thin and the images small
because CPUs are slow in float16: TensorFlow has no fast gradient of kernels
there. The seeds of float32 tell how much is noise.
"""

import argparse
import json
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras

from byol_tf import command_line, pretrain
from byol_tf.benchmarks.scaling import table
from byol_tf.config import Config
from byol_tf.data.pipeline import evaluation_batches, open_dataset
from byol_tf.evaluation.features import extract
from byol_tf.evaluation.knn import knn_accuracy
from byol_tf.model.build import build_encoder, load_encoder

PRECISIONS = Config.__dataclass_fields__["precision"].metadata["choices"]
RECIPE = (
    "--dataset=bundled",
    "--image_size=14",
    "--encoder_blocks=1,1",
    "--encoder_channels=16,32",
    "--stem_channels=8",
    "--projector_hidden=64",
    "--projection_size=32",
    "--batch_size=32",
    "--steps=400",
    "--warmup_epochs=0.5",
    "--base_learning_rate=8",
    "--weight_decay=1e-6",
    "--tau_base=0.9",
    "--crop_min_area=0.5",
    "--monitor_every=400",
    "--monitor_images=500",
)


def main(arguments=None) -> None:
    """Trains in all precisions, and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--precision", nargs="+", choices=PRECISIONS, default=PRECISIONS
    )
    parser.add_argument("--seed", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument(
        "--child", nargs=argparse.REMAINDER, help=argparse.SUPPRESS
    )
    arguments = parser.parse_args(arguments)
    if arguments.child:
        print(json.dumps(measured(arguments.child)))
        return
    print_table(
        [
            result(precision, seed)
            for precision in arguments.precision
            for seed in arguments.seed
        ]
    )


def result(precision: str, seed: int, *flags: str) -> dict:
    """`measured` by the recipe and these flags, in a process of its own.

    Raises:
      RuntimeError: if it failed.
    """
    with tempfile.TemporaryDirectory() as folder:
        own = [f"--precision={precision}", f"--seed={seed}"]
        own += [f"--run_dir={folder}/run"]
        process = subprocess.run(
            [sys.executable, "-m", "byol_tf.benchmarks.precision", "--child"]
            + [*RECIPE, *flags, *own],
            capture_output=True,
            text=True,
        )
    if process.returncode:
        raise RuntimeError(
            f"--precision={precision} failed:\n{process.stderr[-2000:]}"
        )
    return json.loads(process.stdout.splitlines()[-1])


def measured(flags: list[str]) -> dict:
    """Pretrains as the flags of the command line say.

    Returns:
      `precision`, `seed`, `steps`; the kNN accuracies `learned` and
      `untrained`, in [0, 1]; `seconds` of the training.
    """
    config = command_line.parse(["byol_tf", *flags])
    config = pretrain.run(config)
    folder = pathlib.Path(config.run_dir)
    trained = json.loads((folder / "report.json").read_text())["pretrain"]
    return {
        "precision": config.precision,
        "seed": config.seed,
        "steps": trained["steps"],
        "learned": knn_of(load_encoder(folder / "encoder.keras"), config),
        "untrained": knn_of(build_encoder(config), config),
        "seconds": trained["seconds"],
    }


def knn_of(encoder: keras.Model, config: Config) -> float:
    """Accuracy on the held-out images, in [0, 1]."""
    dataset, config = open_dataset(config)
    arrays = []
    for source in (dataset.train, dataset.test):
        arrays += extract(
            encoder,
            evaluation_batches(source, config.image_size, config.eval_crop),
        )
    return knn_accuracy(*arrays)


def print_table(results: list[dict]) -> None:
    """A row for each precision, of what `measured` returned for its seeds."""
    seeds = sorted({result["seed"] for result in results})
    rows = []
    for precision in dict.fromkeys(result["precision"] for result in results):
        of_seed = {
            result["seed"]: result
            for result in results
            if result["precision"] == precision
        }
        learned, untrained, seconds = (
            [result[name] for result in of_seed.values()]
            for name in ("learned", "untrained", "seconds")
        )
        rows.append(
            [
                precision,
                *(
                    percent([of_seed[seed]["learned"]])
                    if seed in of_seed
                    else ""
                    for seed in seeds
                ),
                percent(learned),
                percent(untrained),
                f"{statistics.mean(seconds):.0f}",
            ]
        )
    columns = " | ".join(f"seed {seed}" for seed in seeds)
    print(f"kNN top-1, %, on {os.cpu_count()} cores:\n")
    table(f"precision | {columns} | mean | not trained | seconds", *rows)


def percent(accuracies: list[float]) -> str:
    """Their mean."""
    return f"{100 * statistics.mean(accuracies):.1f}"


if __name__ == "__main__":
    main()
