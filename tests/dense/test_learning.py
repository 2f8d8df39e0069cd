"""Each dense task learns, from a pretrained encoder, on generated scenes."""

import json
import shutil

import numpy as np
import pytest
from conftest import run
from generated_scenes import (
    write_depth,
    write_detection,
    write_segmentation,
)

from byol_tf.config import Config
from byol_tf.data.depth_sets import open_depth
from byol_tf.data.detection_sets import open_detection
from byol_tf.data.segmentation_sets import open_segmentation
from byol_tf.dense.average_precision import Found, Truth, average_precision


@pytest.fixture(scope="module")
def pretrained(tmp_path_factory):
    """An encoder that BYOL has pretrained on scenes, without their truth."""
    folder = tmp_path_factory.mktemp("pretrained")
    write_depth(folder / "scenes", 1000, 1)
    finished = run(
        f"--dataset=folder:{folder / 'scenes' / 'train' / 'images'}",
        f"--run_dir={folder / 'run'}",
        "--image_size=48",
        "--encoder_blocks=1,1,1",
        "--encoder_channels=32,64,128",
        "--encoder_group_strides=2,2,2",
        "--stem_channels=32",
        "--stem=cifar",
        "--batch_size=64",
        "--steps=300",
        "--warmup_epochs=1",
        "--base_learning_rate=4",
        "--tau_base=0.97",
        "--projector_hidden=256",
        "--projection_size=64",
        "--crop_min_area=0.3",
    )
    assert finished.returncode == 0, finished.stderr[-2000:]
    return folder / "run"


def figures(pretrained, tmp_path, task, data, *flags) -> dict[str, float]:
    """What the report has, by metric."""
    finished = run(
        "--mode=evaluate",
        f"--protocols={task}",
        f"--{task}_data={data}",
        f"--encoder={pretrained}",
        f"--run_dir={tmp_path / 'run'}",
        "--dense_batch_size=8",
        "--dense_warmup=50",
        *flags,
    )
    assert finished.returncode == 0, finished.stderr[-2000:]
    report = json.loads((tmp_path / "run" / "report.json").read_text())
    (result,) = report["protocols"]
    return {row["metric"]: row["value"] for row in result["rows"]}


def copied(source, target) -> None:
    """What is learned stands in the place of what would be measured on."""
    shutil.rmtree(target)
    shutil.copytree(source, target)


@pytest.mark.slow
def test_segmentation(pretrained, tmp_path):
    scenes = tmp_path / "scenes"
    write_segmentation(scenes, 2000, 100)
    found = figures(
        pretrained,
        tmp_path,
        "segmentation",
        f"folder:{scenes}",
        "--dense_size=64",
        "--dense_steps=2000",
        "--dense_rate=0.3",
    )
    assert found["miou"] > 0.6
    assert background_alone(scenes) < 0.25


def background_alone(scenes) -> float:
    """mIoU of the class 0 everywhere."""
    splits = open_segmentation(Config(segmentation_data=f"folder:{scenes}"))
    shares = [np.mean(scene["mask"] == 0) for scene in splits.test]
    return np.mean(shares) / len(splits.class_names)


@pytest.mark.slow
def test_segmentation_of_eight_images_by_heart(pretrained, tmp_path):
    """Of a size at which the soft edges of objects are a small part."""
    scenes = tmp_path / "scenes"
    write_segmentation(scenes, 8, 1, size=128)
    copied(scenes / "train", scenes / "test")
    found = figures(
        pretrained,
        tmp_path,
        "segmentation",
        f"folder:{scenes}",
        "--dense_size=128",
        "--dense_steps=500",
        "--dense_rate=0.2",
    )
    assert found["miou"] > 0.9


@pytest.mark.slow
def test_detection(pretrained, tmp_path):
    scenes = tmp_path / "scenes"
    write_detection(scenes, 2000, 100)
    found = figures(
        pretrained,
        tmp_path,
        "detection",
        f"coco:{scenes}",
        "--dense_size=96",
        "--dense_steps=400",
        "--dense_rate=0.08",
    )
    assert found["ap50"] > 0.5
    assert found["ap50"] > found["ap"] > 0.15
    assert usual_boxes(scenes) < 0.1


def usual_boxes(scenes) -> float:
    """AP50 of each class's mean box, in every image."""
    splits = open_detection(Config(detection_data=f"coco:{scenes}"))
    boxes, labels = (
        np.concatenate([scene[name] for scene in splits.train])
        for name in ("boxes", "labels")
    )
    classes = np.arange(len(splits.class_names))
    always = Found(
        np.stack([boxes[labels == c].mean(axis=0) for c in classes]),
        classes,
        np.ones(len(classes)),
    )
    truths = [
        Truth(scene["boxes"], scene["labels"], scene["ignored"])
        for scene in splits.test
    ]
    return average_precision(truths, [always] * len(truths))["ap50"].value


@pytest.mark.slow
def test_detection_of_eight_images_by_heart(pretrained, tmp_path):
    scenes = tmp_path / "scenes"
    write_detection(scenes, 8, 1)
    copied(scenes / "train", scenes / "val")
    annotations = scenes / "annotations"
    shutil.copy(
        annotations / "instances_train.json",
        annotations / "instances_val.json",
    )
    found = figures(
        pretrained,
        tmp_path,
        "detection",
        f"coco:{scenes}",
        "--dense_size=96",
        "--dense_steps=250",
        "--dense_rate=0.08",
    )
    assert found["ap50"] > 0.95
    assert found["voc_ap50"] > 0.95


@pytest.mark.slow
def test_depth(pretrained, tmp_path):
    scenes = tmp_path / "scenes"
    write_depth(scenes, 2000, 100)
    found = figures(
        pretrained,
        tmp_path,
        "depth",
        f"folder:{scenes}",
        "--dense_size=64",
        "--dense_steps=1200",
        "--dense_rate=0.05",
    )
    assert found["delta1"] > 0.7
    assert usual_depth(scenes) < 0.4


def usual_depth(scenes) -> float:
    """Share within 1.25 of the median depth of each place."""
    splits = open_depth(Config(depth_data=f"folder:{scenes}"))
    usual = np.median([scene["depth"] for scene in splits.train], axis=0)
    ratios = [usual / scene["depth"] for scene in splits.test]
    return np.mean(np.abs(np.log(ratios)) < np.log(1.25))


@pytest.mark.slow
def test_depth_of_eight_images_by_heart(pretrained, tmp_path):
    scenes = tmp_path / "scenes"
    write_depth(scenes, 8, 1, size=128)
    copied(scenes / "train", scenes / "test")
    found = figures(
        pretrained,
        tmp_path,
        "depth",
        f"folder:{scenes}",
        "--dense_size=128",
        "--dense_steps=1000",
        "--dense_rate=0.05",
    )
    assert found["delta1"] > 0.9
