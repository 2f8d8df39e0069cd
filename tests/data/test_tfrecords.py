"""Random access to TFRecord files, against TensorFlow's own reader."""

import os

import pytest
import tensorflow as tf

from byol_tf.data.tfrecords import RecordFiles


def read_all(records: RecordFiles) -> list[bytes]:
    read = records.reader()
    numbers = (tf.constant(i, tf.int64) for i in range(records.size))
    return [read(number).numpy() for number in numbers]


def test_records_equal_those_read_from_front_to_back(tmp_path):
    contents = [bytes([i]) * (i * 37 % 11) for i in range(25)]
    paths = [str(tmp_path / name) for name in ("a", "b")]
    for path, part in zip(paths, (contents[:10], contents[10:]), strict=True):
        with tf.io.TFRecordWriter(path) as writer:
            for record in part:
                writer.write(record)
    records = RecordFiles()
    for path in paths:
        records.add(path)
    assert records.size == 25
    expected = list(tf.data.TFRecordDataset(paths).as_numpy_iterator())
    assert read_all(records) == expected == contents


def test_a_part_of_a_file(tmp_path):
    path = str(tmp_path / "a")
    with tf.io.TFRecordWriter(path) as writer:
        for i in range(10):
            writer.write(str(i).encode())
    records = RecordFiles()
    records.add(path, slice(7, None))
    records.add(path, slice(2, 4))
    assert read_all(records) == [b"7", b"8", b"9", b"2", b"3"]


@pytest.fixture
def ten(tmp_path):
    """A file of ten records of 100 bytes, and where each begins."""
    path = str(tmp_path / "ten")
    with tf.io.TFRecordWriter(path) as writer:
        for i in range(10):
            writer.write(bytes([i]) * 100)
    return path, range(0, 1160, 116)


def flip(path: str, offset: int):
    with open(path, "r+b") as file:
        file.seek(offset)
        (byte,) = file.read(1)
        file.seek(offset)
        file.write(bytes([byte ^ 1]))


def test_a_damaged_record_is_an_error_and_no_wrong_content(ten):
    path, offsets = ten
    flip(path, offsets[4] + 50)
    records = RecordFiles()
    assert records.add(path) == 0
    read = records.reader()
    assert read(tf.constant(3, tf.int64)) == bytes([3]) * 100
    with pytest.raises(tf.errors.DataLossError):
        read(tf.constant(4, tf.int64))


def test_records_behind_a_damaged_length_are_counted_as_lost(ten):
    path, offsets = ten
    flip(path, offsets[4] + 6)  # One of the upper bytes of the length.
    records = RecordFiles()
    assert records.add(path) == 6
    assert records.size == 4


def test_many_files_need_no_open_ones(tmp_path):
    records = RecordFiles()
    before = len(os.listdir("/proc/self/fd"))
    for i in range(50):
        path = str(tmp_path / str(i))
        with tf.io.TFRecordWriter(path) as writer:
            writer.write(b"x")
        records.add(path)
    assert len(read_all(records)) == 50
    assert len(os.listdir("/proc/self/fd")) <= before + 3
