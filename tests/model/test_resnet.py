"""The encoder: sizes of the official networks, arithmetic, saving."""

import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf
from conftest import tiny_encoder

import byol_tf
from byol_tf.model.heads import Network

# Trainable parameters of the official encoders, and of the whole online
# network with heads 4096/256 and a classifier of 1000.
OFFICIAL = {
    (18, 1): (11_180_736, 16_961_192),
    (34, 1): (21_288_896, 27_069_352),
    (50, 1): (23_508_032, 37_115_944),
    (50, 2): (93_907_072, 117_951_592),
    (101, 1): (42_500_160, None),
    (152, 1): (58_143_808, None),
    (200, 1): (62_624_832, None),
}


def trainable(model) -> int:
    return sum(int(np.prod(v.shape)) for v in model.trainable_variables)


@pytest.mark.parametrize(
    "depth, width",
    [
        pytest.param(*network, marks=pytest.mark.slow)
        if network in ((50, 2), (152, 1), (200, 1))
        else network
        for network in OFFICIAL
    ],
)
def test_official_parameter_counts(depth, width):
    encoder = byol_tf.ResNet(depth, width)
    expected, with_heads = OFFICIAL[depth, width]
    assert trainable(encoder) == expected
    if with_heads:
        network = Network(encoder, 4096, 256, 1000)
        assert trainable(network) == with_heads


def test_official_tiny_resnet():
    encoder = byol_tf.ResNet(
        blocks=(1, 1, 1, 1), channels=(8, 8, 8, 8), bottleneck=False
    )
    features = encoder(np.zeros((2, 32, 32, 3)))
    assert features.shape == (2, 8)
    assert features.dtype == tf.float32
    assert encoder.initial_conv.kernel.shape == (7, 7, 3, 64)


@pytest.mark.parametrize("stem, size", [("imagenet", 7), ("cifar", 28)])
def test_stems_shrink_as_described(stem, size):
    encoder = byol_tf.ResNet(18, stem=stem)
    sizes = []
    encoder.residual_blocks[0].call = lambda x, training: (
        sizes.append(x.shape),
        x,
    )[1]
    encoder.residual_blocks = encoder.residual_blocks[:1]
    encoder(np.zeros((1, 28, 28, 3)))
    assert sizes == [(1, size, size, 64)]


def numpy_conv(x, kernel, stride):
    """SAME convolution by definition: the extra row of padding comes last."""
    size, out = kernel.shape[0], -(-x.shape[1] // stride)
    total = max((out - 1) * stride + size - x.shape[1], 0)
    before = total // 2
    edges = (before, total - before)
    x = np.pad(x, [(0, 0), edges, edges, (0, 0)])
    result = np.zeros((x.shape[0], out, out, kernel.shape[3]))
    for i in range(out):
        for j in range(out):
            y, z = i * stride, j * stride
            patch = x[:, y : y + size, z : z + size]
            result[:, i, j] = np.tensordot(patch, kernel, 3)
    return result


def numpy_block(block, x):
    def norm(layer, y):
        return y / np.sqrt(1 + 1e-5) * layer.gamma.numpy() + layer.beta.numpy()

    def kernel(layer):
        return layer.kernel.numpy()

    strides = (1, block.strides, 1) if block.bottleneck else (block.strides, 1)
    y = x
    for i, stride in enumerate(strides):
        y = norm(block.norms[i], numpy_conv(y, kernel(block.convs[i]), stride))
        if i < len(strides) - 1:
            y = np.maximum(y, 0)
    if block.projection:
        x = numpy_conv(x, kernel(block.shortcut_conv), block.strides)
        x = norm(block.shortcut_norm, x)
    return np.maximum(x + y, 0)


@pytest.mark.parametrize("bottleneck", [False, True])
def test_network_equals_numpy(float64, bottleneck):
    encoder = byol_tf.ResNet(
        blocks=(2, 1), channels=(8, 16), bottleneck=bottleneck, stem_channels=4
    )
    for weight in encoder.trainable_variables:
        noise = np.random.RandomState(0).randn(*weight.shape)
        weight.assign(weight + 0.1 * noise)
    images = np.random.RandomState(1).rand(2, 16, 16, 3)

    mean, deviation = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    x = (images - np.array(mean)) / np.array(deviation)
    x = numpy_conv(x, encoder.initial_conv.kernel.numpy(), 2)
    norm = encoder.initial_norm
    x = x / np.sqrt(1 + 1e-5) * norm.gamma.numpy() + norm.beta.numpy()
    x = np.maximum(x, 0)
    padded = np.pad(
        x, [(0, 0), (0, 1), (0, 1), (0, 0)], constant_values=-np.inf
    )
    x = np.stack(
        [
            [
                padded[:, i : i + 3, j : j + 3].max((1, 2))
                for j in range(0, 8, 2)
            ]
            for i in range(0, 8, 2)
        ]
    ).transpose(2, 0, 1, 3)
    for block in encoder.residual_blocks:
        x = numpy_block(block, x)
    np.testing.assert_allclose(encoder(images), x.mean((1, 2)), rtol=1e-10)


def test_feature_maps_of_resnet50():
    encoder = byol_tf.ResNet(50)
    assert encoder.strides == (4, 8, 16, 32)
    maps = encoder.feature_maps(np.zeros((1, 64, 96, 3)))
    assert [tuple(x.shape) for x in maps] == [
        (1, 16, 24, 256),
        (1, 8, 12, 512),
        (1, 4, 6, 1024),
        (1, 2, 3, 2048),
    ]


@pytest.mark.parametrize("bottleneck", [False, True])
@pytest.mark.parametrize(
    "output_stride, strides, dilations",
    [
        (None, (1, 2, 2, 2), (1, 1, 1, 1)),
        (32, (1, 2, 2, 2), (1, 1, 1, 1)),
        (16, (1, 2, 2, 1), (1, 1, 1, 2)),
        (8, (1, 2, 1, 1), (1, 1, 2, 4)),
        (4, (1, 1, 1, 1), (1, 2, 4, 8)),
    ],
)
def test_dilations_stand_for_strides(
    output_stride, strides, dilations, bottleneck
):
    encoder = byol_tf.ResNet(
        blocks=(2, 2, 2, 2),
        channels=(4, 4, 4, 4),
        bottleneck=bottleneck,
        stem_channels=4,
        output_stride=output_stride,
    )
    maps = encoder.feature_maps(np.zeros((1, 64, 64, 3)))
    assert [64 // x.shape[1] for x in maps] == list(encoder.strides)
    assert encoder.strides == tuple(4 * np.cumprod(strides))
    for number, block in enumerate(encoder.residual_blocks):
        group, place = divmod(number, 2)
        stride = 1 if place else strides[group]
        assert np.prod([conv.strides[0] for conv in block.convs]) == stride
        if block.projection:
            assert block.shortcut_conv.strides == (stride, stride)
        assert [conv.dilation_rate[0] for conv in block.convs] == [
            dilations[group] if conv.kernel_size == (3, 3) else 1
            for conv in block.convs
        ]


@pytest.mark.parametrize("bottleneck", [False, True])
@pytest.mark.parametrize("output_stride, step", [(2, 2), (1, 4)])
def test_dilated_group_equals_numpy(float64, output_stride, step, bottleneck):
    """Of every `step`th place it sees only every `step`th one, as undilated."""
    arguments = dict(
        blocks=(1, 1, 2),
        channels=(8, 8, 12),
        bottleneck=bottleneck,
        stem="cifar",
        stem_channels=4,
    )
    strided = byol_tf.ResNet(**arguments)
    encoder = byol_tf.ResNet(**arguments, output_stride=output_stride)
    for weight in strided.trainable_variables:
        weight.assign_add(0.1 * tf.random.normal(weight.shape, dtype="float64"))
    encoder.set_weights(strided.get_weights())
    images = np.random.RandomState(1).rand(2, 16, 16, 3)
    _, before, after = encoder.feature_maps(images)
    assert after.shape == (2, *[16 // output_stride] * 2, 12)
    for i in range(step):
        for j in range(step):
            x = before[:, i::step, j::step].numpy()
            for block in encoder.residual_blocks[2:]:
                x = numpy_block(block, x)
            np.testing.assert_allclose(
                after[:, i::step, j::step], x, rtol=1e-10, atol=1e-12
            )


def test_initial_distribution_is_the_official_one():
    encoder = byol_tf.ResNet(18)
    for conv in (
        encoder.initial_conv,
        encoder.residual_blocks[3].convs[1],
        encoder.residual_blocks[7].convs[0],
    ):
        kernel = conv.kernel.numpy()
        deviation = 1 / np.sqrt(np.prod(kernel.shape[:3]))
        assert np.abs(kernel).max() <= 2 * deviation * (1 + 1e-6)
        np.testing.assert_allclose(kernel.std(), 0.8796 * deviation, rtol=0.02)
        assert abs(kernel.mean()) < 0.05 * deviation


def test_two_networks_differ():
    a, b = tiny_encoder(), tiny_encoder()
    assert not np.allclose(a.initial_conv.kernel, b.initial_conv.kernel)


def test_zero_init_gamma_is_for_bottlenecks_last_norm():
    encoder = byol_tf.ResNet(50, zero_init_gamma=True)
    for block in encoder.residual_blocks:
        sums = [float(np.sum(norm.gamma)) for norm in block.norms]
        assert sums[-1] == 0
        assert all(sums[:-1])
    assert all(
        np.all(block.norms[-1].gamma == 1)
        for block in byol_tf.ResNet(18, zero_init_gamma=True).residual_blocks
    )


def test_gray_images_are_three_equal_channels():
    encoder = tiny_encoder()
    gray = np.random.RandomState(0).rand(2, 16, 16, 1)
    np.testing.assert_allclose(
        encoder(gray), encoder(np.repeat(gray, 3, -1)), rtol=1e-5
    )


@pytest.mark.parametrize(
    "arguments, message",
    [
        (dict(depth=42), "depth 42"),
        (dict(), "either a depth"),
        (dict(depth=18, blocks=(1,), channels=(8,)), "either a depth"),
        (dict(blocks=(1, 1), channels=(8,)), "as many blocks"),
        (dict(depth=18, stem="alexnet"), "alexnet"),
        (dict(depth=18, width=0), "width 0"),
        (dict(depth=18, width=1.5), "width 1.5"),
        (dict(depth=18, blocks=(1, 1)), "either a depth"),
        (dict(depth=18, bottleneck=True), "either a depth"),
        (dict(blocks=(1,), channels=(6,), bottleneck=True), "divisible by 4"),
        (dict(depth=18, output_stride=2), "less than the stem's stride, 4"),
    ],
)
def test_impossible_networks_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        byol_tf.ResNet(**arguments)


def test_saved_encoder_loads_in_a_new_process(tmp_path):
    encoder = tiny_encoder()
    images = np.random.RandomState(0).rand(4, 20, 20, 3).astype(np.float32)
    encoder(images, training=True)  # So that BatchNorm has something to lose.
    encoder.save(tmp_path / "encoder.keras")
    np.save(tmp_path / "images.npy", images)
    subprocess.run(
        [
            sys.executable,
            "-c",
            "import byol_tf, keras, numpy as np, sys;"
            "encoder = keras.saving.load_model(sys.argv[1] + '/encoder.keras');"
            "images = np.load(sys.argv[1] + '/images.npy');"
            "np.save(sys.argv[1] + '/features.npy', encoder(images))",
            str(tmp_path),
        ],
        check=True,
    )
    np.testing.assert_allclose(
        np.load(tmp_path / "features.npy"), encoder(images), rtol=1e-6
    )


def test_float64_policy(float64):
    assert tiny_encoder()(np.zeros((1, 8, 8, 3))).dtype == tf.float64


def test_mixed_precision_gives_float32_features():
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        encoder = tiny_encoder()
        features = encoder(np.random.rand(2, 16, 16, 3), training=True)
    finally:
        keras.config.set_dtype_policy("float32")
    assert features.dtype == tf.float32
    assert np.isfinite(features).all()
