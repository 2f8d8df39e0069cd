"""Picture sheets of dense tasks: image, truth and prediction."""

import pathlib
from collections.abc import Sequence

import matplotlib
import numpy as np

matplotlib.use("Agg")

import matplotlib.patches
import matplotlib.pyplot as plt

_DPI = 120
_CELL = 1.6  # Inches.


def draw_masks(
    scenes: Sequence[tuple[np.ndarray, np.ndarray, np.ndarray]],
    class_names: Sequence[str],
    ignored: int,
    path: pathlib.Path,
) -> None:
    """A row of columns: image above truth above predicted classes.

    Args:
      scenes: image uint8 [h, w, 3], mask int [h, w], and predicted classes.
      class_names: of the classes; those that appear are in the legend.
      ignored: what a mask has where nothing counts; white.
      path: of the PNG.
    """
    count = len(class_names)
    colors = _colors(count)
    figure, axes = _grid(len(scenes), ("image", "truth", "prediction"))
    shown, blank = set(), False
    for column, (image, *masks) in zip(axes.T, scenes):
        column[0].imshow(image)
        for axis, mask in zip(column[1:], masks):
            picture = np.ones((*mask.shape, 3))
            counted = mask != ignored
            picture[counted] = colors[mask[counted]]
            axis.imshow(picture, interpolation="nearest")
            shown |= set(np.unique(mask[counted]).tolist())
            blank |= not counted.all()
    handles = [
        matplotlib.patches.Patch(color=colors[c], label=_plain(class_names[c]))
        for c in sorted(shown)
    ]
    if blank:
        handles.append(
            matplotlib.patches.Patch(
                facecolor="white", edgecolor="black", label="ignored"
            )
        )
    figure.legend(
        handles=handles,
        loc="outside lower center",
        ncols=min(len(handles), 8) or 1,
        fontsize=7,
        frameon=False,
    )
    _save(figure, path)


def draw_depths(
    scenes: Sequence[tuple[np.ndarray, np.ndarray, np.ndarray]],
    path: pathlib.Path,
) -> None:
    """A row of columns: image above true above predicted depths.

    Args:
      scenes: image uint8 [h, w, 3], depths float [h, w] in metres, 0 where they
        are not known (white), and predicted depths.
      path: of the PNG.
    """
    known = np.concatenate([depth[depth > 0] for _, depth, _ in scenes])
    limits = dict(vmin=known.min(), vmax=known.max(), cmap="viridis_r")
    every = np.concatenate([predicted.ravel() for *_, predicted in scenes])
    beyond = {
        (False, False): "neither",
        (True, False): "min",
        (False, True): "max",
        (True, True): "both",
    }[bool(every.min() < known.min()), bool(every.max() > known.max())]
    figure, axes = _grid(len(scenes), ("image", "truth", "prediction"))
    for column, (image, truth, predicted) in zip(axes.T, scenes):
        column[0].imshow(image)
        column[1].imshow(np.ma.masked_equal(truth, 0), **limits)
        drawn = column[2].imshow(predicted, **limits)
    figure.colorbar(
        drawn, ax=axes[1:], label="metres", shrink=0.7, extend=beyond
    )
    _save(figure, path)


def draw_boxes(
    scenes: Sequence[tuple[np.ndarray, tuple, tuple]],
    class_names: Sequence[str],
    path: pathlib.Path,
    least_score: float = 0.5,
) -> None:
    """A row of columns: true boxes above predicted ones, on the image.

    Args:
      scenes: image uint8 [h, w, 3]; true boxes [n, 4] (top, left, bottom, right
        in pixels), classes, and which are ignored (dashed); and predicted
        boxes, classes and scores.
      class_names: of the classes.
      path: of the PNG.
      least_score: of predicted boxes that are drawn.
    """
    colors = plt.get_cmap("tab10")(np.arange(len(class_names)) % 10)
    titles = ("truth", f"prediction, score ≥ {least_score:g}")
    figure, axes = _grid(len(scenes), titles, cell=2.4)
    for column, (image, truth, predicted) in zip(axes.T, scenes):
        for axis in column:
            axis.imshow(image)
        for box, label, ignored in zip(*truth):
            _box(column[0], box, colors[label], class_names[label], ignored)
        for box, label, score in zip(*predicted):
            if score >= least_score:
                name = f"{class_names[label]} {score:.2f}"
                _box(column[1], box, colors[label], name)
    _save(figure, path)


def _box(axis, box, color, name: str, dashed: bool = False) -> None:
    # The middle of the first pixel is at 0.
    top, left, bottom, right = np.asarray(box) - 0.5
    axis.add_patch(
        matplotlib.patches.Rectangle(
            (left, top),
            right - left,
            bottom - top,
            fill=False,
            edgecolor=color,
            linestyle="--" if dashed else "-",
            linewidth=1.2,
        )
    )
    axis.text(
        left,
        top,
        _plain(name),
        fontsize=5.5,
        color="white",
        clip_on=True,
        verticalalignment="bottom" if top > 8 else "top",
        bbox=dict(facecolor=color, edgecolor="none", pad=0.6),
    )


def _plain(name: str) -> str:
    """A name that matplotlib does not take for a formula."""
    return name.replace("$", r"\$")


def _colors(count: int) -> np.ndarray:
    """A color for each class, the first (background) black."""
    palette = plt.get_cmap("tab20")(np.arange(max(count - 1, 0)) % 20)
    return np.concatenate([np.zeros((1, 3)), palette[:, :3]])


def _grid(columns: int, titles: Sequence[str], cell: float = _CELL):
    figure, axes = plt.subplots(
        len(titles),
        columns,
        figsize=(cell * columns + 0.8, cell * len(titles) + 0.5),
        squeeze=False,
        layout="constrained",
    )
    for row, title in zip(axes, titles):
        row[0].set_ylabel(title)
    for axis in axes.flat:
        axis.set_xticks([])
        axis.set_yticks([])
    return figure, axes


def _save(figure, path: pathlib.Path) -> None:
    figure.savefig(path, dpi=_DPI)
    plt.close(figure)
