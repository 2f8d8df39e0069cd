"""The published figures, and when a measurement is not theirs."""

import types

import pytest

import byol_tf
from byol_tf.config import Config
from byol_tf.evaluation import paper
from byol_tf.evaluation.protocols import PROTOCOLS

IMAGENET = "tfds:imagenet2012:5.1.0"


def test_figures_by_name():
    assert paper.published("linear_sweep", "best rate", "top1", IMAGENET) == (
        74.3,
        "ImageNet",
    )
    assert paper.published("knn", "k = 20", "top1", IMAGENET) is None
    name = "10 % of the labels"
    assert paper.published("semi_supervised", name, "top5", "bundled")[0] == 89
    row = ("", "mean_per_class", "pets")
    assert paper.published("transfer", *row) == (90.4, "Pets")
    assert paper.published("transfer_finetune", *row) == (91.7, "Pets")
    folder = ("", "top1", "birdsnap:PATH")
    assert paper.published("transfer", *folder) == (57.2, "Birdsnap")
    assert paper.published("transfer", "", "top1", "bundled") is None
    # Another metric than the paper's has no figure to stand beside.
    row = ("fine-tuned", "top5", "cifar10")
    assert paper.published("transfer_finetune", *row) is None
    assert paper.published("transfer", "", "top1", "pets") is None
    assert {protocol for protocol, _, _ in paper.IMAGENET} <= set(PROTOCOLS)


def network(depth, width, **changes):
    """What `network_of` looks at, of a large ResNet."""
    config = {
        "depth": depth,
        "width": width,
        "stem": "imagenet",
        "stem_channels": 64,
        "normalization": "batch",
    }
    return types.SimpleNamespace(
        get_config=lambda: config | changes, count_params=lambda: 250_000_000
    )


def test_the_networks_with_figures_of_their_own():
    row = ("linear_sweep", "best rate", "top1", IMAGENET)
    large = paper.network_of(network(200, 2))
    assert large == (200, 2)
    expected = (79.6, "ImageNet, ResNet-200 2x")
    assert paper.published(*row, large) == expected
    row = ("semi_supervised", "1 % of the labels", "top5", IMAGENET)
    assert paper.published(*row, (50, 4)) == (87.9, "ImageNet, ResNet-50 4x")
    # Others stand beside ResNet-50's.
    for other in ((101, 1), paper.network_of(network(50, 2, stem="cifar"))):
        assert paper.published(*row, other) == (78.4, "ImageNet")
    row = ("transfer", "", "mean_per_class", "pets")
    assert paper.published(*row, large) == (90.4, "Pets")
    for figures in paper.IMAGENET.values():
        assert list(figures.values()) == sorted(figures.values())


def test_the_releases_figure_is_not_called_the_papers():
    row = ("linear", "rate 0.2", "top1", IMAGENET)
    assert paper.published(*row) == (74.4, "ImageNet, the release's README")
    assert paper.published(*row, (200, 2)) == (
        79.6,
        "ImageNet, ResNet-200 2x, the release's README",
    )


def test_a_larger_published_network_differs_where_it_has_no_figure():
    config = Config(
        image_size=224,
        eval_crop=0.875,
        encoder_depth=200,
        encoder_width=2,
        dataset=IMAGENET,
        epochs=1000,
        batch_size=4096,
    )
    large = network(200, 2)

    def found(protocol, data=IMAGENET, pretraining=config):
        return paper.differences(protocol, config, pretraining, large, data)

    assert found("linear_sweep") == []
    published = Config(
        mode="convert", deepmind_checkpoint="there/pretrain_res200x2.pkl"
    )
    assert found("linear_sweep", pretraining=published) == []
    assert found("transfer", "pets", published) == [
        "encoder: 250,000,000 weights, no ResNet-50",
        "pretraining: that of pretrain_res200x2.pkl",
    ]


def differences(encoder, data=IMAGENET, **settings):
    config = Config(
        image_size=224,
        eval_crop=0.875,
        dataset=IMAGENET,
        epochs=1000,
        batch_size=4096,
    )
    changed = config.resolved(**settings)
    return paper.differences("linear_sweep", changed, config, encoder, data)


@pytest.fixture(scope="module")
def resnet50():
    encoder = byol_tf.ResNet(depth=50)
    encoder.build((None, 224, 224, 3))
    return encoder


def test_the_papers_own_protocol_has_no_differences(resnet50):
    assert differences(resnet50) == []
    # Its default is the published one.
    assert differences(resnet50, linear_epochs=80) == []


def test_each_difference_is_named(resnet50):
    assert differences(resnet50, linear_epochs=2) == [
        "--linear_epochs: 2, not 80"
    ]
    crop = differences(resnet50, eval_crop=1.0, train_split="train[:1%]")
    assert crop == [
        "--train_split: train[:1%], not train",
        "--eval_crop: 1.0, not 0.875",
    ]
    assert differences(resnet50, image_size=64) == ["images of 64 pixels"]
    assert differences(resnet50, data="bundled") == ["data: bundled"]
    found = paper.differences(
        "knn",
        Config(image_size=224, eval_crop=0.875),
        Config(dataset="bundled", epochs=300),
        resnet50,
        "pets",
    )
    assert found == ["pretraining: 300 epochs of bundled"]
    small = byol_tf.ResNet(blocks=(1,), channels=(8,), stem_channels=8)
    small.build((None, 32, 32, 3))
    (found,) = differences(small)
    assert found == f"encoder: {small.count_params():,} weights, no ResNet-50"


@pytest.mark.parametrize(
    "protocol, data, named",
    [
        ("linear_sweep", IMAGENET, "validation_fraction train_split eval_crop"),
        ("linear_sweep", "bundled", "validation_fraction eval_crop"),
        ("linear", IMAGENET, "train_split eval_crop"),
        ("knn", "bundled", "eval_crop"),
        ("transfer", "bundled", "validation_fraction"),
        ("transfer", "pets", ""),
        ("transfer_finetune", "pets:PATH", "eval_crop"),
    ],
)
def test_settings_without_effect_are_no_difference(protocol, data, named):
    config = Config(
        image_size=224,
        eval_crop=1.0,
        validation_fraction=0.2,
        train_split="train[:50%]",
        classifier_batch_size=17,  # The rows say what it came to.
    )
    found = paper.differences(protocol, config, None, network(50, 1), data)
    flags = [x.split(":")[0][2:] for x in found if x.startswith("--")]
    assert flags == named.split()


def test_the_batch_that_was_used():
    def found(protocol, *sizes):
        config = Config(image_size=224, eval_crop=0.875)
        differs = paper.differences(
            protocol, config, None, network(50, 1), IMAGENET, sizes
        )
        return [x for x in differs if "batch" in x]

    assert found("linear_sweep", 1024, 1024) == []
    assert found("linear", 110) == ["batches of 110 images, not 1024"]
    assert found("semi_supervised", 110, 110, 1024, 500) == [
        "batches of 110 and 500 images, not 1024"
    ]
    assert found("transfer_finetune", 256) == []
    assert found("transfer_finetune", 1024) == [
        "batches of 1024 images, not 256"
    ]
    assert found("knn", None) == []


def of_pretraining(resnet50, **settings):
    config = Config(image_size=224, eval_crop=0.875)
    run = Config(**{"dataset": IMAGENET, "epochs": 1000} | settings)
    return paper.differences("linear", config, run, resnet50, IMAGENET)


def test_what_the_pretraining_was(resnet50):
    assert of_pretraining(resnet50, batch_size=4096) == []
    assert of_pretraining(resnet50, batch_size=64, predictor="none") == [
        "pretraining: --batch_size=64",
        "pretraining: --predictor=none",
    ]
    converted = dict(mode="convert")
    path = "there/pretrain_res50x1.pkl"
    assert of_pretraining(resnet50, deepmind_checkpoint=path, **converted) == []
    path = "ablations/res50x1_crop_only.pkl"
    assert of_pretraining(resnet50, deepmind_checkpoint=path, **converted) == [
        "pretraining: that of res50x1_crop_only.pkl"
    ]


def test_another_network_of_50_layers(resnet50):
    cifar = byol_tf.ResNet(depth=50, stem="cifar")
    cifar.build((None, 32, 32, 3))
    assert len(differences(cifar)) == 1
