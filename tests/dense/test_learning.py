"""Segmentation and depth learn: from a pretrained encoder, on scenes."""

import json
import shutil

import numpy as np
import pytest
from conftest import run
from generated_scenes import write_depth, write_segmentation

from byol_tf.config import Config
from byol_tf.data.depth_sets import open_depth

TRAINING = ("--dense_batch_size=8", "--dense_size=64", "--dense_warmup=50")


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


def figures(pretrained, tmp_path, *flags) -> dict[str, float]:
    """What the report has, by metric."""
    finished = run(
        "--mode=evaluate",
        f"--encoder={pretrained}",
        f"--run_dir={tmp_path / 'run'}",
        *TRAINING,
        *flags,
    )
    assert finished.returncode == 0, finished.stderr[-2000:]
    report = json.loads((tmp_path / "run" / "report.json").read_text())
    (result,) = report["protocols"]
    return {row["metric"]: row["value"] for row in result["rows"]}


def measured_on_what_is_learned(scenes) -> None:
    shutil.rmtree(scenes / "test")
    shutil.copytree(scenes / "train", scenes / "test")


@pytest.mark.slow
def test_segmentation(pretrained, tmp_path):
    """The background alone, everywhere, has a mIoU of 0.21."""
    write_segmentation(tmp_path / "scenes", 2000, 100)
    found = figures(
        pretrained,
        tmp_path,
        "--protocols=segmentation",
        f"--segmentation_data=folder:{tmp_path / 'scenes'}",
        "--dense_steps=2000",
        "--dense_rate=0.3",
    )
    assert found["miou"] > 0.6


@pytest.mark.slow
def test_segmentation_of_eight_images_by_heart(pretrained, tmp_path):
    write_segmentation(tmp_path / "scenes", 8, 1)
    measured_on_what_is_learned(tmp_path / "scenes")
    found = figures(
        pretrained,
        tmp_path,
        "--protocols=segmentation",
        f"--segmentation_data=folder:{tmp_path / 'scenes'}",
        "--dense_steps=400",
        "--dense_rate=0.2",
    )
    assert found["miou"] > 0.8


@pytest.mark.slow
def test_depth(pretrained, tmp_path):
    """Well above the usual depth of each place, which comes to 0.33."""
    write_depth(tmp_path / "scenes", 2000, 100)
    place = f"folder:{tmp_path / 'scenes'}"
    found = figures(
        pretrained,
        tmp_path,
        "--protocols=depth",
        f"--depth_data={place}",
        "--dense_steps=1200",
        "--dense_rate=0.05",
    )
    splits = open_depth(Config(depth_data=place))
    usual = np.median([scene["depth"] for scene in splits.train], axis=0)
    within = np.concatenate(
        [
            np.maximum(scene["depth"] / usual, usual / scene["depth"]) < 1.25
            for scene in splits.test
        ]
    )
    assert found["delta1"] > within.mean() + 0.1
