"""--profile_input: what it measures, and what it makes of figures."""

import pytest
from conftest import SMALL, photos

from byol_tf import profile_input
from byol_tf.config import Config
from byol_tf.data.bundled import open_bundled
from byol_tf.data.loading import cores
from byol_tf.data.skipped import Skipped
from byol_tf.data.sources import Dataset, EncodedSource
from byol_tf.main import main

FILES = EncodedSource(1000, None, str, 300, Skipped())
SAME_SIZE = EncodedSource(1000, None, str, 1000, Skipped(), shape=(1000, 2000))


def advice(
    of_input,
    of_step,
    together,
    source=FILES,
    shared=False,
    slowest="decode",
    **settings,
):
    seconds = {
        "input alone": of_input,
        "training step alone": of_step,
        "both together": together,
    }
    stages = {"read": 1.0, "decode": 1.0, "resize": 1.0} | {slowest: 2.0}
    return profile_input.advice(
        Config(image_size=224, **settings),
        Dataset(source, None, ()),
        seconds,
        stages,
        shared,
    )


def test_what_limits_on_an_accelerator():
    text = advice(of_input=2.0, of_step=0.5, together=2.0)
    assert text.startswith("INPUT limits")
    assert "waits for its images 75% of the time" in text
    text = advice(of_input=0.4, of_step=0.5, together=0.51)
    assert text.startswith("COMPUTE limits")
    assert "--image_size" in text


def test_what_limits_where_both_share_the_cores():
    text = advice(of_input=3.0, of_step=1.0, together=4.0, shared=True)
    assert text.startswith("INPUT limits")
    assert "takes 75% of their time" in text
    text = advice(of_input=1.0, of_step=3.0, together=4.0, shared=True)
    assert text.startswith("COMPUTE limits")


@pytest.mark.parametrize(
    "settings, said",
    [
        (dict(slowest="decode"), "smaller copies of the files"),
        (dict(slowest="resize"), "lower --image_size"),
        (dict(slowest="read"), "raise --parallel_calls above"),
        (dict(source=SAME_SIZE), "--in_memory_gb=6 decodes them once"),
        (dict(source=open_bundled().train), "in memory already"),
    ],
)
def test_the_flag_to_turn(settings, said):
    assert said in advice(2.0, 0.5, 2.0, **settings)


def test_unused_cores_come_first(monkeypatch):
    monkeypatch.setattr(profile_input, "cores", lambda: 8)
    text = advice(2.0, 0.5, 2.0, parallel_calls=2)
    assert "Raise --parallel_calls from 2 to 8" in text


@pytest.mark.slow
def test_on_real_files_nothing_is_written(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(profile_input, "SECONDS", 0.2)
    run_dir = tmp_path / "run"
    code = main(
        [
            "main.py",
            *SMALL,
            "--profile_input",
            "--image_size=24",
            f"--dataset=folder:{photos(tmp_path / 'photos')}",
            f"--run_dir={run_dir}",
        ]
    )
    assert code == 0
    text = capsys.readouterr().out
    for name in ("input alone", "training step alone", "both together"):
        assert f"| {name} |" in text
    for name in ("read", "decode", "resize"):
        assert f"| {name} |" in text
    assert "limits this run" in text and f"share {cores()} cores" in text
    assert not run_dir.exists()


def test_it_goes_with_pretraining_only(capsys):
    assert main(["main.py", "--mode=preview", "--profile_input"]) == 2
    assert (
        "--profile_input goes with --mode=pretrain" in capsys.readouterr().err
    )
