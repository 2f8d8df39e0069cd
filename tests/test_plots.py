"""Plots: of what is missing or no number, too; and bars in their order."""

import numpy as np
import PIL.Image

from byol_tf import plots

ROWS = [
    {
        "step": step,
        "repr_loss": 4.0 / step,
        "classif_loss": 0.0,
        "tau": 0.99,
        "learning_rate": 0.1,
        "projection_std": 0.1,
        "effective_rank": 9.0,
    }
    for step in range(1, 9)
]


def test_without_labels_there_is_no_accuracy(tmp_path):
    plots.plot_training(ROWS, tmp_path, projection_size=16)
    assert not (tmp_path / "plots/knn.png").exists()
    assert (tmp_path / "plots/collapse.png").exists()


def test_figures_that_are_no_numbers(tmp_path):
    lost = {"repr_loss": None, "classif_loss": None, "projection_std": None}
    plots.plot_training([*ROWS, ROWS[-1] | lost], tmp_path, 16)
    assert (tmp_path / "plots/loss.png").stat().st_size > 1000


def test_neighbours_of_a_single_class(tmp_path):
    image = (np.random.rand(12, 12, 3), "shoe")
    plots.draw_neighbours([image], [[image, image]], tmp_path / "one.png")
    assert (tmp_path / "one.png").stat().st_size > 1000


def test_bars_are_in_order_and_red_where_collapsed(tmp_path):
    path = tmp_path / "bars.png"
    plots.draw_accuracies({"low": [0.1], "high": [0.4]}, 0.3, {"low"}, path)
    pixels = np.asarray(PIL.Image.open(path).convert("RGB")).astype(int)
    red, green, blue = np.moveaxis(pixels, -1, 0)
    reds = np.argwhere((red > 180) & (green < 80) & (blue < 80))
    blues = np.argwhere((blue > 150) & (red < 80))
    assert blues[:, 0].max() < reds[:, 0].min()  # The best above the others.
    assert np.ptp(blues[:, 1]) > 3 * np.ptp(reds[:, 1])
    plots.draw_accuracies({"one": [0.1]}, None, set(), path)


def test_several_seeds_have_a_line_from_the_least_to_the_most(tmp_path):
    def lengths(*accuracies):
        """Of the longest black line through the bar's middle, and the bar."""
        path = tmp_path / "bars.png"
        plots.draw_accuracies({"a": list(accuracies)}, None, set(), path)
        pixels = np.asarray(PIL.Image.open(path).convert("RGB")).astype(int)
        blue = (pixels[..., 2] > 150) & (pixels[..., 0] < 80)
        rows, columns = np.nonzero(blue)
        dark = pixels[(rows.min() + rows.max()) // 2].sum(-1) < 100
        runs = "".join("x" if x else " " for x in dark).split()
        return max(map(len, runs)), np.ptp(columns) + 1

    assert lengths(0.4)[0] < 10
    line, bar = lengths(0.3, 0.4, 0.5)
    assert abs(line - bar / 2) < 4  # 20 % beside 40 %.
