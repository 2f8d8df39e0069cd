"""What is each part of BYOL good for? Runs the ablations, and tabulates them.

    python -m byol_tf.benchmarks.ablations --dataset=folder:PATH
    python -m byol_tf.benchmarks.ablations --only=base,no_predictor --seeds=0,1

A row is a file of flags/ablations/ and a seed. It is trained and evaluated by
the command line in a process of its own, in a run folder of its own,
RUNS/ROW/seed_SEED. After each one RUNS/ablations.md, .json and .png are written
anew. A benchmark that was stopped, by Ctrl-C or a SIGTERM, goes on by the same
command: what is finished is not run again.

The tables hold all that is finished in RUNS, by whichever command, and is
comparable: its run has the settings that this command would run that row and
seed with (its file, --dataset, --flags), and views of the same size. Runs with
other settings are left out, and named below the table.
"""

import argparse
import contextlib
import dataclasses
import json
import os
import pathlib
import re
import subprocess
import sys

from byol_tf import command_line
from byol_tf.benchmarks import child
from byol_tf.benchmarks.ablation_tables import ACCURACIES, percent, write
from byol_tf.config import Config

ROOT = pathlib.Path(__file__).parents[2]
RECIPES = ROOT / "flags" / "ablations"


@dataclasses.dataclass(frozen=True)
class Row:
    """A recipe and a seed, on a data set.

    Attributes:
      recipe: its flagfile.
      seed: of the run.
      folder: of the run.
      flags: of the command line, but for `--baselines`, which changes nothing
        in the training.
    """

    recipe: pathlib.Path
    seed: int
    folder: pathlib.Path
    flags: tuple[str, ...]

    def __str__(self):
        return f"{self.recipe.stem}, seed {self.seed}"


class Ablations:
    """All rows of a folder, those that were asked for and those of before.

    Args:
      runs: the folder of the run folders.
      dataset: as of main.py.
      extra: flags of main.py for all rows.
    """

    def __init__(self, runs: pathlib.Path, dataset: str, extra: list[str]):
        self._runs, self._dataset, self._extra = runs, dataset, extra
        self._failures = {}
        self._latest = None

    def row(self, name: str, seed: int) -> Row:
        """The row of a recipe's name and a seed."""
        recipe = RECIPES / f"{name}.flags"
        folder = self._runs / name / f"seed_{seed}"
        flags = (
            # From ROOT, where it is read.
            f"--flagfile={recipe.relative_to(ROOT)}",
            # The latter flag wins: these over the file's.
            f"--dataset={self._dataset}",
            f"--seed={seed}",
            *self._extra,
            f"--run_dir={folder}",
        )
        return Row(recipe, seed, folder, flags)

    def ended(self, row: Row, failure: str) -> dict:
        """Takes note of a row that was run, and why it failed; its result."""
        self._failures[row] = failure
        if not failure:
            self._latest = row
        return self._result(row)

    def write(self) -> None:
        """The files, from all that is finished or failed by now."""
        results, left_out = [], []
        for row in self._rows():
            if self._failures.get(row) or self._is_comparable(row):
                results.append(self._result(row))
            elif is_exported(row.folder):
                left_out.append(str(row))
        write(results, self._dataset, self._extra, left_out, self._runs)

    def _result(self, row: Row) -> dict:
        failure = self._failures.get(row)
        own = {"failure": failure} if failure else result_of(row.folder)
        return described(row.recipe) | {"seed": row.seed} | own

    def _is_comparable(self, row: Row) -> bool:
        """Whether it is finished, and settled as the row that was run last."""
        return is_finished(row) and (
            self._latest is None
            or settled_by_data(row) == settled_by_data(self._latest)
        )

    def _rows(self) -> list[Row]:
        """Rows that have begun: the base's, then by name; of each by seed."""
        rows = set(self._failures)
        for folder in self._runs.glob("*/seed_*"):
            number = folder.name.removeprefix("seed_")
            if number.isdecimal() and folder.parent.name in recipes():
                rows.add(self.row(folder.parent.name, int(number)))
        order = recipes()
        return sorted(
            rows, key=lambda row: (order.index(row.recipe.stem), row.seed)
        )


def recipes() -> list[str]:
    """Their names. The base first: the others are to be seen beside it."""
    names = [path.stem for path in RECIPES.glob("*.flags")]
    return sorted(names, key=lambda name: (name != "base", name))


def main(arguments=None) -> int:
    """Runs what is not finished; returns 1 if a run failed, else 0.

    Stopped by a signal it returns 128 and the signal's number.
    """
    parsed = _parsed(arguments)
    runs = parsed.runs.resolve()
    runs.mkdir(parents=True, exist_ok=True)
    ablations = Ablations(runs, from_here(parsed.dataset), parsed.flags)
    rows = [
        ablations.row(name, seed)
        for seed in parsed.seeds
        for name in parsed.only or recipes()
    ]
    failed = False
    with child.noting_stops() as stops:
        for number, row in enumerate(rows, 1):
            print(f"[{number}/{len(rows)}] {row}: ", end="", flush=True)
            was_finished = is_finished(row)
            # An untrained network is the same in most rows.
            with_it = number == 1 or row.recipe.stem == "base"
            flags = [] if with_it else ["--nobaselines"]
            try:
                failure = run_unless_finished(row, flags, stops)
            except child.Stopped as stop:
                print("stopped", flush=True)
                print(
                    f"byol_tf: {stop} in {row}; the same command goes on from "
                    "there.",
                    file=sys.stderr,
                )
                return 128 + stop.number
            failed = failed or bool(failure)
            print(in_short(ablations.ended(row, failure)))
            if number == 1 or not was_finished:
                ablations.write()
    print((runs / "ablations.md").read_text())
    return int(failed)


def _parsed(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m byol_tf.benchmarks.ablations",
        description=__doc__.splitlines()[0],
        epilog="The results go to RUNS/ablations.md, .json and .png, written "
        "anew after each row; they hold the rows of earlier commands with the "
        "same --runs, --dataset and --flags, too. A benchmark that was stopped "
        "goes on by the same command.",
    )
    parser.add_argument(
        "--only",
        type=listed,
        metavar="ROWS",
        help="files of flags/ablations/, e.g. base,no_predictor (default: all)",
    )
    parser.add_argument(
        "--dataset",
        default="bundled",
        help="images to learn from and to test on, as for main.py: bundled, "
        "folder:PATH, npz:PATH, tfrecord:GLOB or tfds:NAME (default: "
        "%(default)s, which is Fashion-MNIST)",
    )
    parser.add_argument(
        "--seeds",
        type=numbers,
        default=[0],
        help="of the runs of each row, e.g. 0,1,2; of several the tables hold "
        "mean and deviation as well (default: 0)",
    )
    parser.add_argument(
        "--runs",
        type=pathlib.Path,
        default=pathlib.Path("runs/ablations"),
        help="folder for the results, and for a run folder of each row and "
        "seed (default: %(default)s)",
    )
    parser.add_argument(
        "--flags",
        nargs=argparse.REMAINDER,
        default=[],
        help="the rest of the command: flags of main.py for all rows",
    )
    parsed = parser.parse_args(arguments)
    unknown = [name for name in parsed.only or () if name not in recipes()]
    if unknown:
        parser.error(f"--only={unknown[0]} is none of {', '.join(recipes())}.")
    return parsed


def listed(text: str) -> list[str]:
    """The parts between commas; raises ArgumentTypeError if there is none."""
    parts = [part for part in text.split(",") if part]
    if not parts:
        raise argparse.ArgumentTypeError("it is empty: it takes one at least.")
    return parts


def numbers(text: str) -> list[int]:
    """The whole numbers between commas; else raises ArgumentTypeError."""
    parts = listed(text)
    for part in parts:
        if not part.isdecimal():
            raise argparse.ArgumentTypeError(f"{part!r} is no whole number.")
    return list(map(int, parts))


def from_here(dataset: str) -> str:
    """A data set whose path, if it is one, does not depend on the folder."""
    kind, _, path = dataset.partition(":")
    if kind not in ("folder", "npz", "tfrecord"):
        return dataset
    return f"{kind}:{os.path.abspath(os.path.expanduser(path))}"


def run_unless_finished(row: Row, flags: list[str], stops: list[int]) -> str:
    """Runs the command line, from where it was stopped; returns why it failed.

    Args:
      row: to run; beside its folder goes what the run prints, to `*.log`.
      flags: beside the row's own, which win.
      stops: signals to stop that came, see `child.noting_stops`.

    Returns:
      One line, or "" if the run is finished now.

    Raises:
      child.Stopped: for a signal. What was trained is in a checkpoint.
    """
    if stops:
        raise child.Stopped(stops[0])
    if is_finished(row):
        return ""
    row.folder.parent.mkdir(parents=True, exist_ok=True)
    log = row.folder.with_suffix(".log")
    with log.open("w") as output:
        code = child.run(
            [sys.executable, "byol_tf/main.py", *flags, *row.flags],
            stops,
            cwd=ROOT,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    if code == 0:
        return ""
    lines = [
        # Of a line that was overwritten, as a progress bar's, what stayed.
        line.rpartition("\r")[2]
        for line in log.read_text(errors="replace").split("\n")
        if line.strip()
    ]
    named = [line for line in lines if line.startswith("byol_tf: ")]
    last = (named or lines or [f"exit code {code}"])[-1]
    return last.removeprefix("byol_tf: ").strip()


def is_exported(folder: pathlib.Path) -> bool:
    """Whether the folder holds a run that did its last job, the export."""
    try:
        return "export" in json.loads((folder / "report.json").read_text())
    except (OSError, ValueError):
        return False


def is_finished(row: Row) -> bool:
    """Whether the row's folder holds such a run, up to its end."""
    try:
        done = Config.load(row.folder / "config.json")
        return is_exported(row.folder) and not _config(row).differences(done)
    except (OSError, ValueError):  # ConfigError is one: main.py will say it.
        return False


def settled_by_data(row: Row) -> dict:
    """Settings of a finished row that no flag gave: the size of the views."""
    asked, done = _config(row), Config.load(row.folder / "config.json")
    return {
        field.name: getattr(done, field.name)
        for field in dataclasses.fields(Config)
        if field.metadata["run"] and getattr(asked, field.name) is None
    }


def _config(row: Row) -> Config:
    """Of a row's flags, as they are for the command line in ROOT."""
    with contextlib.chdir(ROOT):  # Flagfiles name flagfiles.
        return command_line.parse(["main.py", *row.flags])


def described(recipe: pathlib.Path) -> dict:
    """A recipe's name, its flags beside the base's, the published figure."""
    text = recipe.read_text()
    flags = [line for line in text.splitlines() if line.startswith("--")]
    fields = Config.__dataclass_fields__
    changed = [
        flag
        for flag in flags
        # What a run is does not depend on where it is and how it is watched.
        if (field := fields.get(flag[2:].partition("=")[0]))
        and field.metadata["run"]
    ]
    figure = re.search(r"^# Result: (.+?) % ImageNet", text, re.MULTILINE)
    beside = re.search(r"where (?:the )?(base|batch \d+) has (\d+\.\d+)", text)
    published = figure[1] if figure else ""
    if figure and beside:
        published += f" ({beside[1]}: {beside[2]})"
    return {
        "row": recipe.stem,
        "title": text.splitlines()[0].removeprefix("# "),
        "changed": [] if recipe.stem == "base" else changed,
        "published": published,
    }


def result_of(folder: pathlib.Path) -> dict:
    """A finished run's figures, by its report.json; those it has."""
    report = json.loads((folder / "report.json").read_text())
    # With --protocols among the flags there is none.
    evaluation = report.get("evaluation", {})
    return {
        **{name: evaluation[name] for name in ACCURACIES if name in evaluation},
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


if __name__ == "__main__":
    sys.exit(main())
