"""What the monitor looks at, and that it finds what is there."""

import keras
import numpy as np
from conftest import tiny_model

from byol_tf.data.sources import ArraySource, Dataset
from byol_tf.training.monitors import Monitor, accuracy_of_sample, evenly_spaced


def sorted_colours(count: int) -> ArraySource:
    """Dark, then middling, then bright images with a little noise, by class."""
    labels = np.sort(np.arange(count, dtype=np.int32) % 3)
    noise = np.random.RandomState(0).randint(0, 20, (count, 12, 12, 3))
    images = 30 + 90 * labels[:, None, None, None] + noise
    return ArraySource(images.astype(np.uint8), labels)


def test_evenly_spaced():
    assert evenly_spaced(10, 5).tolist() == [0, 2, 4, 6, 8]
    assert evenly_spaced(3, 10).tolist() == [0, 1, 2]
    assert len(set(evenly_spaced(1000, 999))) == 999


def test_a_part_of_sorted_images_has_all_classes():
    dataset = Dataset(sorted_colours(300), sorted_colours(60), ("a", "b", "c"))
    model = tiny_model()
    monitor = Monitor(model, dataset, 12, 1.0, bank=60)
    figures = monitor.measure()
    seen = [set(labels.numpy().tolist()) for _, labels in monitor._queries]
    assert set.union(*seen) == {0, 1, 2}
    assert figures["knn_top1"] > 0.9
    assert 0 < figures["projection_std"] < 1 / np.sqrt(8)
    assert 1 <= figures["effective_rank"] <= 8


def test_without_labels_there_is_no_accuracy():
    dataset = Dataset(sorted_colours(30), None, ())
    figures = Monitor(tiny_model(), dataset, 12, 1.0, bank=20).measure()
    assert set(figures) == {
        "projection_std",
        "effective_rank",
        "eigenvalue_spread",
        "mean_cosine",
    }


def test_a_collapsed_projector_is_seen():
    model = tiny_model()
    projector = model.online.projector
    projector.linear_1.kernel.assign(keras.ops.ones((16, 8)))
    dataset = Dataset(sorted_colours(30), None, ())
    figures = Monitor(model, dataset, 12, 1.0, bank=20).measure()
    assert figures["projection_std"] < 1e-3
    assert figures["effective_rank"] < 1.01
    assert figures["mean_cosine"] > 0.999


def test_a_sample_may_be_small_and_lack_a_class():
    train, test = sorted_colours(30), sorted_colours(60)
    train.labels[20:] = 1  # None of class 2.
    dataset = Dataset(train, test, ("a", "b", "c"))
    figures = Monitor(tiny_model(), dataset, 12, 1.0, bank=6).measure()
    assert 0 <= figures["knn_top1"] <= 1
    train.labels[:] = -1
    figures = Monitor(tiny_model(), dataset, 12, 1.0, bank=6).measure()
    assert np.isnan(figures["knn_top1"])


def test_features_that_are_not_finite_have_no_accuracy():
    bank, labels = np.eye(3), np.arange(3)
    assert accuracy_of_sample(bank, labels, bank, labels) == 1
    broken = np.where(bank == 0, np.nan, bank)
    assert np.isnan(accuracy_of_sample(broken, labels, bank, labels))
    assert np.isnan(accuracy_of_sample(bank, labels, broken, labels))
