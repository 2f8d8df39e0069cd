"""The rows of docs/PARITY.md, each within its tolerance."""

import json
import pathlib

import numpy as np
import parity
import pytest
import tensorflow as tf

import byol_tf

PAGE = pathlib.Path(__file__).parents[1] / "docs/PARITY.md"


@pytest.mark.parametrize(
    "group",
    [
        pytest.param(name, marks=[pytest.mark.slow] if group.slow else [])
        for name, group in parity.GROUPS.items()
    ],
)
def test_every_row_is_within_its_tolerance(group):
    rows = parity.GROUPS[group].measure()
    assert not [row for row in rows if not row.error <= row.tolerance]
    section = PAGE.read_text().partition(f"`python tests/parity.py {group}`")[2]
    lines = section.partition("\n## ")[0].split("| --- |\n")[1].strip()
    listed = [line.split(" | ") for line in lines.splitlines()]
    assert [(first[2:], last[:-2]) for first, _, last in listed] == [
        (row.quantity, f"{row.tolerance:.0e}") for row in rows
    ]


def test_the_page_is_what_the_command_prints():
    page = PAGE.read_text()
    assert page.startswith(parity.HEADER)
    titles = [line for line in page.splitlines() if line.startswith("## ")]
    assert titles == [f"## {g.title}" for g in parity.GROUPS.values()]
    assert "exceeded" not in page


def test_every_quantity_is_on_the_page():
    sections = PAGE.read_text().split("\n## ")
    for group in ("tiny", "tiny_x2", "resnet50"):
        section = next(s for s in sections if f"parity.py {group}`" in s)
        for quantity in (
            *parity.QUANTITIES.values(),
            *("losses", "tau", "learning rate", "evaluation outputs"),
        ):
            assert f"| {quantity} | " in section


def test_compiled_steps_are_the_official_ones():
    """Three steps in one graph on NumPy's arrays, with `dtype` arguments."""
    golden = parity.load("train_tiny_resnet_f64.npz")
    model = parity.build(json.loads(str(golden["meta"])), dtype="float64")
    byol_tf.deepmind.from_haiku(model, parity.stored_trees(golden, "init"))
    model.optimizer.iterations.assign(9)
    update = tf.function(model.update)
    for step in range(3):
        view1, view2 = (golden[f"batch{step}::view{i}"] / 255 for i in (1, 2))
        logs = update(view1, view2, golden[f"batch{step}::labels"])
        for name in ("loss", "repr_loss", "classif_loss"):
            official = golden[f"step{step}::logs::{name}"]
            np.testing.assert_allclose(logs[name], official, rtol=1e-12)
    trees = byol_tf.deepmind.to_haiku(model)
    for tree, modules in parity.stored_trees(golden, "step2").items():
        for module, arrays in modules.items():
            for name, official in arrays.items():
                if tree == "grads" or f"{module}::{name}" in parity.NO_GRADIENT:
                    continue
                ours = trees[tree][module][name]
                assert parity.relative(ours, official) < 1e-12


def test_a_wrong_number_is_found(monkeypatch):
    """The measure sees a change of 1e-7 in one element of one parameter."""
    golden = parity.load("train_tiny_resnet_f64.npz")
    key = "step2::target_params::predictor/linear_1::w"
    golden[key][3, 5] += 1e-7 * np.linalg.norm(golden[key])
    monkeypatch.setattr(parity, "load", lambda name: golden)
    rows = parity.training_float64("train_tiny_resnet_f64.npz")
    wrong = [row for row in rows if row.error > row.tolerance]
    assert [row.quantity for row in wrong] == ["target parameters"]
    np.testing.assert_allclose(wrong[0].error, 1e-7, rtol=1e-3)


def test_distances():
    official = np.array([3.0, 4.0])
    assert parity.relative([3.0, 4.0], official) == 0
    np.testing.assert_allclose(parity.relative([3.0, 4.5], official), 0.1)
    with pytest.raises(AssertionError):
        parity.relative([3.0], official)
    tensor = np.arange(10.0)
    digest = np.array([np.linalg.norm(tensor), 45.0, *np.zeros(8)])
    elements = parity.relative_to_digest("a::w", np.zeros(10) + 5, digest)
    assert elements >= 1  # Eight elements of 5, where the digest has zeros.
