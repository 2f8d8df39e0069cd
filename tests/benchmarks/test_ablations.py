"""Ablations: every recipe is what it should be, and runs, stops, goes on."""

import json
import math
import os
import signal
import subprocess
import sys
import time

import pytest
from conftest import ROOT, photos

from byol_tf import command_line
from byol_tf.benchmarks import ablations
from byol_tf.model.build import build_byol

RECIPES = sorted(ablations.RECIPES.glob("*.flags"))
TINY = (
    "--image_size=14",
    "--encoder_blocks=1",
    "--encoder_channels=8",
    "--stem_channels=8",
    "--projector_hidden=16",
    "--batch_size=32",
    "--steps=4",
    "--monitor_images=100",
)
# Row -> what it changes of the base: the paper's section 5 and appendix, the
# authors' talk and arXiv 2010.10241, and advice of tutorials.
CHANGES = {
    "base": "",
    "batch_256": "--batch_size=256 --steps=300",
    "batch_32": "--batch_size=32 --steps=2400",
    "batch_512": "--batch_size=512 --steps=150",
    "batch_64": "--batch_size=64 --steps=1200",
    "calibrated": "--normalization=calibrated",
    "crop_blur": "--flip=0 --jitter=0 --grayscale=0 --solarize=0,0",
    "crop_color": "--flip=0 --blur=0,0 --solarize=0,0",
    "crop_flip": "--jitter=0 --grayscale=0 --blur=0,0 --solarize=0,0",
    "crop_only": "--flip=0 --jitter=0 --grayscale=0 --blur=0,0 --solarize=0,0",
    "group_norm": "--normalization=group",
    "negatives": "--negatives_weight=1",
    "negatives_predictor": "--target=online --negatives_weight=1",
    "negatives_target": "--predictor=none --negatives_weight=1",
    "neither": "--predictor=none --target=online",
    "no_blur": "--blur=0,0",
    "no_color": "--jitter=0 --grayscale=0",
    "no_flip": "--flip=0",
    "no_grayscale": "--grayscale=0",
    "no_jitter": "--jitter=0",
    "no_normalization": "--normalization=none",
    "no_predictor": "--predictor=none",
    "no_solarize": "--solarize=0,0",
    "no_target": "--tau_base=0 --tau_schedule=constant",
    "no_target_linear": "--tau_base=0 --tau_schedule=constant "
    "--predictor=optimal_linear",
    "no_target_rate_0": "--tau_base=0 --tau_schedule=constant "
    "--predictor_rate=0",
    "no_target_rate_10": "--tau_base=0 --tau_schedule=constant "
    "--predictor_rate=10",
    "no_target_rate_2": "--tau_base=0 --tau_schedule=constant "
    "--predictor_rate=2",
    "no_target_rate_20": "--tau_base=0 --tau_schedule=constant "
    "--predictor_rate=20",
    "online_target": "--target=online",
    "predictor_rate_10": "--predictor_rate=10",
    "projection_128": "--projection_size=128",
    "projection_16": "--projection_size=16",
    "projection_256": "--projection_size=256",
    "projection_32": "--projection_size=32",
    "random_target": "--tau_base=1 --tau_schedule=constant",
    "simclr": "--predictor=none --target=online --negatives_weight=1",
    "symmetric_views": "--blur=0.5,0.5 --solarize=0.2,0.2",
    "tau_base_0.9": "--tau_base=0.9",
    "tau_base_0.99": "--tau_base=0.99",
    "tau_base_0.999": "--tau_base=0.999",
    "tau_constant_0.9": "--tau_base=0.9 --tau_schedule=constant",
    "tau_constant_0.99": "--tau_base=0.99 --tau_schedule=constant",
    "tau_constant_0.999": "--tau_base=0.999 --tau_schedule=constant",
    "tau_warmup": "--tau_base=0.996 --tau_schedule=warmup --tau_end=0.999 "
    "--tau_warmup_steps=1000",
}
# ImageNet top-1 in per cent, of the rows that have a published figure.
PUBLISHED = {
    "base": "72.5 (batch 128: 69.6)",
    "batch_256": "71.8 (batch 128: 69.6)",
    "batch_512": "72.2 (batch 128: 69.6)",
    "batch_64": "59.7 (batch 128: 69.6)",
    "calibrated": "65.7 (base: 74.3)",
    "crop_blur": "61.1",
    "crop_color": "70.7",
    "crop_flip": "about 60.1",
    "crop_only": "59.4",
    "group_norm": "73.9 (base: 74.3)",
    "negatives": "70.9",
    "negatives_predictor": "69.1",
    "negatives_target": "70.7",
    "neither": "0.1",
    "no_blur": "about 71.2",
    "no_color": "63.4",
    "no_flip": "about 71.9",
    "no_grayscale": "70.3",
    "no_jitter": "about 71.8",
    "no_normalization": "0.1 (base: 74.3)",
    "no_predictor": "0.2",
    "no_solarize": "about 72.3",
    "no_target": "0.3 or 5.5",
    "no_target_linear": "50.3",
    "no_target_rate_0": "0.01",
    "no_target_rate_10": "66.6",
    "no_target_rate_2": "62.8",
    "no_target_rate_20": "66.3",
    "online_target": "0.3",
    "projection_128": "about 72.5",
    "projection_16": "about 69.9",
    "projection_256": "about 72.5",
    "projection_32": "about 71.3",
    "random_target": "18.8",
    "simclr": "69.4",
    "symmetric_views": "about 72.5",
    "tau_base_0.9": "68.4",
    "tau_base_0.99": "72.5",
    "tau_base_0.999": "69.8",
}


def config_of(name: str, *flags: str):
    path = ablations.RECIPES / f"{name}.flags"
    return command_line.parse(["main.py", f"--flagfile={path}", *flags])


def test_there_is_a_file_for_each_row():
    assert [path.stem for path in RECIPES] == sorted(CHANGES)
    assert ablations.recipes()[:2] == ["base", "batch_256"]
    assert sorted(ablations.recipes()) == sorted(CHANGES)


@pytest.mark.parametrize("name", CHANGES)
def test_a_recipe_is_the_base_with_its_changes_and_its_figure(name):
    changes = CHANGES[name].split()
    config = config_of(name)
    assert config.differences(config_of("base", *changes)) == []
    described = ablations.described(ablations.RECIPES / f"{name}.flags")
    assert described["changed"] == changes
    assert described["published"] == PUBLISHED.get(name, "")
    assert config.on_collapse == "ignore"
    assert config.run_dir == f"runs/ablations/{name}"
    # As often as the base: the doctor wants two measurements of a collapse.
    assert math.ceil(config.steps / config.monitor_every) >= 4


def test_the_base_is_byol_as_published():
    base = config_of("base")
    assert (base.predictor, base.predictor_rate) == ("mlp", 1)
    assert (base.target, base.tau_schedule) == ("moving_average", "cosine")
    assert (base.negatives_weight, base.normalization) == (0, "batch")
    assert (base.flip, base.jitter, base.grayscale) == (0.5, 0.8, 0.2)
    assert (base.blur, base.solarize) == ((1, 0.1), (0, 0.2))
    assert base.batch_size * base.steps == 128 * 600


@pytest.mark.parametrize(
    "changes",
    sorted(
        {
            " ".join(
                flag
                for flag in changes.split()
                if not flag.startswith(("--batch", "--steps", "--projection"))
            )
            for changes in CHANGES.values()
        }
    ),
)
def test_every_recipe_builds(changes):
    config = config_of("base", *TINY, *changes.split())
    model = build_byol(config, 10, 5.0, 10)
    assert model.trainable_variables


def test_an_unknown_row(tmp_path, capsys):
    with pytest.raises(SystemExit):
        ablations.main(["--only=bse", f"--runs={tmp_path}"])
    assert "--only=bse is none of base, batch_" in capsys.readouterr().err


@pytest.mark.parametrize(
    "flag, message",
    [
        ("--seeds=", "--seeds: it is empty: it takes one at least."),
        ("--seeds=,", "--seeds: it is empty: it takes one at least."),
        ("--seeds=0,a", "--seeds: 'a' is no whole number."),
        ("--seeds=-1", "--seeds: '-1' is no whole number."),
        ("--only=", "--only: it is empty: it takes one at least."),
    ],
)
def test_a_list_that_cannot_be(flag, message, tmp_path, capsys):
    with pytest.raises(SystemExit) as exit_:
        ablations.main([flag, f"--runs={tmp_path / 'runs'}"])
    assert exit_.value.code == 2
    assert capsys.readouterr().err.splitlines()[-1].endswith(message)
    assert not (tmp_path / "runs").exists()


def test_help_says_where_results_go(capsys):
    with pytest.raises(SystemExit):
        ablations.main(["--help"])
    text = " ".join(capsys.readouterr().out.split())
    assert "RUNS/ablations.md, .json and .png" in text
    assert "(default: runs/ablations)" in text
    assert "(default: bundled, which is Fashion-MNIST)" in text
    assert "goes on by the same command" in text


def finished(rows, name, seed, knn_top1=0.4, **settings):
    """A run folder as a finished run leaves it."""
    row = rows.row(name, seed)
    row.folder.mkdir(parents=True)
    config = ablations._config(row).resolved(image_size=28, **settings)
    config.save(row.folder / "config.json")
    report = {
        "evaluation": {"knn_top1": knn_top1},
        "collapse": {"found": []},
        "pretrain": {"seconds": 1.0, "steps": 600, "final_loss": 1.0},
        "export": {},
    }
    (row.folder / "report.json").write_text(json.dumps(report))
    return row


def in_tables(folder) -> list[tuple[str, int]]:
    record = json.loads((folder / "ablations.json").read_text())
    return [(result["row"], result["seed"]) for result in record["results"]]


def test_tables_hold_all_rows_that_are_finished(tmp_path, capsys):
    rows = ablations.Ablations(tmp_path, "bundled", [])
    for name, seed in (
        ("no_predictor", 10),
        ("no_predictor", 2),
        ("no_blur", 0),
        ("base", 0),
    ):
        finished(rows, name, seed)
    begun = rows.row("crop_only", 0).folder
    begun.mkdir(parents=True)
    (begun / "report.json").write_text("{}")

    command = [f"--runs={tmp_path}", "--only=no_blur"]
    assert ablations.main(command) == 0
    expected = [
        ("base", 0),
        ("no_blur", 0),
        ("no_predictor", 2),
        ("no_predictor", 10),
    ]
    assert in_tables(tmp_path) == expected
    text = (tmp_path / "ablations.md").read_text()
    assert "**mean of 2**" in text and "Left out" not in text
    assert "| base | nothing | 0 | 40.0 |" in capsys.readouterr().out


@pytest.mark.parametrize(
    "other",
    [
        {"dataset": "npz:/others.npz"},
        {"base_learning_rate": 9.0},
        {"image_size": 14},
    ],
    ids=str,
)
def test_what_has_other_settings_is_left_out(tmp_path, other):
    rows = ablations.Ablations(tmp_path, "bundled", [])
    finished(rows, "base", 0)
    # How a run was watched does not make it another.
    finished(rows, "no_flip", 0, monitor_every=7)
    path = finished(rows, "no_blur", 1).folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | other))
    assert ablations.main([f"--runs={tmp_path}", "--only=base"]) == 0
    assert in_tables(tmp_path) == [("base", 0), ("no_flip", 0)]
    text = (tmp_path / "ablations.md").read_text()
    assert text.endswith("have other settings: no_blur, seed 1.\n")


def test_protocols_leave_no_quick_comparison(tmp_path):
    row = finished(ablations.Ablations(tmp_path, "bundled", []), "base", 0)
    path = row.folder / "report.json"
    report = json.loads(path.read_text())
    del report["evaluation"]
    path.write_text(json.dumps(report))
    assert ablations.main([f"--runs={tmp_path}", "--only=base"]) == 0
    assert (
        "| base | nothing | 0 |  |  | healthy"
        in (tmp_path / "ablations.md").read_text()
    )


@pytest.mark.slow
def test_two_rows_end_to_end(tmp_path, capsys):
    command = ["--only=base,no_predictor", f"--runs={tmp_path}"]
    command.append(f"--dataset=folder:{photos(tmp_path / 'photos')}")
    assert ablations.main([*command, "--flags", *TINY]) == 0
    record = json.loads((tmp_path / "ablations.json").read_text())
    base, without = record["results"]
    assert "tensorflow" in record["environment"]
    assert (base["row"], without["row"]) == ("base", "no_predictor")
    assert base["steps"] == without["steps"] == 4
    assert "predictor missing" in without["found"]
    assert 0 < base["knn_top1"] <= 1
    assert "| not trained |" in (tmp_path / "ablations.md").read_text()
    assert (tmp_path / "ablations.png").stat().st_size > 1000
    progress = capsys.readouterr().out
    assert "[1/2] base, seed 0: kNN" in progress

    # What is finished stays; what cannot run is said, and the others go on.
    weights = tmp_path / "base" / "seed_0" / "encoder.keras"
    before = weights.stat().st_mtime_ns
    shown = tmp_path / "no_predictor" / "seed_0" / "config.json"
    shown.write_text("{")
    assert ablations.main([*command, "--flags", *TINY]) == 1
    assert weights.stat().st_mtime_ns == before
    record = json.loads((tmp_path / "ablations.json").read_text())
    assert record["results"][0] == base
    assert "config.json" in record["results"][1]["failure"]


@pytest.mark.slow
@pytest.mark.parametrize(
    "number, to_all, code",
    [(signal.SIGTERM, False, 143), (signal.SIGINT, True, 130)],
    ids=["scheduler", "terminal"],
)
def test_stopped_it_leaves_a_checkpoint_and_goes_on(
    tmp_path, number, to_all, code
):
    flags = [*TINY, "--steps=100000", "--log_every=2"]
    common = [f"--dataset=folder:{photos(tmp_path / 'photos')}"]
    common += [f"--runs={tmp_path}", "--flags"]
    benchmark = subprocess.Popen(
        [sys.executable, "-m", "byol_tf.benchmarks.ablations"]
        + ["--only=base,no_blur", *common, *flags],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    folder = tmp_path / "base" / "seed_0"
    metrics = folder / "metrics.jsonl"
    deadline = time.monotonic() + 250
    while not (metrics.exists() and len(metrics.read_text().split("\n")) > 5):
        assert benchmark.poll() is None and time.monotonic() < deadline
        time.sleep(0.1)
    # Ctrl-C reaches all processes that the terminal has in the foreground.
    (os.killpg if to_all else os.kill)(benchmark.pid, number)
    progress, errors = benchmark.communicate(timeout=60)
    assert benchmark.returncode == code
    assert progress.splitlines() == ["[1/2] base, seed 0: stopped"]
    assert errors.splitlines()[-1] == (
        f"byol_tf: interrupted by {number.name} in base, seed 0; the same "
        "command goes on from there."
    )
    assert "Traceback" not in errors
    # The child came to its own end, with a checkpoint of its last step.
    last = (tmp_path / "base" / "seed_0.log").read_text().splitlines()[-1]
    (checkpoint,) = (folder / "checkpoints").iterdir()
    step = int(checkpoint.name.removeprefix("step_"))
    assert step > 4
    assert last.startswith(f"byol_tf: interrupted by SIGTERM at step {step};")
    assert not (tmp_path / "no_blur").exists()

    # The same command goes on from it: here it may finish in two steps more.
    flags[-2:] = [f"--steps={step + 2}"]
    for path in (folder / "config.json", checkpoint / "checkpoint.json"):
        path.write_text(path.read_text().replace("100000", str(step + 2)))
    assert ablations.main(["--only=base", *common, *flags]) == 0
    (result,) = json.loads((tmp_path / "ablations.json").read_text())["results"]
    assert result["steps"] == step + 2
    assert f"step_{step + 2:09d}" in os.listdir(folder / "checkpoints")
    assert metrics.read_text().count("\n") <= step


def test_paths_do_not_depend_on_the_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert ablations.from_here("npz:a.npz") == f"npz:{tmp_path / 'a.npz'}"
    assert ablations.from_here("folder:/a") == "folder:/a"
    assert ablations.from_here("bundled") == "bundled"
    assert ablations.from_here("tfds:cifar10") == "tfds:cifar10"
