"""What is each part of BYOL good for? Runs the ablations, and tabulates them.

    python -m byol_tf.benchmarks.ablations --dataset=folder:PATH
    python -m byol_tf.benchmarks.ablations --only=base,no_predictor --seeds=0,1

A row is a file of flags/ablations/ and a seed. It is trained and evaluated by
the command line in a process of its own, in a run folder of its own. After each
one RUNS/ablations.md, .json and .png are written anew. A benchmark that
was stopped goes on by the same command: what is finished is not run again.
"""

import argparse
import importlib.metadata
import json
import os
import pathlib
import platform
import re
import subprocess
import sys

from byol_tf import command_line, plots
from byol_tf.benchmarks.machine import processor
from byol_tf.config import Config

ROOT = pathlib.Path(__file__).parents[2]
RECIPES = ROOT / "flags" / "ablations"
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


def main(arguments=None) -> int:
    """Runs what is not finished; returns 1 if a run failed, else 0."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--only", type=listed, help="rows, e.g. base,no_predictor; else all"
    )
    parser.add_argument("--dataset", default="bundled", help="as of main.py")
    parser.add_argument("--seeds", type=numbers, default=[0], help="e.g. 0,1")
    parser.add_argument(
        "--runs", type=pathlib.Path, default=pathlib.Path("runs/ablations")
    )
    parser.add_argument(
        "--flags",
        nargs=argparse.REMAINDER,
        default=[],
        help="the rest of the command: flags of main.py for all rows",
    )
    parsed = parser.parse_args(arguments)
    known = {path.stem: path for path in sorted(RECIPES.glob("*.flags"))}
    # The base first: the others are to be seen beside it.
    names = parsed.only or sorted(known, key=lambda name: name != "base")
    unknown = [name for name in names if name not in known]
    if unknown:
        parser.error(f"--only={unknown[0]} is none of {', '.join(known)}.")
    dataset = from_here(parsed.dataset)
    runs = parsed.runs.resolve()
    runs.mkdir(parents=True, exist_ok=True)
    results = []
    rows = [(name, seed) for seed in parsed.seeds for name in names]
    for number, (name, seed) in enumerate(rows, 1):
        print(f"[{number}/{len(rows)}] {name}, seed {seed}: ", end="")
        sys.stdout.flush()
        folder = runs / name / f"seed_{seed}"
        # The latter flag wins: these over the file's.
        flags = [f"--dataset={dataset}", f"--seed={seed}"]
        # An untrained network is the same in most rows.
        flags += [] if number == 1 or name == "base" else ["--nobaselines"]
        flags += [*parsed.flags, f"--run_dir={folder}"]
        flagfile = known[name].relative_to(ROOT)
        failure = run_unless_finished(
            [f"--flagfile={flagfile}", *flags], folder
        )
        results.append(
            described(known[name], parsed.flags)
            | {"seed": seed, "dataset": dataset}
            | (result_of(folder) if not failure else {"failure": failure})
        )
        print(in_short(results[-1]))
        write(results, runs)
    print((runs / "ablations.md").read_text())
    return int(any("failure" in result for result in results))


def listed(text: str) -> list[str]:
    """The parts between commas."""
    return [part for part in text.split(",") if part]


def numbers(text: str) -> list[int]:
    """The whole numbers between commas."""
    return list(map(int, listed(text)))


def from_here(dataset: str) -> str:
    """A data set whose path, if it is one, does not depend on the folder."""
    kind, _, path = dataset.partition(":")
    if kind not in ("folder", "npz", "tfrecord"):
        return dataset
    return f"{kind}:{os.path.abspath(os.path.expanduser(path))}"


def run_unless_finished(flags: list[str], folder: pathlib.Path) -> str:
    """Runs the command line, from where it was stopped; returns why it failed.

    Args:
      flags: of the command line.
      folder: of the run; beside it goes what the run prints, to `*.log`.

    Returns:
      One line, or "" if the run is finished now.
    """
    if is_finished(flags, folder):
        return ""
    folder.parent.mkdir(parents=True, exist_ok=True)
    log = folder.with_suffix(".log")
    with log.open("w") as output:
        process = subprocess.run(
            [sys.executable, "byol_tf/main.py", *flags],
            cwd=ROOT,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    if process.returncode == 0:
        return ""
    lines = [
        # Of a line that was overwritten, as a progress bar's, what stayed.
        line.rpartition("\r")[2]
        for line in log.read_text(errors="replace").split("\n")
        if line.strip()
    ]
    named = [line for line in lines if line.startswith("byol_tf: ")]
    last = (named or lines or [f"exit code {process.returncode}"])[-1]
    return last.removeprefix("byol_tf: ").strip()


def is_finished(flags: list[str], folder: pathlib.Path) -> bool:
    """Whether the folder holds such a run, up to its last job, the export."""
    try:
        report = json.loads((folder / "report.json").read_text())
        done = Config.load(folder / "config.json")
        return "export" in report and not _config(flags).differences(done)
    except (OSError, ValueError):  # ConfigError is one: main.py will say it.
        return False


def _config(flags: list[str]) -> Config:
    """Of flags as they are for the command line in ROOT."""
    here = os.getcwd()
    os.chdir(ROOT)  # Flagfiles name flagfiles.
    try:
        return command_line.parse(["main.py", *flags])
    finally:
        os.chdir(here)


def described(path: pathlib.Path, extra=()) -> dict:
    """A row's name, its flags beside the base's, and the published figure.

    Args:
      path: of its flagfile.
      extra: flags that all rows have.
    """
    text = path.read_text()
    flags = [line for line in text.splitlines() if line.startswith("--")]
    own = [
        flag
        for flag in flags
        if not flag.startswith(("--flagfile=", "--run_dir="))
    ]
    figure = re.search(r"^# Result: (.+?) % ImageNet", text, re.MULTILINE)
    beside = re.search(r"where the base has (\d+\.\d+)", text)
    published = figure[1] if figure else ""
    if figure and beside:
        published += f" (base {beside[1]})"
    return {
        "row": path.stem,
        "title": text.splitlines()[0].removeprefix("# "),
        "changed": [] if path.stem == "base" else own,
        "for_all_rows": list(extra),
        "published": published,
    }


def result_of(folder: pathlib.Path) -> dict:
    """A finished run's figures, by its report.json; those it has."""
    report = json.loads((folder / "report.json").read_text())
    evaluation = report["evaluation"]
    names = ("knn_top1", "linear_top1")
    return {
        **{name: evaluation[name] for name in names if name in evaluation},
        "untrained": evaluation.get("baselines", {}).get("random_init"),
        "note": evaluation.get("skipped", ""),
        "found": report["collapse"]["found"],
        "seconds": report["pretrain"]["seconds"],
        "steps": report["pretrain"]["steps"],
        "final_loss": report["pretrain"]["final_loss"],
    }


def in_short(result: dict) -> str:
    """A line for the progress."""
    if "failure" in result:
        return f"failed: {result['failure']}"
    found = "; ".join(result["found"]) or "healthy"
    accuracy = percent(result.get("knn_top1")) or "?"
    return f"kNN {accuracy} %, {found}, {result['seconds']:.0f} s"


def percent(share: float | None) -> str:
    """A share in [0, 1], in per cent; empty if there is none."""
    return "" if share is None else f"{100 * share:.1f}"


def environment() -> dict[str, str]:
    """Machine and versions."""
    versions = {
        name: importlib.metadata.version(name)
        for name in ("tensorflow", "keras", "numpy")
    }
    return versions | {
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        "processor": processor(),
        "cores": str(os.cpu_count()),
    }


def write(results: list[dict], runs: pathlib.Path) -> None:
    """The files, from all results so far."""
    machine = environment()
    record = {"environment": machine, "results": results}
    for name, text in (
        ("ablations.json", json.dumps(record, indent=2) + "\n"),
        ("ablations.md", markdown(results, machine)),
    ):
        partial = runs / f"{name}.partial"
        partial.write_text(text)
        partial.replace(runs / name)
    draw(results, runs / "ablations.png")


def draw(results: list[dict], path: pathlib.Path) -> None:
    """Bars of kNN accuracy, of the first seed where there are several."""
    measured = [
        result
        for result in results
        if "knn_top1" in result and result["seed"] == results[0]["seed"]
    ]
    untrained = [r["untrained"] for r in measured if r["untrained"]]
    plots.draw_accuracies(
        {result["row"]: result["knn_top1"] for result in measured},
        untrained[0]["knn_top1"] if untrained else None,
        {r["row"] for r in measured if "collapsed projections" in r["found"]},
        path,
    )


def markdown(results: list[dict], machine: dict[str, str]) -> str:
    """The table, an untrained network's row at its end, and where it was made.

    Args:
      results: of `described` and `result_of`, or with a `failure`.
      machine: see `environment`.
    """
    rows = [list(COLUMNS), ["---"] * 2 + ["---:"] * 3 + ["---", "---:", "---:"]]
    for result in results:
        flags = " ".join(f"`{flag}`" for flag in result["changed"])
        if "failure" in result:
            knn = linear = seconds = ""
            found = f"**failed**: {result['failure']}"
        else:
            knn = percent(result.get("knn_top1"))
            linear = percent(result.get("linear_top1"))
            found = "; ".join(result["found"]) or "healthy"
            if result["note"]:
                found += f" ({result['note']})"
            seconds = f"{result['seconds']:.0f}"
        rows.append(
            [
                result["row"],
                flags or "nothing",
                str(result["seed"]),
                knn,
                linear,
                found.replace("|", "/"),
                result["published"],
                seconds,
            ]
        )
    untrained = [r for r in results if r.get("untrained")]
    if untrained:
        first = untrained[0]
        accuracies = [
            first["untrained"][n] for n in ("knn_top1", "linear_top1")
        ]
        rows.append(
            ["not trained", f"the encoder of {first['row']}"]
            + [str(first["seed"]), *map(percent, accuracies), "", "", ""]
        )
    lines = [f"| {' | '.join(row)} |" for row in rows]
    extra = " ".join(results[0]["for_all_rows"])
    lines += [
        "",
        f"Images: `{results[0]['dataset']}`. "
        + (f"In all rows: `{extra}`. " if extra else "")
        + "Changes are against `flags/ablations/base.flags`; seconds are of "
        "the training alone. "
        + ", ".join(f"{name} {value}" for name, value in machine.items())
        + ".",
    ]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.exit(main())
