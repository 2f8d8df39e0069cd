"""Ablations: every recipe builds, the table by hand, and a run of two rows."""

import json

import pytest

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
MACHINE = {"tensorflow": "2", "cores": "1"}


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_every_recipe_differs_from_the_base_by_what_it_says(path):
    flags = [f"--flagfile={path}", "--image_size=32"]
    config = command_line.parse(["main.py", *flags])
    base = command_line.parse(
        ["main.py", f"--flagfile={ablations.RECIPES / 'base.flags'}"]
    )
    changed = ablations.described(path)["changed"]
    names = {flag.partition("=")[0] for flag in changed}
    differences = {d.partition("=")[0] for d in config.differences(base)}
    # Of tau's line, two flags have what is the default anyway.
    assert differences - {"--image_size"} == names - {
        "--tau_end",
        "--tau_warmup_steps",
    }
    assert config.on_collapse == "ignore"
    assert config.run_dir == f"runs/ablations/{path.stem}"


@pytest.mark.parametrize(
    "flags",
    sorted(
        {
            tuple(
                flag
                for flag in ablations.described(path)["changed"]
                if not flag.startswith(("--batch", "--steps", "--projection"))
            )
            for path in RECIPES
        }
    ),
    ids=" ".join,
)
def test_every_recipe_builds(flags):
    config = command_line.parse(
        ["main.py", f"--flagfile={ablations.RECIPES / 'base.flags'}"]
        + [*TINY, *flags]
    )
    model = build_byol(config, 10, 5.0, 10)
    assert model.trainable_variables


def test_what_a_recipe_says():
    described = ablations.described(ablations.RECIPES / "no_target.flags")
    assert described["changed"] == ["--tau_base=0", "--tau_schedule=constant"]
    assert described["published"] == "0.3 or 5.5"
    described = ablations.described(ablations.RECIPES / "tau_warmup.flags")
    assert described["published"] == ""
    described = ablations.described(ablations.RECIPES / "base.flags")
    assert (described["changed"], described["published"]) == ([], "72.5")


def test_table_by_hand():
    good = {
        "row": "base",
        "changed": [],
        "for_all_rows": [],
        "dataset": "bundled",
        "published": "72.5",
        "seed": 0,
        "knn_top1": 0.4321,
        "linear_top1": 0.5,
        "untrained": {"knn_top1": 0.3, "linear_top1": 0.35},
        "note": "",
        "found": [],
        "seconds": 61.4,
    }
    flat = good | {
        "row": "no_predictor",
        "changed": ["--predictor=none"],
        "published": "",
        "found": ["collapsed projections", "predictor missing"],
    }
    failed = {
        name: flat[name]
        for name in ("row", "changed", "for_all_rows", "dataset", "seed")
    } | {"published": "0.1", "failure": "no | space"}
    lines = ablations.markdown([good, flat, failed], MACHINE).splitlines()
    assert lines[2:6] == [
        "| base | nothing | 0 | 43.2 | 50.0 | healthy | 72.5 | 61 |",
        "| no_predictor | `--predictor=none` | 0 | 43.2 | 50.0 | collapsed "
        "projections; predictor missing |  | 61 |",
        "| no_predictor | `--predictor=none` | 0 |  |  | **failed**: no / "
        "space | 0.1 |  |",
        "| not trained | the encoder of base | 0 | 30.0 | 35.0 |  |  |  |",
    ]
    assert "Images: `bundled`." in lines[-1]
    assert "tensorflow 2, cores 1." in lines[-1]


def test_an_unknown_row(tmp_path, capsys):
    with pytest.raises(SystemExit):
        ablations.main(["--only=bse", f"--runs={tmp_path}"])
    assert "--only=bse is none of base, batch_" in capsys.readouterr().err


@pytest.mark.slow
def test_two_rows_end_to_end(tmp_path, capsys):
    command = ["--only=base,no_predictor", f"--runs={tmp_path}"]
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


def test_a_base_of_its_own_stands_beside_the_figure():
    path = ablations.RECIPES / "group_norm.flags"
    assert ablations.described(path)["published"] == "73.9 (base 74.3)"
    path = ablations.RECIPES / "no_jitter.flags"
    assert ablations.described(path)["published"] == "about 71.8"


def test_paths_do_not_depend_on_the_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert ablations.from_here("npz:a.npz") == f"npz:{tmp_path / 'a.npz'}"
    assert ablations.from_here("folder:/a") == "folder:/a"
    assert ablations.from_here("bundled") == "bundled"
    assert ablations.from_here("tfds:cifar10") == "tfds:cifar10"


def test_a_seed_is_a_number(capsys):
    with pytest.raises(SystemExit):
        ablations.main(["--seeds=a"])
    assert "argument --seeds: invalid numbers value" in capsys.readouterr().err
