"""TFDS's builders without their downloads: random examples on the disk.

`tfds.testing.mock_data` makes examples of a builder's schema; they are written
as TFRecords by the builder itself, and so are read as real ones would be.
"""

import tensorflow_datasets as tfds


def write_mocked(
    name, folder, monkeypatch, sizes, changed=lambda number, example: example
):
    """Writes a data set of random examples.

    Args:
      name: NAME[/CONFIG] in TFDS.
      folder: for --data_dir.
      monkeypatch: replaces what would download.
      sizes: split -> number of examples.
      changed: (number, example in NumPy) -> what is written.
    """
    with tfds.testing.mock_data(num_examples=max(sizes.values())):
        mock = tfds.builder(name)
        made = list(tfds.as_numpy(mock.as_dataset(split="train")))
    builder = tfds.builder(name, data_dir=folder)

    def generators(self, _):
        return {
            split: [(i, changed(i, made[i])) for i in range(count)]
            for split, count in sizes.items()
        }

    monkeypatch.setattr(type(builder), "_split_generators", generators)
    builder.download_and_prepare()
