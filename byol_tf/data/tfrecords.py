"""Reading any record of TFRecord files by its number."""

import os
import struct

import numpy as np
import tensorflow as tf

# A record: its length, a checksum of that, its bytes, a checksum of those.
_HEADER, _FOOTER = 12, 4


class RecordFiles:
    """The records of several TFRecord files, numbered one after the other.

    Adding a file walks over the lengths in it and notes where records lie;
    their contents are read when asked for, and their checksums compared then.
    """

    def __init__(self):
        self._paths = []
        self._files = np.empty(0, np.int64)
        self._offsets = np.empty(0, np.int64)

    def add(self, path: str, part: slice = slice(None)) -> int:
        """Appends the records of a file, or a part of them.

        Returns:
          About how many records at the file's end cannot be found, because it
          is cut short or a length in it is damaged; 0 for a sound file.
        """
        offsets = []
        with open(path, "rb") as file:
            end = os.fstat(file.fileno()).st_size
            offset = 0
            while offset + _HEADER + _FOOTER <= end:
                (length,) = struct.unpack(
                    "<Q", os.pread(file.fileno(), 8, offset)
                )
                after = offset + _HEADER + length + _FOOTER
                if after > end:
                    break
                offsets.append(offset)
                offset = after
        chosen = np.array(offsets, np.int64)[part]
        self._files = np.append(
            self._files, np.full(len(chosen), len(self._paths))
        )
        self._offsets = np.append(self._offsets, chosen)
        self._paths.append(path)
        if offset == end:
            return 0
        mean = offset / len(offsets) if offsets else end
        return max(1, round((end - offset) / mean))

    @property
    def size(self) -> int:
        """Number of records."""
        return len(self._offsets)

    def reader(self):
        """A function of a record's number (int64 scalar) to its bytes.

        It works in a graph, and raises DataLossError for a damaged record.
        """
        paths = tf.constant(self._paths)
        files, offsets = tf.constant(self._files), tf.constant(self._offsets)

        def read(index: tf.Tensor) -> tf.Tensor:
            records = tf.data.experimental.from_variant(
                tf.raw_ops.TFRecordDatasetV2(
                    filenames=paths[files[index]][None],
                    compression_type="",
                    buffer_size=tf.constant(0, tf.int64),
                    byte_offsets=offsets[index][None],
                ),
                tf.TensorSpec([], tf.string),
            )
            return records.take(1).get_single_element()

        return read
