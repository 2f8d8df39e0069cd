"""Records what tensorflow-addons makes of the operations that we share.

    python3.11 -m venv addons
    addons/bin/pip install -r requirements-addons.txt
    addons/bin/python tests/golden/record_addons.py

Two operations can be compared: the Gaussian filter, and the moving average of
parameters. Its colour operations cannot: `adjust_hsv_in_yiq` rotates hues in
YIQ, where the release does in HSV, and the release does not sharpen.
"""

import pathlib

import numpy as np
import tensorflow as tf
import tensorflow_addons as tfa

SIGMAS = (0.1, 0.5, 1.0, 2.0)
DECAY = 0.9
STEPS = 5


def blurred(images: np.ndarray) -> dict[str, np.ndarray]:
    """Images blurred with each sigma; black outside, as in the release."""
    taps = 2 * (images.shape[1] // 20) + 1
    return {
        f"blur_{sigma}": tfa.image.gaussian_filter2d(
            images, (taps, taps), sigma, "CONSTANT", 0
        ).numpy()
        for sigma in SIGMAS
    }


def moving_averages(random: np.random.RandomState) -> dict[str, np.ndarray]:
    """A parameter after each step of SGD, and its moving average."""
    parameter = tf.Variable(random.randn(16).astype(np.float32))
    optimizer = tfa.optimizers.MovingAverage(
        tf.keras.optimizers.legacy.SGD(1.0), average_decay=DECAY
    )
    parameters, averages = [parameter.numpy()], [parameter.numpy()]
    for _ in range(STEPS):
        gradient = tf.constant(random.randn(16).astype(np.float32))
        optimizer.apply_gradients([(gradient, parameter)])
        parameters.append(parameter.numpy())
        averages.append(optimizer.get_slot(parameter, "average").numpy())
    return {"parameters": np.stack(parameters), "averages": np.stack(averages)}


def main() -> None:
    """Writes `addons.npz` beside this file."""
    random = np.random.RandomState(0)
    images = random.rand(2, 64, 24, 3).astype(np.float32)
    path = pathlib.Path(__file__).with_name("addons.npz")
    np.savez_compressed(
        path,
        versions=np.array(f"{tf.__version__} {tfa.__version__}"),
        decay=np.array(DECAY),
        images=images,
        **blurred(images),
        **moving_averages(random),
    )
    print(f"{path}: {path.stat().st_size} bytes")


if __name__ == "__main__":
    main()
