"""A contestant: the training step of lightly's BYOL example, on torch.

Source: lightly 1.6, `examples/pytorch/byol.py`, in whose words the step is
written; the heads have the lengths of the setting.
"""

import copy
import json
import sys
import time

from byol_tf.benchmarks import peers
from byol_tf.benchmarks.alternation import answer
from byol_tf.benchmarks.memory import peak, resident

MODES = ("float32", "channels_last", "bfloat16", "compiled")


def main() -> None:
    """Builds what the first argument says, and answers questions."""
    setting = json.loads(sys.argv[1])
    peers.declare_torchvision_operations()
    import lightly.loss  # noqa: F401, what all of them import
    import torchvision  # noqa: F401

    before = resident()
    step = build(**setting)

    def steps(count: int) -> list[float]:
        seconds = []
        for _ in range(count):
            start = time.perf_counter()
            step()
            seconds.append(time.perf_counter() - start)
        return seconds

    answer({"steps": steps, "memory": lambda: peak() - before})


def build(
    depth: int,
    size: int,
    batch: int,
    hidden: int,
    projection: int,
    mode: str = "float32",
):
    """The step, as a function without arguments; it waits for the loss.

    On a GPU where torch has one.

    Args:
      depth: of torchvision's ResNet.
      size: of the images, in pixels.
      batch: images.
      hidden: hidden length of the heads.
      projection: their output length.
      mode: one of MODES; the last two are channels-last as well.
    """
    import torch
    import torchvision
    from lightly.loss import NegativeCosineSimilarity
    from lightly.models.modules import (
        BYOLPredictionHead,
        BYOLProjectionHead,
    )
    from lightly.models.utils import deactivate_requires_grad, update_momentum

    resnet = getattr(torchvision.models, f"resnet{depth}")()
    features = resnet.fc.in_features

    class BYOL(torch.nn.Module):
        def __init__(self):
            super().__init__()
            layers = list(resnet.children())[:-1]
            self.backbone = torch.nn.Sequential(*layers)
            self.projection_head = BYOLProjectionHead(
                features, hidden, projection
            )
            self.prediction_head = BYOLPredictionHead(
                projection, hidden, projection
            )
            self.backbone_momentum = copy.deepcopy(self.backbone)
            self.projection_head_momentum = copy.deepcopy(self.projection_head)
            deactivate_requires_grad(self.backbone_momentum)
            deactivate_requires_grad(self.projection_head_momentum)

        def forward(self, x):
            y = self.backbone(x).flatten(start_dim=1)
            return self.prediction_head(self.projection_head(y))

        def forward_momentum(self, x):
            y = self.backbone_momentum(x).flatten(start_dim=1)
            return self.projection_head_momentum(y).detach()

    device = "cuda" if torch.cuda.is_available() else "cpu"
    model = BYOL().to(device)
    views = [torch.rand(batch, 3, size, size, device=device) for _ in range(2)]
    if mode != "float32":
        model = model.to(memory_format=torch.channels_last)
        views = [view.to(memory_format=torch.channels_last) for view in views]
    # On a GPU the compiled step is in mixed precision as well: its fastest.
    autocast = mode == "bfloat16" or (mode, device) == ("compiled", "cuda")
    criterion = NegativeCosineSimilarity()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.06)

    def losses(x0, x1):
        with torch.autocast(device, torch.bfloat16, enabled=autocast):
            p0, z0 = model(x0), model.forward_momentum(x0)
            p1, z1 = model(x1), model.forward_momentum(x1)
            return 0.5 * (criterion(p0, z1) + criterion(p1, z0))

    if mode == "compiled":
        losses = torch.compile(losses)

    def step():
        update_momentum(model.backbone, model.backbone_momentum, m=0.99)
        update_momentum(
            model.projection_head, model.projection_head_momentum, m=0.99
        )
        loss = losses(*views)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        loss.item()

    return step


if __name__ == "__main__":
    main()
