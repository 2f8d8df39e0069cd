"""Settings: presets, limits, files, and what makes a run another run."""

import dataclasses
import json

import pytest

from byol_tf.config import Config, ConfigError


@pytest.mark.parametrize(
    "epochs, expected",
    [
        (40, (0.45, 1e-6, 0.97)),
        (100, (0.45, 1e-6, 0.99)),
        (300, (0.3, 1e-6, 0.99)),
        (1000, (0.2, 1.5e-6, 0.996)),
    ],
)
def test_published_presets(epochs, expected):
    config = Config(epochs=epochs)
    assert expected == (
        config.base_learning_rate,
        config.weight_decay,
        config.tau_base,
    )


def test_given_values_win_over_the_preset():
    config = Config(epochs=100, tau_base=0.5)
    assert config.tau_base == 0.5
    assert config.base_learning_rate == 0.45


def test_unpublished_epochs_need_the_values():
    with pytest.raises(
        ConfigError,
        match="--epochs=7 .*40, 100, 300.*1000.* give --base_learning_rate, "
        "--weight_decay, --tau_base as well",
    ):
        Config(epochs=7)
    with pytest.raises(ConfigError, match="give --weight_decay as well"):
        Config(epochs=200, base_learning_rate=1.0, tau_base=0.9)
    Config(epochs=7, base_learning_rate=1.0, weight_decay=0.0, tau_base=0.9)


@pytest.mark.parametrize(
    "setting, message",
    [
        (dict(mode="train"), "--mode=train"),
        (dict(batch_size=1), "--batch_size=1"),
        (dict(tau_base=1.1), "--tau_base=1.1"),
        (dict(tau_base=float("nan")), "--tau_base=nan"),
        (dict(weight_decay=-1.0), "--weight_decay=-1.0"),
        (dict(blur=(0.5,)), "--blur"),
        (dict(blur=(0.5, 2.0)), "--blur"),
        (dict(base_learning_rate=float("inf")), "--base_learning_rate=inf"),
        (dict(steps=0), "--steps=0"),
        (dict(dataset="mnist"), "--dataset=mnist is none of"),
        (dict(dataset="folder:"), "--dataset=folder: is none of"),
        (dict(encoder="somewhere"), "--encoder=somewhere .*pretrain"),
        (dict(encoder_channels=(8, 8)), "--encoder_channels needs"),
        (dict(encoder_bottleneck=True), "--encoder_bottleneck needs"),
        (
            dict(
                encoder_blocks=(1, 1),
                encoder_channels=(8, 8),
                encoder_group_strides=(2,),
            ),
            "as many --encoder_group_strides",
        ),
        (dict(seed=-1), "--seed=-1"),
        (dict(tau_end=0.5), "--tau_end=0.5 goes with --tau_schedule=warmup"),
        (dict(tau_warmup_steps=5), "--tau_warmup_steps=5 goes with"),
        (dict(predictor="linear"), "--predictor=linear is none of"),
        (
            dict(predictor="none", predictor_rate=10.0),
            "--predictor_rate=10.0 goes with --predictor=mlp only",
        ),
        (
            dict(target="online", tau_schedule="constant"),
            "--tau_schedule=constant goes with --target=moving_average",
        ),
        (dict(temperature=0.2), "--temperature=0.2 .*--negatives_weight"),
        (dict(negatives_weight=-1.0), "--negatives_weight=-1.0 is below 0"),
        (dict(normalization="layer"), "--normalization=layer is none of"),
        (dict(stem="x"), "--stem=x"),
        (dict(encoder_depth=42), "--encoder_depth=42"),
        (dict(encoder_blocks=(1, 1)), "--encoder_channels"),
        (
            dict(encoder_blocks=(1, 0), encoder_channels=(8, 8)),
            "--encoder_blocks",
        ),
    ],
)
def test_impossible_settings_name_their_flag(setting, message):
    with pytest.raises(ConfigError, match=message):
        Config(**setting)


def test_file_round_trip(tmp_path):
    config = Config(
        blur=(0.3, 0.4), encoder_blocks=(1, 2), encoder_channels=(8, 8)
    )
    config.save(tmp_path / "config.json")
    assert Config.load(tmp_path / "config.json") == config


def test_a_file_of_another_version_is_refused(tmp_path):
    path = tmp_path / "config.json"
    values = dataclasses.asdict(Config()) | {"momentum_of_2019": 1}
    path.write_text(json.dumps(values))
    with pytest.raises(ConfigError, match="config.json"):
        Config.load(path)
    path.write_text("{")
    with pytest.raises(ConfigError, match="config.json"):
        Config.load(path)


def test_differences_are_those_of_the_run():
    config = Config()
    other = dataclasses.replace(
        config, seed=3, run_dir="elsewhere", log_every=7
    )
    assert other.differences(config) == ["--seed=3 (0 there)"]
