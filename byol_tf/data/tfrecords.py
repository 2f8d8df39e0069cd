"""Reading any record of TFRecord files by its number."""

import os
import struct

import numpy as np

# A record: its length, a checksum of that, its bytes, a checksum of those.
_HEADER, _FOOTER = 12, 4


class RecordFiles:
    """The records of several TFRecord files, numbered one after the other.

    Adding a file walks over the lengths in it and notes where records lie;
    their contents are read when asked for, from any thread.
    """

    def __init__(self):
        self._descriptors = []
        self._positions = np.empty((0, 3), np.int64)

    def add(self, path: str, part: slice = slice(None)) -> int:
        """Appends the records of a file, or a part of them.

        Returns:
          The number of bytes at the file's end that are no whole record; 0 if
          the file is as it should be.
        """
        descriptor = os.open(path, os.O_RDONLY)
        end = os.fstat(descriptor).st_size
        positions, offset = [], 0
        while offset + _HEADER + _FOOTER <= end:
            (length,) = struct.unpack("<Q", os.pread(descriptor, 8, offset))
            after = offset + _HEADER + length + _FOOTER
            if after > end:
                break
            positions.append((len(self._descriptors), offset + _HEADER, length))
            offset = after
        self._descriptors.append(descriptor)
        positions = np.array(positions, np.int64).reshape(-1, 3)
        self._positions = np.concatenate([self._positions, positions[part]])
        return end - offset

    @property
    def size(self) -> int:
        """Number of records."""
        return len(self._positions)

    def read(self, index: int) -> bytes:
        """The bytes of one record."""
        file, offset, length = self._positions[index]
        return os.pread(self._descriptors[file], length, offset)
