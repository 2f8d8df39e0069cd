"""Counts against numbers that were worked out by hand."""

import byol_tf
from byol_tf.benchmarks import counting, scaling


def tiny(**arguments):
    return byol_tf.ResNet(
        blocks=(1,), channels=(8,), stem_channels=4, stem="cifar", **arguments
    )


def test_tiny_network_by_hand():
    step = counting.count(tiny(), 6, projector_hidden=10, projection_size=5)
    pixels = 6 * 6
    stem = pixels * 9 * 3 * 4
    block = pixels * (9 * 4 * 8 + 9 * 8 * 8 + 4 * 8)
    heads = 10 * (8 + 5) + 10 * (5 + 5)
    assert step.forward_macs == stem + block + heads
    assert step.step_macs == 8 * step.forward_macs
    # Images; then the inputs of BatchNorm and the outputs of ReLU.
    stem_kept, block_kept = pixels * (3 + 4 + 4), pixels * (3 * 8 + 2 * 8)
    assert step.kept_bytes == 2 * 4 * (stem_kept + block_kept + 4 * 10)
    assert step.norms == (4, 8, 8, 8, 10, 10)
    model = byol_tf.BYOL(tiny(), 10, 5, total_steps=1)
    assert step.parameters == sum(
        v.shape.num_elements() for v in model.trainable_variables
    )
    assert step.state_bytes == 16 * step.parameters


def test_recomputation_by_hand():
    plain = counting.count(tiny(), 6, 10, 5)
    again = counting.count(tiny(recompute=True), 6, 10, 5)
    block = 36 * (9 * 4 * 8 + 9 * 8 * 8 + 4 * 8)
    assert again.step_macs - plain.step_macs == 2 * block
    # Of two views' insides, beside the outputs, one is there at a time.
    inside, output = 36 * 40, 36 * 8
    assert plain.kept_bytes - again.kept_bytes == 4 * (inside - 2 * output)
    assert sum(again.reduced_norms) - sum(plain.reduced_norms) == 2 * 24


def test_ring_all_reduce():
    assert counting.ring(1000, 1) == 0
    assert counting.ring(1000, 2) == 1000
    assert counting.ring(1000, 4) == 1500
    step = counting.count(tiny(), 6, 10, 5)
    # 6 calls or gradients of 48 channels, of two floats of 4 bytes each.
    assert step.norm_bytes(2) == 6 * 48 * 2 * 4
    assert step.norm_reductions == 6 * 6
    assert step.gradient_bytes(2) == 4 * step.parameters


def test_resnet50():
    """ResNet-50 v1.5 at 224 pixels: 4.09 billion multiply-adds.

    The sum over its 53 convolutions, written out; the well-known network of
    4,089,184,256 has a classifier of 2048 x 1000 as well.
    """
    macs, size, channels = 112**2 * 49 * 3 * 64, 56, 64
    for blocks, out, stride in (
        (3, 256, 1),
        (4, 512, 2),
        (6, 1024, 2),
        (3, 2048, 2),
    ):
        inner, after = out // 4, size // stride
        macs += size**2 * channels * inner + after**2 * channels * out
        macs += after**2 * (9 * inner**2 + inner * out)
        size = after
        macs += (blocks - 1) * size**2 * (2 * out * inner + 9 * inner**2)
        channels = out
    assert macs == 4_089_184_256 - 2048 * 1000
    step = counting.count(byol_tf.ResNet(50), 224)
    heads = 4096 * (2048 + 256) + 4096 * (256 + 256)
    assert step.forward_macs == macs + heads
    assert step.parameters == 37_115_944 - 2049 * 1000
    assert len(step.norms) == 55


def test_tables_are_printed(capsys):
    scaling.main(["--encoder_depth=18", "--image_size=32", "--replicas=4"])
    printed = capsys.readouterr().out
    # Encoder and heads without the classifier, 16,961,192 - 513 * 1000.
    assert "| ResNet-18 | 32 | 16,448,192 |" in printed
    # 23 BatchNorms (8 blocks of 2, 4 shortcuts, stem, 2 heads); the 20 of the
    # blocks once more for each view.
    assert "| 138 | 40 |" in printed
