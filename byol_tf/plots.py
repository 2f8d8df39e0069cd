"""Plots and picture sheets: of a training, of images, of several runs."""

import math
import pathlib

import matplotlib
import numpy as np

matplotlib.use("Agg")

import matplotlib.pyplot as plt

_SIZE = (7.0, 4.0)
_DPI = 120
# Share of the healthy deviation of projections where the plot has its red line:
# the collapse doctor's limit.
COLLAPSED = 0.2


def plot_training(
    rows: list[dict[str, float]], run_dir: pathlib.Path, projection_size: int
) -> None:
    """Draws loss, tau and learning rate, kNN and collapse figures over time.

    Args:
      rows: of metrics.jsonl.
      run_dir: the plots go to `plots/` in it.
      projection_size: d, for the healthy deviation 1 / sqrt(d).
    """
    folder = run_dir / "plots"
    folder.mkdir(exist_ok=True)

    figure, axes = plt.subplots(figsize=_SIZE)
    _line(axes, rows, "repr_loss", "BYOL loss (0 to 8)")
    axes.set_ylabel("BYOL loss")
    if any(row["classif_loss"] for row in rows):
        other = axes.twinx()
        _line(other, rows, "classif_loss", "classifier's loss", "tab:orange")
        other.set_ylabel("cross-entropy of the linear classifier")
        _legend(axes, other)
    _save(figure, axes, folder / "loss.png", "Loss")

    figure, axes = plt.subplots(figsize=_SIZE)
    _line(axes, rows, "tau", "tau")
    axes.set_ylabel("tau (target's decay rate)")
    other = axes.twinx()
    _line(other, rows, "learning_rate", "learning rate", "tab:orange")
    other.set_ylabel("learning rate")
    _legend(axes, other)
    _save(figure, axes, folder / "tau.png", "Schedules")

    if any("knn_top1" in row for row in rows):
        figure, axes = plt.subplots(figsize=_SIZE)
        _line(axes, rows, "knn_top1", "kNN top-1", scale=100, marker="o")
        axes.set_ylabel("kNN top-1, part of the images, %")
        _save(figure, axes, folder / "knn.png", "Accuracy of the features")

    figure, axes = plt.subplots(figsize=_SIZE)
    healthy = 1 / math.sqrt(projection_size)
    _line(axes, rows, "projection_std", "deviation of projections", marker="o")
    axes.axhline(healthy, color="gray", linestyle="--", label="1 / sqrt(d)")
    axes.axhline(
        COLLAPSED * healthy,
        color="tab:red",
        linestyle=":",
        label="deviation when collapsed",
    )
    axes.set_ylim(0, None)
    axes.set_ylabel("deviation over images")
    other = axes.twinx()
    _line(
        other,
        rows,
        "effective_rank",
        "effective rank",
        "tab:orange",
        marker="s",
    )
    other.set_ylim(1, projection_size)
    other.set_ylabel(f"effective rank (of {projection_size})")
    _legend(axes, other)
    _save(figure, axes, folder / "collapse.png", "Has it collapsed?")


def _line(axes, rows, name, label, color="tab:blue", scale=1.0, marker=None):
    points = [
        (row["step"], math.nan if row[name] is None else scale * row[name])
        for row in rows
        if name in row
    ]
    axes.plot(*zip(*points), color=color, label=label, marker=marker, ms=4)


def _legend(axes, other) -> None:
    handles = [a.get_legend_handles_labels() for a in (axes, other)]
    axes.legend(
        *map(sum, zip(*handles), ([], [])),
        loc="upper center",
        bbox_to_anchor=(0.5, -0.18),
        ncols=4,
        frameon=False,
    )


def _save(figure, axes, path: pathlib.Path, title: str) -> None:
    axes.set_title(title)
    axes.set_xlabel("optimizer step")
    axes.grid(alpha=0.3)
    figure.savefig(path, dpi=_DPI, bbox_inches="tight")
    plt.close(figure)


def draw_views(
    originals: np.ndarray,
    view1: np.ndarray,
    view2: np.ndarray,
    path: pathlib.Path,
) -> None:
    """A sheet of images, each above its two views.

    Args:
      originals, view1, view2: float [n, height, width, 3] in [0, 1].
      path: of the PNG.
    """
    rows = (
        ("image", originals),
        ("view 1, t ~ T", view1),
        ("view 2, t' ~ T'", view2),
    )
    figure, axes = plt.subplots(
        3, len(originals), figsize=(1.1 * len(originals) + 1, 3.6)
    )
    for axis_row, (title, images) in zip(axes, rows):
        for axis, image in zip(axis_row, images):
            _picture(axis, image)
        axis_row[0].set_ylabel(title, rotation=0, ha="right", va="center")
    figure.tight_layout(pad=0.3)
    figure.savefig(path, dpi=_DPI)
    plt.close(figure)


def draw_neighbours(
    queries: list[tuple[np.ndarray, str]],
    neighbours: list[list[tuple[np.ndarray, str]]],
    path: pathlib.Path,
) -> None:
    """A sheet of test images, each left of its nearest training images.

    Args:
      queries: (image, class name) each.
      neighbours: for each query, the same of the nearest ones, nearest first;
        the name is green where it is the query's, and red where it is not.
      path: of the PNG.
    """
    columns = 1 + len(neighbours[0])
    figure, axes = plt.subplots(
        len(queries),
        columns,
        figsize=(1.25 * columns, 1.45 * len(queries)),
        squeeze=False,
    )
    for row, (image, name), near in zip(axes, queries, neighbours):
        _picture(row[0], image)
        row[0].set_title(name, fontsize=8, fontweight="bold")
        for axis, (other, other_name) in zip(row[1:], near):
            _picture(axis, other)
            color = "tab:green" if other_name == name else "tab:red"
            axis.set_title(other_name, fontsize=8, color=color)
    figure.suptitle("Test images (left) and their nearest training images")
    figure.tight_layout(pad=0.5, rect=(0, 0, 1, 0.99))
    figure.savefig(path, dpi=_DPI)
    plt.close(figure)


def draw_accuracies(
    accuracies: dict[str, list[float]],
    untrained: float | None,
    collapsed: set[str],
    path: pathlib.Path,
) -> None:
    """A bar for the runs of a name, the most accurate first.

    Args:
      accuracies: kNN top-1 in [0, 1] of the runs, by their name. The bar is
        their mean; of several, a black line goes from the least to the most.
      untrained: the same of a network that was not trained, if known: a line.
      collapsed: names with a run that collapsed: their bars are red.
      path: of the PNG.
    """
    means = {name: 100 * np.mean(runs) for name, runs in accuracies.items()}
    names = sorted(means, key=means.get)
    below = [means[name] - 100 * min(accuracies[name]) for name in names]
    above = [100 * max(accuracies[name]) - means[name] for name in names]
    figure, axes = plt.subplots(figsize=(7, 0.9 + 0.2 * len(names)))
    bars = axes.barh(
        names,
        [means[name] for name in names],
        xerr=np.maximum([below, above], 0),  # Rounding may make it -0.
        color=[
            "tab:red" if name in collapsed else "tab:blue" for name in names
        ],
    )
    axes.bar_label(bars, fmt="%.1f", padding=3, fontsize=7)
    if untrained is not None:
        axes.axvline(100 * untrained, color="gray", linestyle="--")
    axes.margins(x=0.1, y=0.01)
    axes.tick_params(axis="y", labelsize=8)
    several = max(map(len, accuracies.values()), default=1) > 1
    axes.set_xlabel(
        "kNN top-1, %; red: collapsed; dashed: not trained"
        + "\nbar: mean of the seeds; black: from least to most" * several
    )
    figure.savefig(path, dpi=_DPI, bbox_inches="tight")
    plt.close(figure)


def _picture(axis, image) -> None:
    axis.imshow(np.clip(image, 0, 1), interpolation="nearest")
    axis.set_xticks([])
    axis.set_yticks([])
