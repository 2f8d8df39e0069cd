"""Flags: who wins, what help says, what a mistake is answered with."""

import dataclasses
import pathlib

import pytest

from byol_tf import command_line
from byol_tf.config import Config, ConfigError

FLAGS = pathlib.Path(__file__).parents[1] / "flags"


def parse(*arguments) -> Config:
    return command_line.parse(["main.py", *arguments])


def test_defaults():
    assert parse("--seed=0") == Config()


def test_no_flags_ask_for_help(capsys):
    assert parse() is None
    assert "--flagfile=flags/quickstart.flags" in capsys.readouterr().out


def test_the_later_value_wins(tmp_path):
    flagfile = tmp_path / "some.flags"
    flagfile.write_text("# A comment.\n--seed=1\n--batch_size=64\n--blur=1,0\n")
    config = parse(f"--flagfile={flagfile}", "--seed=2")
    assert (config.seed, config.batch_size) == (2, 64)
    assert config.blur == (1.0, 0.0)
    assert parse("--seed=2", f"--flagfile={flagfile}").seed == 1


def test_written_flags_ask_for_the_same(tmp_path):
    config = parse(
        "--deterministic", "--steps=7", "--blur=.5,.25", "--encoder_depth=18"
    )
    (tmp_path / "flags.txt").write_text(config.flagfile())
    assert parse(f"--flagfile={tmp_path / 'flags.txt'}") == config
    defaults = Config()
    (tmp_path / "flags.txt").write_text(defaults.flagfile())
    assert parse(f"--flagfile={tmp_path / 'flags.txt'}") == defaults


@pytest.mark.parametrize(
    "argument, message",
    [
        ("--sed=1", "--sed is no flag. Did you mean --seed?"),
        ("--seed=x", "--seed=x is no valid value"),
        ("seed", "'seed' is no flag"),
        ("--flagfile=/nowhere/x.flags", "--flagfile cannot be read"),
        ("--blur=a,b", "--blur=a,b"),
        ("--steps=", "steps"),
        ("--deterministic=maybe", "--deterministic=maybe is no valid value"),
    ],
)
def test_mistakes_are_one_line(argument, message):
    with pytest.raises(ConfigError) as error:
        parse(argument)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_help_describes_every_flag(capsys):
    assert parse("--help") is None
    page = capsys.readouterr().out
    for field in dataclasses.fields(Config):
        assert f"\n  --{field.name}" in page
    assert max(map(len, page.splitlines())) <= 100


def test_evaluate_takes_the_settings_of_the_run(tmp_path):
    saved = Config(image_size=28, eval_crop=1.0, epochs=300)
    saved.save(tmp_path / "config.json")
    config = parse(
        "--mode=evaluate", f"--run_dir={tmp_path}", "--eval_crop=0.9"
    )
    assert config.mode == "evaluate"
    assert (config.image_size, config.epochs) == (28, 300)
    assert config.eval_crop == 0.9

    # A run folder that has moved, named by --encoder.
    config = parse("--mode=export", f"--encoder={tmp_path}")
    assert config.run_dir == str(tmp_path)
    assert config.image_size == 28


@pytest.mark.parametrize(
    "path", sorted(FLAGS.rglob("*.flags")), ids=lambda p: p.stem
)
def test_every_flagfile_parses_and_says_what_it_is(path):
    parse(f"--flagfile={path}")
    head = path.read_text().split("\n--")[0]
    for word in ("python byol_tf/main.py --flagfile=", "Source:", "Result:"):
        assert word in head, f"{path.name} does not say: {word}"


def test_published_recipes_are_those_of_the_release():
    imagenet = parse(f"--flagfile={FLAGS / 'imagenet_resnet50_1000.flags'}")
    assert (imagenet.batch_size, imagenet.encoder_depth) == (4096, 50)
    assert (imagenet.base_learning_rate, imagenet.weight_decay) == (0.2, 1.5e-6)
    assert (imagenet.tau_base, imagenet.warmup_epochs) == (0.996, 10)
    assert (imagenet.projector_hidden, imagenet.projection_size) == (4096, 256)
    imagenette = parse(f"--flagfile={FLAGS / 'imagenette_resnet18.flags'}")
    assert (imagenette.image_size, imagenette.batch_size) == (128, 256)
    assert (imagenette.base_learning_rate, imagenette.weight_decay) == (
        2.0,
        1e-6,
    )
    assert (imagenette.tau_base, imagenette.epochs) == (0.996, 1000)
    assert imagenette.eval_crop == 0.8
