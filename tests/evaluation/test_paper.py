"""The published figures, and when a measurement is not theirs."""

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
