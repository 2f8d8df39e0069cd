"""--mode=convert: from the release's file to an encoder that one can use."""

import json

import keras
import numpy as np
import pytest
from conftest import ROOT, run, save_images
from official_files import write_official

import byol_tf
from byol_tf.config import Config, ConfigError
from byol_tf.convert import run as convert
from byol_tf.deepmind import read_checkpoint
from byol_tf.main import main

OFFICIAL = ROOT / "tests/golden/deepmind_checkpoint_tiny.pkl"


def command(capsys, *arguments) -> tuple[int, str, str]:
    """Exit code, stdout and stderr of the command line, in this process."""
    code = main(["main.py", *map(str, arguments)])
    return code, *capsys.readouterr()


def expected() -> dict[str, np.ndarray]:
    path = OFFICIAL.with_name("deepmind_checkpoint_tiny_expected.npz")
    with np.load(path) as file:
        return dict(file)


def test_encoder_gives_the_official_features(tmp_path, capsys):
    code, out, _ = command(
        capsys,
        "--mode=convert",
        f"--deepmind_checkpoint={OFFICIAL}",
        f"--run_dir={tmp_path}",
    )
    assert code == 0
    assert "CC BY-NC 4.0" in out
    assert "CC BY-NC 4.0" in (tmp_path / "LICENSE.txt").read_text()
    golden = expected()
    encoder = keras.saving.load_model(tmp_path / "encoder.keras")
    features = encoder(golden["images"] / np.float32(255))
    difference = np.abs(features - golden["embedding"]).max()
    assert difference <= 1e-5 * np.abs(golden["embedding"]).max()

    config = Config.load(tmp_path / "config.json")
    assert (config.encoder_depth, config.encoder_width) == (None, 1)
    assert config.encoder_blocks == (1, 1, 1, 1)
    assert config.encoder_channels == (8, 8, 8, 8)
    assert (config.projector_hidden, config.projection_size) == (64, 32)
    report = json.loads((tmp_path / "report.json").read_text())["converted"]
    assert report["file"] == OFFICIAL.name
    assert report["num_classes"] == 10
    assert report["step"] == 7
    assert report["encoder_parameters"] == 19072
    text = (tmp_path / "report.md").read_text()
    assert "blocks=(1, 1, 1, 1)" in text and "CC BY-NC 4.0" in text


@pytest.mark.slow
def test_evaluate_export_and_training_accept_it(tmp_path, capsys):
    """On another data set than the default; evaluation in a new process."""
    run_dir, photos = tmp_path / "run", tmp_path / "photos"
    for name, first in (("a", 0), ("b", 20)):
        save_images(photos / name, 20, (40, 40), first=first)
    flags = ("--mode=convert", f"--deepmind_checkpoint={OFFICIAL}")
    assert command(capsys, *flags, f"--run_dir={run_dir}")[0] == 0
    process = run(
        "--mode=evaluate", f"--run_dir={run_dir}", f"--dataset=folder:{photos}"
    )
    assert process.returncode == 0, process.stderr
    assert "learned encoder" in process.stdout
    flags = ("--mode=export", f"--run_dir={run_dir}", "--image_size=32")
    assert command(capsys, *flags)[0] == 0
    report = json.loads((run_dir / "report.json").read_text())
    assert report["evaluation"]["dataset"] == f"folder:{photos}"
    assert report["export"]["max_abs_diff"] < 1e-4
    assert set(report) == {"converted", "evaluation", "export"}

    encoder = keras.saving.load_model(run_dir / "encoder.keras")
    before = [v.numpy() for v in encoder.trainable_variables]
    classifier = keras.Sequential([encoder, keras.layers.Dense(10)])
    classifier.compile(
        keras.optimizers.SGD(0.1),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    )
    images = expected()["images"] / np.float32(255)
    classifier.fit(images, np.arange(6), epochs=2, verbose=0)
    for old, new in zip(before, encoder.trainable_variables, strict=True):
        assert np.abs(old - new.numpy()).max() > 0


@pytest.mark.parametrize(
    "arguments, depth, width",
    [
        ({"depth": 18}, 18, 1),
        (
            {
                "blocks": (1, 1),
                "channels": (8, 16),
                "bottleneck": True,
                "width": 2,
            },
            None,
            2,
        ),
    ],
)
def test_sizes_are_read_off_the_file(tmp_path, arguments, depth, width):
    model = byol_tf.BYOL(
        byol_tf.ResNet(**arguments), 24, 12, total_steps=1, num_classes=5
    )
    model.compile(byol_tf.LARS())
    model.optimizer.build(model.trainable_variables)
    trees = byol_tf.deepmind.to_haiku(model)
    path = tmp_path / "official.pkl"
    for tree in trees.values():  # As some of the released files have it.
        for module in [m for m in tree if m.endswith("/initial_conv")]:
            tree[f"{module}_1"] = tree.pop(module)
    write_official(path, trees)
    settled = convert(
        Config(
            mode="convert",
            deepmind_checkpoint=str(path),
            run_dir=str(tmp_path / "run"),
        )
    )
    assert (settled.encoder_depth, settled.encoder_width) == (depth, width)
    assert (settled.projector_hidden, settled.projection_size) == (24, 12)
    encoder = keras.saving.load_model(tmp_path / "run/encoder.keras")
    for ours, theirs in zip(
        encoder.variables, model.encoder.variables, strict=True
    ):
        np.testing.assert_array_equal(ours.numpy(), theirs.numpy())


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["--encoder_depth=50"], "--encoder_depth=50: but"),
        (["--encoder_width=2"], "--encoder_width=2: but"),
        (
            ["--encoder_depth=18", "--projection_size=256"],
            "--encoder_depth=18, --projection_size=256: but",
        ),
        (["--stem=cifar"], "--stem=cifar: but"),
        (["--encoder_bottleneck"], "--encoder_bottleneck=true: but"),
        (["--encoder_blocks=2,2"], "--encoder_blocks=2,2: but"),
        (
            ["--encoder_group_strides=1,1,1,1"],
            "--encoder_group_strides=1,1,1,1: but",
        ),
    ],
)
def test_a_wrong_size_is_told_what_fits(tmp_path, capsys, arguments, message):
    run_dir = tmp_path / "run"
    code, _, error = command(
        capsys,
        "--mode=convert",
        f"--deepmind_checkpoint={OFFICIAL}",
        f"--run_dir={run_dir}",
        *arguments,
    )
    assert code == 2
    assert message in error and "channels=(8, 8, 8, 8), width=1)" in error
    assert len(error.splitlines()) == 1
    assert not run_dir.exists()


def test_sizes_that_fit_may_be_given(tmp_path, capsys):
    code, _, error = command(
        capsys,
        "--mode=convert",
        f"--deepmind_checkpoint={OFFICIAL}",
        f"--run_dir={tmp_path}",
        "--encoder_blocks=1,1,1,1",
        "--encoder_channels=8,8,8,8",
        "--encoder_group_strides=1,2,2,2",
        "--encoder_width=1",
        "--projector_hidden=64",
        "--epochs=7",
    )
    assert code == 0, error


def damaged(change) -> dict:
    """The trees of the official file, changed."""
    trees = read_checkpoint(OFFICIAL).trees
    change(trees["online_params"], trees["online_state"])
    return trees


def without_a_block(params, state):
    del params["tiny_res_net/~/block_group_1/~/block_0/~/conv_1"]


def with_a_nan(params, state):
    w = params["tiny_res_net/~/initial_conv"]["w"].copy()
    w[0, 0, 0, 0] = np.nan
    params["tiny_res_net/~/initial_conv"]["w"] = w


def without_state(params, state):
    state.clear()


def of_another_name(params, state):
    for module in [m for m in params if m.startswith("tiny_res_net/")]:
        params[module.replace("tiny_res_net", "res_net50")] = params.pop(module)


def too_large(params, state):
    wide = np.broadcast_to(np.float32(0), (1, 10**5))
    params["projector/linear"]["w"] = params["projector/linear_1"]["w"] = wide


@pytest.mark.parametrize(
    "change, message",
    [
        (without_a_block, "missing tiny_res_net/~/block_group_1/~/block_0/~"),
        (with_a_nan, "tiny_res_net/~/initial_conv::w holds values that are"),
        (without_state, "… 84 more … state: missing predictor/batch_norm/~"),
        (of_another_name, "unknown res_net50/~/initial_conv::w"),
        (too_large, "num_classes=10 has 30,001,419,162."),
    ],
)
def test_damaged_contents(tmp_path, change, message):
    path = tmp_path / "official.pkl"
    write_official(path, damaged(change))
    config = Config(
        mode="convert",
        deepmind_checkpoint=str(path),
        run_dir=str(tmp_path / "run"),
    )
    with pytest.raises(ConfigError, match="--deepmind_checkpoint") as raised:
        convert(config)
    assert message in str(raised.value)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    "flags, message",
    [
        ("--mode=convert", "needs --deepmind_checkpoint=FILE"),
        ("--mode=convert --deepmind_checkpoint=none.pkl", "No such file"),
        ("--mode=convert --deepmind_checkpoint=tests", "Is a directory"),
        ("--mode=convert --deepmind_checkpoint=BUILD", "no whole pickle"),
        (f"--deepmind_checkpoint={OFFICIAL}", "goes with --mode=convert"),
        (
            f"--mode=evaluate --deepmind_checkpoint={OFFICIAL}",
            "--mode=convert makes one",
        ),
        (
            f"--mode=evaluate --encoder={OFFICIAL}",
            "becomes one by --mode=convert",
        ),
    ],
)
def test_one_line_for_each_mistake(
    tmp_path, capsys, monkeypatch, flags, message
):
    monkeypatch.chdir(ROOT)
    run_dir = tmp_path / "run"
    code, out, error = command(capsys, *flags.split(), f"--run_dir={run_dir}")
    assert (code, out) == (2, "")
    assert message in error and len(error.splitlines()) == 1
    assert not run_dir.exists()


def test_it_does_not_overwrite_another_run(tmp_path, capsys):
    flags = [
        "--mode=convert",
        f"--deepmind_checkpoint={OFFICIAL}",
        f"--run_dir={tmp_path}",
    ]
    Config(encoder_depth=18).save(tmp_path / "config.json")
    code, _, error = command(capsys, *flags)
    assert code == 2
    assert f"--deepmind_checkpoint={OFFICIAL} (none there)" in error
    (tmp_path / "config.json").unlink()
    assert command(capsys, *flags)[0] == 0
    assert command(capsys, *flags)[0] == 0  # The same again is no other run.
    code, _, error = command(
        capsys, f"--run_dir={tmp_path}", "--encoder_depth=18"
    )
    assert code == 2
    assert f"--deepmind_checkpoint= ({OFFICIAL} there)" in error
