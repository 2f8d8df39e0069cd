"""What the release drew for the random views in augment_ops.npz.

    pip install "jax[cpu]==0.10.2"
    python tests/golden/record_draws.py

The file holds views made with `jax.random.PRNGKey(0)`, and the release does not
say what it drew for them. Its keys are split here as it splits them, which
gives the parameters of each image; they must be those in `params_json`.

Source: google-deepmind/deepmind-research `byol/utils/augmentations.py`.
"""

import json
import pathlib

import jax
import numpy as np

# view -> probabilities of blur and solarization.
PROBABILITIES = {"view1": (1.0, 0.0), "view2": (0.1, 0.2)}


def coin(key, probability: float) -> bool:
    return bool(jax.random.uniform(key) <= probability)


def number(key, low: float, high: float) -> float:
    return float(jax.random.uniform(key, minval=low, maxval=high))


def image_draws(keys, blur: float, solarize: float) -> dict:
    """Parameters of one image, from its keys of the four operations."""
    flip, colour, blurring, solarization = keys
    _, colour = jax.random.split(colour)
    order, *values, jitter, gray = jax.random.split(colour, 7)
    ranges = ((-0.4, 0.4), (0.6, 1.4), (0.8, 1.2), (-0.1, 0.1))
    blurred, sigma = jax.random.split(blurring)
    neutral = [0.0, 1.0, 1.0, 0.0]
    return {
        "flip": coin(jax.random.split(flip)[1], 0.5),
        "order": jax.random.permutation(order, np.arange(4)).tolist(),
        "values_bcsh": (
            [number(k, *r) for k, r in zip(values, ranges, strict=True)]
            if coin(jitter, 0.8)
            else neutral
        ),
        "gray": coin(gray, 0.2),
        "sigma": (
            number(jax.random.split(sigma, 1)[0], 0.1, 2.0)
            if coin(blurred, blur)
            else 0.0
        ),
        "solarize": coin(solarization, solarize),
    }


def main() -> None:
    """Compares, and prints the parameters."""
    path = pathlib.Path(__file__).with_name("augment_ops.npz")
    with np.load(path) as file:
        stored = json.loads(str(file["params_json"]))
        count = len(file["images_u8"])
    keys = jax.random.split(jax.random.PRNGKey(0), 2)
    for key, (view, probabilities) in zip(
        keys, PROBABILITIES.items(), strict=True
    ):
        per_image = zip(
            *(jax.random.split(k, count) for k in jax.random.split(key, 4)),
            strict=True,
        )
        draws = [image_draws(k, *probabilities) for k in per_image]
        if draws != stored[f"postprocess_{view}_key0"]:
            raise SystemExit(f"{path.name} holds other parameters of {view}.")
        print(view, json.dumps(draws, indent=1))


if __name__ == "__main__":
    main()
