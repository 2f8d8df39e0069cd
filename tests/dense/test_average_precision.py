"""Average precision: cases by hand, and COCO's own sums."""

import numpy as np
import pytest
from pycocotools.cocoeval import COCOeval

from byol_tf.dense import average_precision as module
from byol_tf.dense.average_precision import Found, Truth, average_precision

HERE, THERE, AWAY = (0, 0, 10, 10), (20, 20, 40, 30), (60, 60, 70, 70)


def truth(*boxes, labels=None, ignored=()):
    return Truth(
        np.float32(boxes).reshape(-1, 4),
        np.array([0] * len(boxes) if labels is None else labels, int),
        np.array([i in ignored for i in range(len(boxes))], bool),
    )


def found(*boxes_and_scores, labels=None):
    return Found(
        np.float32([box for box, _ in boxes_and_scores]).reshape(-1, 4),
        np.array(labels or [0] * len(boxes_and_scores), int),
        np.float32([score for _, score in boxes_and_scores]),
    )


def values(truths, detections):
    figures = average_precision(truths, detections, resamples=20)
    for estimate in figures.values():
        assert 0 <= estimate.low <= estimate.value <= estimate.high <= 1
    return {name: estimate.value for name, estimate in figures.items()}


def test_all_right():
    figures = values(
        [truth(HERE, THERE), truth(AWAY)],
        [found((HERE, 0.9), (THERE, 0.8)), found((AWAY, 0.7))],
    )
    assert figures == {"ap": 1, "ap50": 1, "voc_ap50": 1}


def test_nothing_found():
    figures = values([truth(HERE), truth()], [found(), found()])
    assert figures == {"ap": 0, "ap50": 0, "voc_ap50": 0}


def test_half_found_after_a_mistake():
    """Precision 1/2 up to a recall of 1/2, and 0 beyond."""
    figures = values(
        [truth(HERE, THERE), truth()],
        [found((HERE, 0.5)), found((AWAY, 0.9))],
    )
    assert figures["ap50"] == pytest.approx(51 / 101 / 2)
    assert figures["voc_ap50"] == pytest.approx(6 / 11 / 2)
    assert figures["ap"] == pytest.approx(51 / 101 / 2)


def test_one_object_is_found_once():
    figures = values(
        [truth(HERE, THERE)], [found((HERE, 0.9), (HERE, 0.8), (THERE, 0.7))]
    )
    # Precision 1 up to 1/2, then 2/3.
    assert figures["ap50"] == pytest.approx((51 + 50 * 2 / 3) / 101)
    assert figures["voc_ap50"] == pytest.approx((6 + 5 * 2 / 3) / 11)


@pytest.mark.parametrize("before, expected", [(99, 1 / 100), (100, 0)])
def test_a_hundred_of_an_image_count(before, expected):
    detections = [(AWAY, 0.9)] * before + [(HERE, 0.5)]
    figures = values([truth(HERE)], [found(*detections)])
    assert figures["ap50"] == pytest.approx(expected)


def test_overlap_decides():
    """With 0.72 of overlap it is right at 0.5, 0.55, … 0.7: 5 of 10."""
    figures = values([truth(HERE)], [found(((0, 0, 10, 7.2), 0.9))])
    assert figures == {"ap": 0.5, "ap50": 1, "voc_ap50": 1}


def test_classes_are_averaged_and_absent_ones_left_out():
    truths = [truth(HERE, THERE, labels=[3, 7])]
    detections = [
        found((HERE, 0.9), (THERE, 0.9), (AWAY, 0.9), labels=[3, 3, 5])
    ]
    # Class 3: right, or wrong, with equal scores, in their order. 7: nothing.
    assert values(truths, detections)["ap50"] == 0.5


def test_ignored_objects_are_neither_right_nor_wrong():
    truths = [truth(HERE, THERE, ignored=[1])]
    inside = (22, 22, 30, 30)  # More than once, and smaller than the crowd.
    detections = [found((THERE, 0.9), (inside, 0.8), (HERE, 0.7))]
    assert values(truths, detections)["ap50"] == 1
    detections = [found((AWAY, 0.9), (HERE, 0.7))]
    assert values(truths, detections)["ap50"] == 0.5


def test_a_class_of_ignored_objects_alone_is_left_out():
    truths = [truth(HERE, THERE, labels=[0, 1], ignored=[1])]
    assert values(truths, [found((HERE, 0.9))])["ap50"] == 1


@pytest.mark.parametrize("truths", [[truth()], [truth(HERE, ignored=[0])]])
def test_without_objects_there_is_no_figure(truths):
    with pytest.raises(ValueError, match="No image has an object"):
        average_precision(truths, [found((HERE, 0.9))])


def random_scenes(images=30, classes=4):
    random = np.random.default_rng(0)
    truths, detections = [], []
    for _ in range(images):
        count = random.integers(6)
        corner = random.uniform(0, 60, size=(count, 2))
        boxes = np.concatenate(
            [corner, corner + random.uniform(5, 30, size=(count, 2))], 1
        )
        labels = random.integers(classes, size=count)
        truths.append(Truth(boxes, labels, random.random(count) < 0.1))
        moved = np.concatenate([boxes, boxes + random.normal(size=(count, 4))])
        wrong = random.random(2 * count) < 0.2
        labels = np.where(wrong, 0, np.tile(labels, 2))
        detections.append(Found(moved, labels, random.random(2 * count)))
    return truths, detections


def test_sums_are_cocos(monkeypatch, capsys):
    kept = []

    class Keeping(COCOeval):
        def __init__(self, *arguments, **options):
            super().__init__(*arguments, **options)
            kept.append(self)

    monkeypatch.setattr(module, "COCOeval", Keeping)
    truths, detections = random_scenes()
    figures = average_precision(truths, detections)
    assert capsys.readouterr().out == ""
    kept[0].accumulate()
    # [overlaps, recalls, classes, areas, limits]
    precision = kept[0].eval["precision"][..., 0, 0]
    assert (precision > -1).all()
    assert 0.3 < figures["ap"].value < figures["ap50"].value < 0.9
    for name, expected in (
        ("ap", precision.mean()),
        ("ap50", precision[0].mean()),
        ("voc_ap50", precision[0, ::10].mean()),
    ):
        assert figures[name].value == pytest.approx(expected, abs=1e-12)
        assert figures[name].low < expected < figures[name].high
        assert figures[name].high - figures[name].low < 0.4


def test_a_weight_is_a_repetition():
    """A resample counts images as if they were there as often."""
    truths, detections = random_scenes(8)
    classes = module._matched(truths, detections)
    weights = np.array([2, 0, 1, 3, 1, 0, 1, 2])
    drawn = np.repeat(np.arange(8), weights)
    repeated = average_precision(
        [truths[i] for i in drawn], [detections[i] for i in drawn], resamples=1
    )
    weighted = module._figures(classes, weights)
    for value, name in zip(weighted, ("ap", "ap50", "voc_ap50")):
        # Of equal scores, a repetition's may come before another's object.
        assert value == pytest.approx(repeated[name].value, abs=0.01)
