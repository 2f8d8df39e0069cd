"""Sizes read off the shapes of parameters."""

import numpy as np
import pytest

from byol_tf.deepmind import Architecture, to_haiku
from byol_tf.model.byol import BYOL
from byol_tf.model.resnet import ResNet


def parameters(num_classes=10, **arguments) -> dict:
    model = BYOL(
        ResNet(**arguments), 24, 12, total_steps=1, num_classes=num_classes
    )
    return to_haiku(model)["online_params"]


@pytest.mark.parametrize(
    "arguments, depth, width",
    [
        ({"depth": 18}, 18, 1),
        ({"blocks": (1, 1, 1, 1), "channels": (8, 8, 8, 8)}, None, 1),
        (
            {"blocks": (1, 1, 1, 1), "channels": (8, 8, 8, 8), "width": 3},
            None,
            3,
        ),
        (
            {"blocks": (2, 1), "channels": (8, 12), "bottleneck": True},
            None,
            1,
        ),
    ],
)
def test_sizes(arguments, depth, width):
    found = Architecture.of_parameters(parameters(**arguments))
    encoder = ResNet(**arguments)
    assert (found.depth, found.width) == (depth, width)
    assert found.blocks == encoder.blocks
    assert found.channels == encoder.channels
    assert found.bottleneck == encoder.bottleneck
    assert found.stem_channels == 64
    assert (found.projector_hidden, found.projection_size) == (24, 12)
    assert found.num_classes == 10
    count = sum(
        v.size for m in parameters(**arguments).values() for v in m.values()
    )
    assert found.parameter_count == count


def test_a_stem_that_is_not_the_releases():
    arguments = {"blocks": (1, 2), "channels": (8, 12), "stem_channels": 10}
    found = Architecture.of_parameters(parameters(None, **arguments))
    assert (found.stem_channels, found.width) == (10, 1)
    assert found.channels == (8, 12)
    assert found.num_classes is None
    assert str(found) == (
        "ResNet(blocks=(1, 2), channels=(8, 12), stem_channels=10, width=1), "
        "projector_hidden=24, projection_size=12, num_classes=None"
    )


def test_published_large_ones_by_their_shapes():
    """ResNet-200 of width 2, without making one."""
    params = {
        "res_net200/~/initial_conv_1": {
            "w": np.broadcast_to(0, (7, 7, 3, 128))
        },
        "projector/linear": {"w": np.broadcast_to(0, (4096, 4096))},
        "projector/linear_1": {"w": np.broadcast_to(0, (4096, 256))},
        "classifier": {"w": np.broadcast_to(0, (4096, 1000))},
    }
    for group, (blocks, channels) in enumerate(
        ((3, 512), (24, 1024), (36, 2048), (3, 4096))
    ):
        path = f"res_net200/~/block_group_{group}/~"
        params[f"{path}/block_0/~/shortcut_conv"] = {
            "w": np.broadcast_to(0, (1, 1, 64, channels))
        }
        for block in range(blocks):
            params[f"{path}/block_{block}/~/conv_2"] = {
                "w": np.broadcast_to(0, (1, 1, 64, channels))
            }
    found = Architecture.of_parameters(params)
    assert found.parameter_count == 274_173_032
    assert str(found) == (
        "ResNet(depth=200, width=2), projector_hidden=4096, "
        "projection_size=256, num_classes=1000"
    )


def test_what_is_no_such_network():
    v2 = parameters(depth=18)
    v2["res_net18/~/final_batchnorm"] = {"scale": np.ones((1, 1, 1, 512))}
    with pytest.raises(ValueError, match="ResNet v2"):
        Architecture.of_parameters(v2)
    for missing in ("projector/linear", "res_net18/~/initial_conv"):
        params = parameters(depth=18)
        del params[missing]
        with pytest.raises(ValueError, match=missing.rpartition("/")[2]):
            Architecture.of_parameters(params)
    with pytest.raises(ValueError, match="0 parameters are named …/initial"):
        Architecture.of_parameters({})
    params = parameters(depth=18)
    params["classifier"]["w"] = np.zeros((0, 10**11))
    with pytest.raises(ValueError, match=r"classifier::w has the shape \(0, "):
        Architecture.of_parameters(params)


def test_blocks_are_counted_not_believed():
    params = parameters(depth=18)
    far = "res_net18/~/block_group_3/~/block_99999999/~/conv_0"
    params[far] = {"w": np.zeros((1, 1, 1, 1))}
    assert Architecture.of_parameters(params).blocks == (2, 2, 2, 3)
