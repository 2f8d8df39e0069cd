"""The list of images that cannot be used."""

import threading

import pytest

from byol_tf.config import ConfigError
from byol_tf.data.skipped import Skipped


def test_above_the_limit_training_stops(tmp_path):
    skipped = Skipped(limit=0.02)
    skipped.total = 100
    skipped.note("a.jpg", "empty")
    skipped.note("b.jpg", "damaged")
    skipped.note("a.jpg", "empty")  # Met again.
    skipped.check()
    skipped.keep_in(tmp_path / "skipped.txt")
    skipped.note("c.jpg", "damaged")
    with pytest.raises(
        ConfigError,
        match=r"3 of 100 .*--max_corrupt_fraction=0.02 .*a.jpg: empty. "
        r".*skipped.txt lists them",
    ):
        skipped.check()


def test_the_file_is_continued_by_a_resumed_run(tmp_path):
    path = tmp_path / "skipped.txt"
    first = Skipped()
    first.note("a.jpg", "empty")
    first.keep_in(path)
    first.note("b.jpg", "damaged")
    second = Skipped()
    second.note("b.jpg", "damaged")
    second.note("c\n\t.jpg", "no\nimage")
    second.keep_in(path)
    assert len(second) == 3
    second.note("c\n\t.jpg", "no image")  # Known by its name in the file.
    assert len(second) == 3
    assert path.read_text().splitlines() == [
        "a.jpg\tempty",
        "b.jpg\tdamaged",
        "c\ufffd\ufffd.jpg\tno\ufffdimage",
    ]


def test_without_damage_there_is_no_file(tmp_path):
    Skipped().keep_in(tmp_path / "skipped.txt")
    assert not list(tmp_path.iterdir())


def test_many_threads_lose_nothing(tmp_path):
    skipped = Skipped()
    skipped.keep_in(tmp_path / "skipped.txt")

    def note(worker):
        for i in range(50):
            skipped.note(f"{worker // 2} {i}", "empty")

    threads = [threading.Thread(target=note, args=[i]) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    lines = (tmp_path / "skipped.txt").read_text().splitlines()
    assert len(lines) == len(set(lines)) == len(skipped) == 200


def test_counts_are_kept_in_the_file(tmp_path):
    """What is listed and not missing does not count after a resume either."""
    path = tmp_path / "skipped.txt"
    first = Skipped()
    first.keep_in(path)
    first.note("a.jpg, box 3", "no area", count=0)
    first.check()
    first.note("b.tfrecord", "records at its end lost", count=3)
    first.note("c.jpg", "empty")
    second = Skipped(limit=0.1)
    second.total = 20
    second.keep_in(path)
    assert len(first) == len(second) == 4
    assert second.reasons == first.reasons and len(second.reasons) == 3
    with pytest.raises(ConfigError, match="4 of 20 .* first is b.tfrecord"):
        second.check()
