"""Batches by tf.data service are those made here, whatever happens to it."""

import numpy as np
import pytest
import tensorflow as tf
from conftest import save_images

from byol_tf import augment
from byol_tf.config import Config, ConfigError
from byol_tf.data import service
from byol_tf.data.pipeline import open_dataset, training_batches

RECIPES = (augment.T, augment.T_PRIME)


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """JPEGs, of which one is cut short; and two that only Pillow reads."""
    folder = tmp_path_factory.mktemp("files")
    save_images(folder, 30)
    save_images(folder, 2, suffix="webp", first=30)
    damaged = folder / "007.jpg"
    damaged.write_bytes(damaged.read_bytes()[:300])
    config = Config(
        dataset=f"folder:{folder}",
        image_size=16,
        in_memory_gb=0,
        max_corrupt_fraction=0.2,
    )
    return open_dataset(config)[0].train


@pytest.fixture
def servers():
    """A dispatcher and two workers in this process."""
    library = tf.data.experimental.service
    dispatcher = library.DispatchServer(library.DispatcherConfig(port=0))
    address = dispatcher.target.removeprefix("grpc://")
    workers = [
        library.WorkerServer(library.WorkerConfig(dispatcher_address=address))
        for _ in range(2)
    ]
    return address, dispatcher, workers


def stream(files, first_step=0, address="", **arguments):
    return training_batches(
        files, 8, 16, 5, RECIPES, first_step, service=address, **arguments
    )


def assert_equal(ours, theirs, count):
    for (a, b), (c, d) in zip(ours.take(count), theirs.take(count)):
        np.testing.assert_array_equal(a, c)
        np.testing.assert_array_equal(b, d)


def test_the_batches_are_those_made_here(files, servers):
    address, *_ = servers
    ours, theirs = stream(files, 3, address), stream(files, 3)
    assert ours.element_spec == theirs.element_spec
    assert_equal(ours, theirs, 40)
    assert [name.rpartition("/")[2] for name in files.skipped.reasons] == [
        "007.jpg"
    ]


def test_nothing_is_read_here_that_the_service_sends(
    tmp_path, servers, monkeypatch
):
    save_images(tmp_path, 20)
    config = Config(dataset=f"folder:{tmp_path}", image_size=16, in_memory_gb=0)
    source = open_dataset(config)[0].train
    monkeypatch.setattr(service, "load_or_another", None)
    monkeypatch.setattr(service, "PATIENCE", 100)
    address, *_ = servers
    assert_equal(stream(source, 0, address), stream(source), 20)


@pytest.mark.slow
def test_each_machine_gets_its_part_of_a_batch(files, servers):
    address, *_ = servers
    part = {"worker": 1, "workers": 2}
    assert_equal(
        stream(files, 0, address, **part), stream(files, 0, **part), 10
    )


def test_what_a_lost_service_does_not_send_is_made_here(
    files, servers, monkeypatch, capsys
):
    address, dispatcher, workers = servers
    monkeypatch.setattr(service, "PATIENCE", 2)
    monkeypatch.setattr(service, "MAX_WAITING_BYTES", 0)
    ours, theirs = iter(stream(files, 0, address)), iter(stream(files))

    def assert_next_equal(count):
        for _ in range(count):
            np.testing.assert_array_equal(next(ours)[0], next(theirs)[0])

    assert_next_equal(5)
    workers.pop()._stop()
    assert_next_equal(30)
    workers.pop()._stop()
    dispatcher._stop()
    said = ""
    for _ in range(200):  # Many batches had come before the end.
        assert_next_equal(10)
        said += capsys.readouterr().err
        if f"--data_service={address} has sent nothing" in said:
            break
    else:
        pytest.fail(f"The service is not missed: {said}")
    assert_next_equal(10)


def test_arrivals_come_in_order_without_those_that_were_lost(monkeypatch):
    monkeypatch.setattr(service, "PATIENCE", 60)

    def served(first_step):
        steps = [s for s in (2, 0, 1, 5, 4, 7, 8, 9) if s >= first_step]
        return tf.data.Dataset.from_tensor_slices((steps, steps)).repeat()

    arrivals = service._Arrivals(served, 0, 3, "nowhere")
    taken = [arrivals.take(step) for step in range(10)]
    arrivals.close()
    assert [batch and int(batch[0]) for batch in taken] == (
        [0, 1, 2, None, 4, 5, None, 7, 8, 9]
    )


def check(config):
    service.check_service(config, open_dataset(config)[0].train)


def test_images_in_memory_are_refused(servers):
    address, *_ = servers
    with pytest.raises(ConfigError, match="dataset=bundled are in memory"):
        check(Config(data_service=address))


def test_nobody_at_the_address(files, tmp_path):
    save_images(tmp_path, 4)
    config = Config(
        dataset=f"folder:{tmp_path}",
        image_size=16,
        in_memory_gb=0,
        data_service="127.0.0.1:1",
    )
    with pytest.raises(ConfigError, match="is not reached .*refused.*start"):
        check(config)


@pytest.mark.parametrize("address", ["host", "host:", ":50", "host:70000"])
def test_no_address(address):
    with pytest.raises(ConfigError, match="is no HOST:PORT"):
        Config(data_service=address)
