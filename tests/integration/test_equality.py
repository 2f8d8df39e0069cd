"""The number of devices and machines changes no number."""

import equality
import pytest


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("equality")


@pytest.fixture(scope="module")
def one_device(folder):
    return equality.trained("1 device", folder)


@pytest.mark.slow
@pytest.mark.parametrize("way", list(equality.WAYS)[1:])
def test_it_ends_as_on_one_device(folder, one_device, way):
    errors = equality.differences(one_device, equality.trained(way, folder))
    assert set(errors) == {
        "online",
        "target",
        "BatchNorm",
        "biases, gamma, beta",
        "metrics",
    }
    assert max(errors.values()) < equality.TOLERANCE, errors
    # It is no comparison of something that stands still.
    one_step = [v for k, v in one_device.items() if k.endswith("/repr_loss")]
    assert max(one_step) - min(one_step) > 0.1
