"""BYOL for TensorFlow: Bootstrap Your Own Latent (arXiv 2006.07733).

>>> import byol_tf
>>> encoder = byol_tf.ResNet(depth=18, stem="cifar")
>>> model = byol_tf.BYOL(encoder, total_steps=10_000)
>>> model.compile(optimizer=byol_tf.LARS(
...     byol_tf.WarmupCosine(0.2, 256, total_steps=10_000)))
"""

import os
import sys

# The command line imports what it runs by itself, so that `--help` and a
# mistyped flag are answered before the seconds that TensorFlow takes to load.
_MAIN = getattr(sys.modules["__main__"], "__file__", None) or ""
if os.path.abspath(_MAIN) != os.path.join(
    os.path.dirname(os.path.abspath(__file__)), "main.py"
):
    from byol_tf import augment, deepmind
    from byol_tf.model.byol import BYOL
    from byol_tf.model.normalization import BatchNorm
    from byol_tf.model.resnet import ResNet
    from byol_tf.optim.lars import LARS
    from byol_tf.optim.schedules import WarmupCosine, cosine_tau
    from byol_tf.training.collapse import Collapse
    from byol_tf.training.doctor import CollapseDoctor

    __all__ = [
        "BYOL",
        "LARS",
        "BatchNorm",
        "Collapse",
        "CollapseDoctor",
        "ResNet",
        "WarmupCosine",
        "augment",
        "cosine_tau",
        "deepmind",
    ]
