"""Average precision of detections, with a 95% interval.

Source: COCO's evaluation (Lin et al., arXiv 1405.0312), whose own code matches
detections with objects here. What follows from the matches is computed again
for sets of images that are drawn with replacement.
"""

import contextlib
import io
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from byol_tf.evaluation.metrics import Estimate

# Of the interval; each goes through all detections.
RESAMPLES = 100
# More in one image do not count.
MOST_DETECTIONS = 100


class Truth(NamedTuple):
    """The objects of an image.

    Attributes:
      boxes: [n, 4], top, left, bottom, right.
      labels: int [n].
      ignored: bool [n]: finding it is neither right nor wrong, as often as it
        may be found. A detection is taken to be of it if it lies in it, by the
        threshold that else is of intersection over union: COCO's rule for
        crowds. VOC's for difficult objects is that they overlap.
    """

    boxes: np.ndarray
    labels: np.ndarray
    ignored: np.ndarray


class Found(NamedTuple):
    """What was detected in an image.

    Attributes:
      boxes: [n, 4], as in `Truth`.
      labels: int [n].
      scores: [n].
    """

    boxes: np.ndarray
    labels: np.ndarray
    scores: np.ndarray


def average_precision(
    truths: Sequence[Truth], found: Sequence[Found], resamples: int = RESAMPLES
) -> dict[str, Estimate]:
    """COCO's figures of all images, averaged over the classes.

    A class of which there is no object is left out.

    Args:
      truths: of all images.
      found: in all images.
      resamples: sets of images that are drawn, with seed 0.

    Returns:
      `ap`: the mean over the overlaps 0.5, 0.55, …, 0.95 of the precision at
      101 values of recall. `ap50`: the same at an overlap of 0.5. `voc_ap50`:
      at an overlap of 0.5 and at 11 values of recall, as VOC2007 has it.

    Raises:
      ValueError: if there is no object at all.
    """
    classes = _matched(truths, found)
    random = np.random.default_rng(0)
    count = len(truths)
    figures = _figures(classes, np.ones(count))
    if figures is None:
        raise ValueError("No image has an object that counts.")
    values = []
    for _ in range(resamples):
        drawn = random.integers(count, size=count)
        resampled = _figures(classes, np.bincount(drawn, minlength=count))
        if resampled is not None:  # Else it says nothing.
            values.append(resampled)
    low, high = np.percentile([*values, figures], [2.5, 97.5], axis=0)
    return {
        name: Estimate(
            float(figures[i]),
            float(min(low[i], figures[i])),
            float(max(high[i], figures[i])),
        )
        for i, name in enumerate(("ap", "ap50", "voc_ap50"))
    }


class _Class(NamedTuple):
    """The detections of one class by falling score, and its objects.

    Attributes:
      images: int [d], in which image each detection is.
      right: bool [t, d], whether it is an object, at each of t overlaps.
      counts: bool [t, d], whether it is either right or wrong.
      objects: int [images], those that are to be found.
    """

    images: np.ndarray
    right: np.ndarray
    counts: np.ndarray
    objects: np.ndarray


def _matched(truths, found) -> list[_Class]:
    """Detections and objects, matched by pycocotools: its order of ties too."""
    labels = np.concatenate(
        [np.asarray(t.labels, int) for t in truths]
        + [np.asarray(f.labels, int) for f in found]
    )
    categories = [{"id": int(label)} for label in np.unique(labels)]
    images = [{"id": number} for number in range(len(truths))]
    evaluation = COCOeval(iouType="bbox")
    with contextlib.redirect_stdout(io.StringIO()):  # It says what it does.
        for name, boxes in (
            ("cocoGt", _annotations(truths)),
            ("cocoDt", _annotations(found)),
        ):
            index = COCO()
            index.dataset = {
                "images": images,
                "categories": categories,
                "annotations": boxes,
            }
            index.createIndex()
            setattr(evaluation, name, index)
        evaluation.params.imgIds = [image["id"] for image in images]
        evaluation.params.catIds = [category["id"] for category in categories]
        evaluation.params.areaRng = [[0, 1e10]]
        evaluation.params.areaRngLbl = ["all"]
        evaluation.params.maxDets = [MOST_DETECTIONS]
        evaluation.evaluate()
    # [classes, images], of each one's matches or None.
    parts = np.array(evaluation.evalImgs, object).reshape(
        len(categories), len(images)
    )
    return [_joined(of_class) for of_class in parts]


def _annotations(boxes: Sequence[Truth] | Sequence[Found]) -> list[dict]:
    """As COCO's files have them: left, top, width, height."""
    annotations = []
    for image, of_image in enumerate(boxes):
        for number in range(len(of_image.labels)):
            top, left, bottom, right = map(float, of_image.boxes[number])
            height, width = bottom - top, right - left
            annotation = {
                "id": len(annotations) + 1,  # 0 would mean no match.
                "image_id": image,
                "category_id": int(of_image.labels[number]),
                "bbox": [left, top, width, height],
                "area": height * width,
            }
            if isinstance(of_image, Truth):
                annotation["iscrowd"] = int(of_image.ignored[number])
            else:
                annotation["score"] = float(of_image.scores[number])
            annotations.append(annotation)
    return annotations


def _joined(of_class) -> _Class:
    there = [part for part in of_class if part is not None]
    objects = np.zeros(len(of_class), int)
    if not there:
        return _Class(*np.zeros((3, 0)), objects)
    for part in there:
        objects[part["image_id"]] = np.sum(part["gtIgnore"] == 0)
    scores = np.concatenate([part["dtScores"] for part in there])
    order = np.argsort(-scores, kind="stable")
    images = np.repeat(
        [part["image_id"] for part in there],
        [len(part["dtScores"]) for part in there],
    )
    matches, ignored = (
        np.concatenate([part[name] for part in there], axis=1)[:, order]
        for name in ("dtMatches", "dtIgnore")
    )
    counts = ~ignored.astype(bool)
    return _Class(images[order], (matches > 0) & counts, counts, objects)


def _figures(classes: Sequence[_Class], weights: np.ndarray):
    """`ap`, `ap50` and `voc_ap50` of images that count so often; or None."""
    precisions = [
        _precisions(of_class, weights)
        for of_class in classes
        if weights @ of_class.objects
    ]
    if not precisions:
        return None
    means = np.mean(precisions, axis=0)  # [overlaps, recalls]
    return np.array([means.mean(), means[0].mean(), means[0, ::10].mean()])


def _precisions(of_class: _Class, weights: np.ndarray) -> np.ndarray:
    """The best precision at a recall of 0, 0.01, … 1 or more, [t, 101].

    0 at recalls that are not reached.
    """
    weight = weights[of_class.images]
    right = np.cumsum(weight * of_class.right, axis=1)
    detected = np.cumsum(weight * of_class.counts, axis=1)
    recall = right / (weights @ of_class.objects)
    precision = right / np.maximum(detected, 1)
    best = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]
    best = np.pad(best, [(0, 0), (0, 1)])
    recalls = np.linspace(0, 1, 101)
    return np.stack(
        [
            best_at[np.searchsorted(recall_at, recalls)]
            for best_at, recall_at in zip(best, recall)
        ]
    )
