"""The benchmark of kNN: its bank, and its JSON."""

import json

import numpy as np
import pytest

from byol_tf.benchmarks import neighbours as benchmark


def test_the_bank_on_disk_is_what_was_drawn(tmp_path):
    features = benchmark.Features(8, 3)
    bank, labels = benchmark.kept(features, 20_000, tmp_path / "bank.npy")
    assert bank.dtype == np.float16 and bank.shape == (20_000, 8)
    drawn, drawn_labels = features.some(1, 20_000 - 16384)
    np.testing.assert_array_equal(labels[16384:], drawn_labels)
    np.testing.assert_allclose(bank[16384:], drawn, atol=2e-3)
    # Other parts have other features.
    assert np.abs(drawn[:9] - features.some(0, 9)[0]).max() > 0.1


def test_it_prints_json(capsys):
    benchmark.main(
        ["--bank=3000", "--queries=100", "--length=512", "--classes=5"]
        + ["--peer_bank=1000", "--rounds=2"]
    )
    result = json.loads(capsys.readouterr().out)
    assert result["bank"] == [3000, 512]
    assert result["bank_gib"] == pytest.approx(3000 * 512 * 2 / 2**30)
    assert set(result["accuracies"]) == {"1", "5", "20", "200"}
    # Centres 3.2 apart, in noise of deviation 1.
    assert result["accuracies"]["200"] > 0.6
    assert result["peak_gib"] >= result["peak_gib_before"] > 0
    peer = result["peer"]
    assert peer["bank"] == [1000, 512]
    assert peer["same_neighbours"] > 0.999
    assert peer["ratio_least"] <= peer["ratio"] <= peer["ratio_greatest"]
