"""The report of a run: report.json, and report.md made of it."""

import json
import math
import pathlib
import re


def update(run_dir: pathlib.Path, **sections: dict) -> None:
    """Puts sections into report.json, and writes report.md anew from it."""
    _save(run_dir, _load(run_dir) | sections)


def set_evaluation(run_dir: pathlib.Path, evaluation: dict) -> None:
    """Puts the quick comparison into the report.

    Results of another encoder are dropped.

    Args:
      run_dir: of the report.
      evaluation: `encoder`, the digest of its file, and so on, see
        `evaluation_text`.
    """
    report = _of_encoder(_load(run_dir), evaluation["encoder"])
    _save(run_dir, report | {"evaluation": evaluation})


def add_protocol(run_dir: pathlib.Path, result: dict) -> None:
    """Puts the result of a protocol into the report, in place of one like it.

    Results of another encoder are dropped.

    Args:
      run_dir: of the report.
      result: `protocol`, `data`, `encoder`, `rows` and so on, see
        `protocols_text`.
    """
    report = _of_encoder(_load(run_dir), result["encoder"])
    others = [
        other
        for other in report.get("protocols", [])
        if (other["protocol"], other["data"])
        != (result["protocol"], result["data"])
    ]
    _save(run_dir, report | {"protocols": [*others, result]})


def _of_encoder(report: dict, digest: str) -> dict:
    """Without what was measured of another encoder."""
    kept = dict(report)
    if kept.get("evaluation", {}).get("encoder") != digest:
        kept.pop("evaluation", None)
    protocols = kept.pop("protocols", [])
    same = [result for result in protocols if result["encoder"] == digest]
    return kept | ({"protocols": same} if same else {})


def _load(run_dir: pathlib.Path) -> dict:
    path = run_dir / "report.json"
    return json.loads(path.read_text()) if path.exists() else {}


def _save(run_dir: pathlib.Path, report: dict) -> None:
    _write(run_dir / "report.json", json.dumps(report, indent=2) + "\n")
    _write(run_dir / "report.md", _markdown(run_dir, report))


def _write(path: pathlib.Path, text: str) -> None:
    partial = path.with_suffix(path.suffix + ".partial")
    partial.write_text(text)
    partial.rename(path)


def _markdown(run_dir: pathlib.Path, report: dict) -> str:
    parts = [f"# BYOL: {run_dir.name}\n"]
    if "converted" in report:
        parts.append(_converted_text(report["converted"]))
    if "pretrain" in report:
        parts.append(_pretrain_text(report["pretrain"], report["collapse"]))
    if "evaluation" in report:
        parts.append(evaluation_text(report["evaluation"]))
    if "protocols" in report:
        parts.append(protocols_text(report["protocols"]))
    if "export" in report:
        parts.append(_export_text(report["export"]))
    for title, names in (
        ("Training", ("loss", "tau", "knn", "collapse")),
        ("Images", ("augmented_pairs", "neighbours")),
    ):
        plots = [n for n in names if (run_dir / "plots" / f"{n}.png").exists()]
        if plots:
            parts.append(f"## {title}\n")
            parts += [f"![{n}](plots/{n}.png)\n" for n in plots]
    sheets = [
        f"![{result['protocol']} [{number}]]({result['sheet']})\n"
        for number, result in enumerate(report.get("protocols", []), start=1)
        if "sheet" in result
    ]
    if sheets:
        parts += ["## Dense tasks\n", *sheets]
    return "\n".join(parts)


def _table(header: list[str], rows: list[list[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


def _pretrain_text(pretrain: dict, collapse: dict) -> str:
    return (
        "## Pretraining\n\n"
        + _table(
            ["quantity", "value"],
            [
                ["data", pretrain["dataset"]],
                ["encoder parameters", f"{pretrain['encoder_parameters']:,}"],
                ["steps", f"{pretrain['steps']:,}"],
                ["batch", f"{pretrain['batch_size']:,}"],
                ["seconds of training", f"{pretrain['seconds']:.0f}"],
                ["images per second", f"{pretrain['images_per_second']:.0f}"],
                [
                    "final loss with negatives"
                    if pretrain.get("negatives_weight")
                    else "final BYOL loss (0 to 8)",
                    _number(pretrain["final_loss"], ".3f"),
                ],
                [
                    "images left out, see skipped.txt",
                    str(pretrain["skipped_images"]),
                ],
            ],
        )
        + _collapse_text(collapse)
    )


def _collapse_text(collapse: dict) -> str:
    """The section `collapse`: what was found wrong, and the last figures."""
    verdict = (
        f"**Found: {'; '.join(collapse['found'])}.**"
        if collapse.get("found")
        else "Healthy: no collapse, and no known cause of one."
    )
    size = collapse["projection_size"]
    rows = [
        [
            "deviation of the projections",
            f"{_number(collapse['projection_std'], '.4f')} (in all "
            f"directions: 1/sqrt(d) = {1 / math.sqrt(size):.4f})",
        ],
        [
            "effective rank of the projections",
            f"{_number(collapse['effective_rank'], '.1f')} of {size}",
        ],
    ]
    for name, title in (
        (
            "eigenvalue_spread",
            "largest / smallest eigenvalue of their covariance",
        ),
        ("mean_cosine", "mean cosine of two images' projections"),
        ("gradient_norm", "gradient norm"),
        ("trust_ratio_median", "LARS trust ratio, median kernel"),
    ):
        if name in collapse:
            rows.append([title, _number(collapse[name], ".3g")])
    return (
        "\n## Has it collapsed?\n\n"
        + verdict
        + "\n\n"
        + _table(["at the last step", "value"], rows)
    )


def _number(value: float | None, form: str) -> str:
    """A figure of report.json, where None was not finite."""
    return "not finite" if value is None else format(value, form)


def _converted_text(converted: dict) -> str:
    return (
        "## Converted from a checkpoint of the official release\n\n"
        + _table(
            ["quantity", "value"],
            [
                ["file", f"`{converted['file']}`"],
                ["network", f"`{converted['network']}`"],
                ["encoder parameters", f"{converted['encoder_parameters']:,}"],
                ["steps of its pretraining", f"{converted['step']:,}"],
                ["licence of the weights", converted["licence"]],
            ],
        )
    )


def evaluation_text(evaluation: dict) -> str:
    """The section `evaluation` in Markdown."""
    if "knn_top1" not in evaluation:
        return f"## Evaluation\n\n{evaluation['skipped']}\n"
    baselines = evaluation["baselines"]
    rows = [
        ("**learned encoder**", evaluation),
        ("the same encoder, not trained", baselines.get("random_init")),
        ("raw pixels", baselines.get("raw_pixels")),
    ]
    return (
        "## Evaluation of the frozen encoder\n\n"
        + _table(
            ["features", "kNN top-1, %", "linear top-1, %"],
            [
                [
                    name,
                    f"{100 * row['knn_top1']:.1f}",
                    f"{100 * row['linear_top1']:.1f}",
                ]
                for name, row in rows
                if row
            ],
        )
        + f"\n{evaluation['dataset']}: "
        f"{evaluation['train_images']:,} training and "
        f"{evaluation['test_images']:,} test images. kNN: cosine similarity, "
        f"{evaluation['neighbours']} neighbours, weighted votes. Linear: "
        "logistic regression on standardised features, its l2 penalty chosen "
        "on a tenth of the training images.\n"
    )


_METRICS = {
    "top1": "top-1",
    "top5": "top-5",
    "mean_per_class": "mean of the classes",
    "voc_map": "mAP, 11 points",
    "miou": "mIoU",
    "ap": "AP, COCO's",
    "ap50": "AP50, COCO's",
    "voc_ap50": "AP50, 11 points",
    "delta1": "within a factor 1.25",
    "delta2": "within 1.25²",
    "delta3": "within 1.25³",
    "rms": "rms, metres",
    "rel": "relative error",
}
# Those that are no shares.
_ABSOLUTE = ("rms", "rel")


def protocols_text(results: list[dict]) -> str:
    """The section `protocols` in Markdown.

    Args:
      results: of protocols, each with `protocol`, `data`, `rows` (with `name`,
        `metric`, `value`, `low`, `high` in [0, 1], `chosen`, and `paper` in %
        or None), `differs`, `notes`, `images`, `seed` and `seconds`.
    """
    # What all of them differ in is said once.
    differ = [dict.fromkeys(result["differs"]) for result in results]
    common = [x for x in differ[0] if all(x in others for others in differ)]
    rows, remarks = [], []
    for number, result in enumerate(results, start=1):
        for row in result["rows"]:
            paper = "none"
            if row["paper"] is not None:
                form = ".3f" if row["metric"] in _ABSOLUTE else ".1f"
                paper = f"{row['paper']:{form}} ({row['paper_data']})"
            rows.append(
                [
                    f"{result['protocol']} [{number}]",
                    re.sub(r":.*/", ":…/", result["data"]),
                    row["name"],
                    _METRICS[row["metric"]],
                    f"**{_figure(row, 'value')}**",
                    f"{_figure(row, 'low')} to {_figure(row, 'high')}",
                    paper,
                ]
            )
        remarks.append(f"{number}. {_protocol_remark(result, common)}")
    text = (
        "## Protocols\n\n"
        + _encoder_text(results)
        + _table(
            ["protocol", "data", "", "metric", "%", "95 %", "the paper's"],
            rows,
        )
        + "\nThe paper's figures are of a ResNet-50 where none is named, "
        "pretrained on ImageNet for 1000 epochs."
    )
    if common:
        text += f" Not as in the paper here: {'; '.join(common)}."
    text += (
        " The intervals are of the test images; other seeds of the training "
        "are not in them."
    )
    return text + "\n\n" + "\n".join(remarks) + "\n"


def _figure(row: dict, name: str) -> str:
    """One of a row's numbers: in % if it is a share."""
    if row["metric"] in _ABSOLUTE:
        return f"{row[name]:.3f}"
    return f"{100 * row[name]:.1f}"


def _encoder_text(results: list[dict]) -> str:
    """Which encoder was measured: all results of a report are of one."""
    last = results[-1]
    return (
        f"Encoder: `{last['encoder_path']}` (SHA-256 "
        f"{last['encoder'][:12]}…).\n\n"
    )


def _protocol_remark(result: dict, common: list[str]) -> str:
    """How one result came about, and in what else it is not the paper's."""
    names = {"train": "training", "validation": "validation", "test": "test"}
    counts = [
        f"{count:,} {names[name]}" for name, count in result["images"].items()
    ]
    text = (
        f"{', '.join(counts[:-1])} and {counts[-1]} images; "
        f"seed {result['seed']}; "
        f"{result['seconds']:.0f} s."
    )
    chosen = {
        f"{row['name']}: {_chosen_text(row['chosen'])}": None
        for row in result["rows"]
        if row["chosen"]
    }
    if chosen:
        text += f" Chosen: {'; '.join(chosen)}."
    differs = [x for x in result["differs"] if x not in common]
    if differs:
        text += f" Not as in the paper: {'; '.join(differs)}."
    for note in result["notes"]:
        text += f" {note[0].upper()}{note[1:]}"
    return text


def _chosen_text(chosen: dict) -> str:
    return ", ".join(
        f"{name.replace('_', ' ')} {value:g}"
        for name, value in chosen.items()
        if name != "validation"
    )


def _export_text(export: dict) -> str:
    if "max_abs_diff" not in export:
        return f"## Export\n\n{export['skipped']}\n"
    return (
        "## Export\n\n`saved_model/`, loaded back, differs from the encoder by "
        f"at most {export['max_abs_diff']:.1e}.\n"
    )
