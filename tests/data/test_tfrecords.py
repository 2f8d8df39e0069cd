"""Random access to TFRecord files, against TensorFlow's own reader."""

import tensorflow as tf

from byol_tf.data.tfrecords import RecordFiles


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
    assert [records.read(i) for i in range(25)] == expected == contents


def test_a_part_of_a_file(tmp_path):
    path = str(tmp_path / "a")
    with tf.io.TFRecordWriter(path) as writer:
        for i in range(10):
            writer.write(str(i).encode())
    records = RecordFiles()
    records.add(path, slice(7, None))
    records.add(path, slice(2, 4))
    assert [records.read(i) for i in range(records.size)] == [
        b"7",
        b"8",
        b"9",
        b"2",
        b"3",
    ]
