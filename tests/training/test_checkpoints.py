"""Checkpoints: everything comes back, old ones go, torn ones do not count."""

import numpy as np
from conftest import tiny_model

from byol_tf.training.checkpoints import Checkpoints


def step(model):
    random = np.random.RandomState(int(model.optimizer.iterations.numpy()))
    view1, view2 = random.rand(2, 4, 12, 12, 3).astype(np.float32)
    return model.update(view1, view2, np.array([0, 1, 2, -1], np.int32))


def test_a_restored_model_goes_on_as_the_first_would_have(tmp_path):
    first = tiny_model()
    for _ in range(3):
        step(first)
    Checkpoints(first, tmp_path, every=1, keep=2).save()
    second = tiny_model()
    assert Checkpoints(second, tmp_path, every=1, keep=2).restore() == 3
    step(first), step(second)
    for a, b in zip(first.weights, second.weights, strict=True):
        np.testing.assert_array_equal(a, b, err_msg=a.path)
    variables = zip(
        first.optimizer.variables, second.optimizer.variables, strict=True
    )
    for a, b in variables:
        np.testing.assert_array_equal(a, b, err_msg=a.path)


def test_only_the_latest_are_kept(tmp_path):
    model = tiny_model()
    checkpoints = Checkpoints(model, tmp_path, every=2, keep=2)
    for _ in range(7):
        step(model)
        checkpoints.on_train_batch_end(0)
    checkpoints.on_train_end()
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == ["step_000000006", "step_000000007"]


def test_an_unfinished_checkpoint_is_passed_over(tmp_path):
    model = tiny_model()
    step(model)
    Checkpoints(model, tmp_path, every=1, keep=2).save()
    (tmp_path / "step_000000002.partial").mkdir()
    (tmp_path / "step_000000002.partial" / "state.index").write_text("torn")
    assert Checkpoints(tiny_model(), tmp_path, every=1, keep=2).restore() == 1


def test_nothing_to_restore(tmp_path):
    checkpoints = Checkpoints(tiny_model(), tmp_path / "none", every=1, keep=2)
    assert checkpoints.restore() == 0
