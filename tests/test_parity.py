"""The rows of docs/PARITY.md, each within its tolerance."""

import pathlib

import numpy as np
import parity
import pytest

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
    exceeded = [row for row in rows if not row.error <= row.tolerance]
    assert not exceeded
    assert all(np.isfinite(row.error) for row in rows)
    section = PAGE.read_text().partition(f"`python tests/parity.py {group}`")[2]
    listed = section.partition("\n## ")[0]
    for row in rows:
        assert f"| {row.quantity} | " in listed
    if group == "tiny":
        assert {row.quantity for row in rows} == {
            *parity.QUANTITIES.values(),
            *("losses", "tau", "learning rate", "top-1 accuracy"),
            "evaluation outputs",
        }


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
