"""The results of the ablations: a table, a plot, and the figures as JSON.

A result is a dict: of a recipe and a seed (`row`, `changed`, `published`,
`seed`), and of its run: `knn_top1` and `linear_top1` in [0, 1], where there are
labels; `untrained`, the same of the network before, or None; `found` by the
doctor; `note`; `seconds`. Of a run that failed there is `failure` in their
place.
"""

import itertools
import json
import pathlib
import statistics

from byol_tf import plots
from byol_tf.benchmarks.machine import environment

ACCURACIES = ("knn_top1", "linear_top1")
COLUMNS = (
    "row",
    "what is changed",
    "seed",
    "kNN top-1, %",
    "linear top-1, %",
    "the doctor found",
    "published, ImageNet, %",
    "seconds",
)


def write(
    results: list[dict],
    dataset: str,
    extra: list[str],
    left_out: list[str],
    runs: pathlib.Path,
) -> None:
    """Writes `ablations.md`, `.json` and `.png`, each whole or not at all.

    Args:
      results: in their order; those of one row together.
      dataset: of all of them.
      extra: flags that all of them have.
      left_out: runs of the folder that are not comparable.
      runs: the folder.
    """
    machine = environment("tensorflow", "keras", "numpy")
    record = {
        "environment": machine,
        "dataset": dataset,
        "for_all_rows": extra,
        "left_out": left_out,
        "results": results,
        "over_seeds": over_seeds(results),
    }
    text = markdown(results) + "\n" + about(dataset, extra, left_out, machine)
    for name, content in (
        ("ablations.json", json.dumps(record, indent=2) + "\n"),
        ("ablations.md", text),
    ):
        partial = runs / f"{name}.partial"
        partial.write_text(content)
        partial.replace(runs / name)
    draw(results, runs / "ablations.png")


def percent(share: float | None) -> str:
    """A share in [0, 1], in per cent; empty if there is none."""
    return "" if share is None else f"{100 * share:.1f}"


def over_seeds(results: list[dict]) -> list[dict]:
    """Mean and deviation of the rows that were measured with several seeds.

    Returns:
      For each `row`: `seeds`, and by the name of the accuracy `mean` and `std`,
      the sample standard deviation (of n - 1), both as shares.
    """
    summaries = []
    for row, group in itertools.groupby(results, lambda result: result["row"]):
        measured = [result for result in group if "knn_top1" in result]
        if len(measured) < 2:
            continue
        summary = {"row": row, "seeds": [r["seed"] for r in measured]}
        for name in ACCURACIES:
            shares = [r[name] for r in measured if name in r]
            if len(shares) == len(measured):
                summary[name] = {
                    "mean": statistics.mean(shares),
                    "std": statistics.stdev(shares),
                }
        summaries.append(summary)
    return summaries


def markdown(results: list[dict]) -> str:
    """The table; below the seeds of a row their mean, at its end an untrained
    network.
    """
    lines = [
        list(COLUMNS),
        ["---"] * 2 + ["---:"] * 3 + ["---", "---:", "---:"],
    ]
    results = results + _untrained(results)
    summaries = {summary["row"]: summary for summary in over_seeds(results)}
    for row, group in itertools.groupby(results, lambda result: result["row"]):
        group = list(group)
        lines += map(_cells, group)
        if row in summaries:
            lines.append(_mean_cells(summaries[row], group[0]))
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _untrained(results: list[dict]) -> list[dict]:
    """Results of a network that was not trained: of the first row that has."""
    measured = [result for result in results if result.get("untrained")]
    return [
        {
            "row": "not trained",
            "changed": f"the encoder of {result['row']}",
            "seed": result["seed"],
            "published": "",
            **{
                name: result["untrained"][name]
                for name in ACCURACIES
                if name in result["untrained"]
            },
        }
        for result in measured
        if result["row"] == measured[0]["row"]
    ]


def _changed(result: dict) -> str:
    if isinstance(result["changed"], str):
        return result["changed"]
    return " ".join(f"`{flag}`" for flag in result["changed"]) or "nothing"


def _cells(result: dict) -> list[str]:
    if "failure" in result:
        found = f"**failed**: {result['failure']}"
    elif "found" in result:
        found = "; ".join(result["found"]) or "healthy"
        found += f" ({result['note']})" if result["note"] else ""
    else:
        found = ""
    return [
        result["row"],
        _changed(result),
        str(result["seed"]),
        *(percent(result.get(name)) for name in ACCURACIES),
        found.replace("|", "/"),
        result["published"],
        f"{result['seconds']:.0f}" if "seconds" in result else "",
    ]


def _mean_cells(summary: dict, result: dict) -> list[str]:
    """A line for several seeds; what they have in common is of one result."""
    accuracies = []
    for name in ACCURACIES:
        figures = summary.get(name, {})
        both = " ± ".join(percent(figures[n]) for n in figures)
        accuracies.append(f"**{both}**" if both else "")
    return [
        summary["row"],
        _changed(result),
        f"**mean of {len(summary['seeds'])}**",
        *accuracies,
        "",
        result["published"],
        "",
    ]


def about(
    dataset: str, extra: list[str], left_out: list[str], machine: dict
) -> str:
    """What the table is of; the arguments are those of `write`."""
    flags = " ".join(extra)
    return (
        f"Images: `{dataset}`. "
        + (f"In all rows: `{flags}`. " if flags else "")
        + "Changes are against `flags/ablations/base.flags`; of several seeds "
        "± is the sample standard deviation; seconds are of the training "
        "alone. "
        + ", ".join(f"{name} {value}" for name, value in machine.items())
        + ".\n"
        + (
            f"\nLeft out, as their runs have other settings: "
            f"{', '.join(left_out)}.\n"
            if left_out
            else ""
        )
    )


def draw(results: list[dict], path: pathlib.Path) -> None:
    """Bars of kNN accuracy, of a row's seeds together."""
    measured = [result for result in results if "knn_top1" in result]
    accuracies = {}
    for result in measured:
        accuracies.setdefault(result["row"], []).append(result["knn_top1"])
    untrained = [result["knn_top1"] for result in _untrained(measured)]
    plots.draw_accuracies(
        accuracies,
        statistics.mean(untrained) if untrained else None,
        {r["row"] for r in measured if "collapsed projections" in r["found"]},
        path,
    )
