"""Reading the release's pickles: what is admitted, and what is refused."""

import os
import pathlib
import pickle
import sys
import tracemalloc

import numpy as np
import pytest
from official_files import (
    DILL_ARRAYS,
    JAX_ARRAYS,
    OLD_JAX_ARRAYS,
    official_bytes,
    write_official,
)

from byol_tf.deepmind import CheckpointError, read_checkpoint

OFFICIAL = (
    pathlib.Path(__file__).parents[1] / "golden/deepmind_checkpoint_tiny.pkl"
)


@pytest.fixture
def trees():
    random = np.random.RandomState(0)

    def tree():
        return {
            "net/~/conv": {"w": random.randn(3, 3, 2, 4).astype(np.float32)},
            "net/~/norm/~/mean_ema": {
                "average": random.randn(1, 4).astype(np.float32),
                "counter": np.array(3, np.int32),
            },
            "net/~/empty": {"b": np.zeros((0,), np.float32)},
        }

    names = ("online_params", "target_params", "online_state", "target_state")
    return {name: tree() for name in (*names, "mu")}


def written(tmp_path, content: bytes) -> pathlib.Path:
    path = tmp_path / "checkpoint.pkl"
    path.write_bytes(content)
    return path


def assert_same(ours: dict, theirs: dict) -> None:
    assert ours.keys() == theirs.keys()
    for name, tree in theirs.items():
        assert ours[name].keys() == tree.keys()
        for module, arrays in tree.items():
            assert type(ours[name][module]) is dict
            assert ours[name][module].keys() == arrays.keys()
            for key, array in arrays.items():
                found = ours[name][module][key]
                assert found.dtype == array.dtype
                np.testing.assert_array_equal(found, array)


def test_official_file():
    checkpoint = read_checkpoint(OFFICIAL)
    assert checkpoint.step == 7
    assert {name: len(tree) for name, tree in checkpoint.trees.items()} == {
        "online_params": 33,
        "target_params": 33,
        "online_state": 30,
        "target_state": 30,
        "mu": 33,
    }
    classifier = checkpoint.trees["online_params"]["classifier"]
    assert classifier["w"].shape == (8, 10)
    # The first four bytes of the array in the file: 32 94 cb 3d.
    np.testing.assert_allclose(classifier["b"][0], 0.0994037, rtol=1e-6)
    counter = checkpoint.trees["online_state"][
        "tiny_res_net/~/initial_batchnorm/~/mean_ema"
    ]["counter"]
    assert counter.shape == () and counter.dtype == np.int32
    assert not {"dill", "haiku"} & set(sys.modules)


@pytest.mark.parametrize(
    "arrays", [None, DILL_ARRAYS, JAX_ARRAYS, OLD_JAX_ARRAYS]
)
@pytest.mark.parametrize("mapping", ["FlatMapping", "FlatMap", "frozendict"])
@pytest.mark.parametrize("protocol", [2, 4])
def test_all_spellings(trees, tmp_path, arrays, mapping, protocol):
    name = f"haiku._src.data_structures.{mapping}"
    content = official_bytes(
        trees, step=11, arrays=arrays, mapping=name, protocol=protocol
    )
    checkpoint = read_checkpoint(written(tmp_path, content))
    assert checkpoint.step == 11
    assert_same(checkpoint.trees, trees)


@pytest.mark.parametrize(
    "step", [np.int64(11), np.array(11, np.int32), np.array([11])]
)
def test_a_step_that_is_an_array(trees, tmp_path, step):
    content = official_bytes(trees, step=step, arrays=JAX_ARRAYS)
    assert read_checkpoint(written(tmp_path, content)).step == 11


@pytest.mark.parametrize("step", [None, 1.5, "7", [1, 2]])
def test_a_step_that_is_none(trees, tmp_path, step):
    content = official_bytes(trees, step=step)
    with pytest.raises(CheckpointError, match="step is no whole number"):
        read_checkpoint(written(tmp_path, content))


def test_named_tuples_by_name(trees, tmp_path):
    content = official_bytes(trees, named_tuples=False)
    assert b"cbyol.byol_experiment\n_ByolExperimentState" in content
    checkpoint = read_checkpoint(written(tmp_path, content))
    assert_same(checkpoint.trees, trees)


def test_names_of_numpy_before_2(trees, tmp_path):
    content = official_bytes(trees)
    assert b"numpy._core.multiarray" in content
    content = content.replace(b"numpy._core.", b"numpy.core.")
    checkpoint = read_checkpoint(written(tmp_path, content))
    assert_same(checkpoint.trees, trees)


def test_order_of_bytes_and_of_axes(trees, tmp_path):
    w = trees["mu"]["net/~/conv"]["w"]
    trees["mu"]["net/~/conv"]["w"] = np.asfortranarray(w.astype(">f8"))
    trees["mu"]["net/~/norm/~/mean_ema"]["average"] = np.array([[True, False]])
    checkpoint = read_checkpoint(written(tmp_path, official_bytes(trees)))
    assert_same(checkpoint.trees, trees)


class Call:
    """Pickles as the call of a function."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize("protocol", [0, 1, 2, 3, 4, 5])
@pytest.mark.parametrize(
    "call, name",
    [
        (lambda mark: Call(os.system, f"touch {mark}"), "posix.system"),
        (lambda mark: Call(eval, f"open({str(mark)!r}, 'w')"), "eval"),
        (lambda mark: Call(np.save, mark, np.zeros(3)), "numpy.save"),
        (lambda mark: Call(pickle.loads, b"N."), "pickle.loads"),
        (lambda mark: Call(getattr, "", "join"), "getattr"),
        (lambda mark: Call(pathlib.Path.touch, mark), "getattr|pathlib"),
    ],
)
@pytest.mark.parametrize("place", ["alone", "in the state"])
def test_every_other_name_is_refused(
    tmp_path, trees, protocol, call, name, place
):
    mark = tmp_path / "was_here"
    evil = call(mark)
    if place == "in the state":
        evil = {"experiment_state": [1, {"a": (evil,)}], "step": 1}
    path = written(tmp_path, pickle.dumps(evil, protocol))
    with pytest.raises(CheckpointError, match=name) as raised:
        read_checkpoint(path)
    assert "Nothing of it was run" in str(raised.value)
    assert str(path) in str(raised.value)
    assert not mark.exists()


@pytest.mark.parametrize(
    "content, message",
    [
        (b"(S'touch was_here'\nios\nsystem\n.", "STRING"),
        (b"(ios\nsystem\n.", "INST os system"),
        (b"Pperson\n.", "PERSID person"),
        (b"\x80\x02\x82\x01.", "EXT1 1"),
        (b"\x80\x02cnumpy.core.multiarray\n_reconstruct\n.", "no pretraining"),
        (b"\x80\x02cbuiltins\nexec\n.", "builtins.exec"),
        (b"\x80\x02cdill._dill\n_load_type\n.", "dill._dill._load_type"),
        (b"\x80\x02cdill._dill\n_import_module\n.", "_import_module"),
    ],
)
def test_instructions_beyond_data_are_refused(tmp_path, content, message):
    with pytest.raises(CheckpointError, match=message):
        read_checkpoint(written(tmp_path, content))


@pytest.mark.parametrize(
    "array, message",
    [
        (np.array([print, "x"], object), "dtype O8"),
        (np.array(["text"]), "dtype U4"),
        (np.zeros(2, [("a", "f4")]), "dtype V4"),
        (np.zeros(2, complex), "dtype c16"),
    ],
)
def test_arrays_of_anything_but_numbers_are_refused(
    trees, tmp_path, array, message
):
    trees["mu"]["net/~/conv"]["w"] = array
    with pytest.raises(CheckpointError, match=message):
        read_checkpoint(written(tmp_path, official_bytes(trees)))


def test_admitted_names_lead_nowhere_else(tmp_path):
    """What an admitted name returns cannot be made to call anything."""
    pickles = [
        # ndarray((1 << 40,)): not an array out of nothing.
        b"\x80\x02cnumpy\nndarray\n\x8a\x06\x00\x00\x00\x00\x00\x01\x85R.",
        # encode("x", "rot13")
        b"\x80\x02c_codecs\nencode\nX\x01\x00\x00\x00xX\x05\x00\x00\x00rot13\x86R.",
        # An array of 3 numbers with the bytes of none.
        b"\x80\x02cdill._dill\n_create_array\n(cnumpy.core.multiarray\n"
        b"_reconstruct\n)(K\x01K\x03\x85cnumpy\ndtype\nX\x02\x00\x00\x00f4\x85R"
        b"(K\x03X\x01\x00\x00\x00<NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
        b"\x89C\x00tNtR.",
        # Calling a text, a number, a dict.
        b"\x80\x02X\x01\x00\x00\x00x)R.",
        b"\x80\x02K\x01)R.",
        b"\x80\x02})\x81.",
        # The numbers of an array, fetched for a second use.
        b"\x80\x02X\xd0\x07\x00\x00" + 2000 * b"a" + b"q\x01h\x01\x86.",
        # More bytes than there are.
        b"\x80\x04\x8e\x00\x00\x00\x00\x00\x01\x00\x00abc.",
        b"\x80\x04\x8e\xff\xff\xff\xff\xff\xff\xff\x7fabc.",
        # Deeper than the interpreter's stack.
        b"\x80\x02})" + 300_000 * b"\x85" + b"K\x01s.",
        # Building upon a dict; fetching what was not stored; no value left.
        b"\x80\x02}}b.",
        b"\x80\x02h\x07.",
        b"\x80\x02.",
    ]
    for content in pickles:
        with pytest.raises(CheckpointError):
            read_checkpoint(written(tmp_path, content))


# Sixty tuples, each of twice the one before.
DOUBLED = b")" + b"".join(
    b"q%cq%c" % (2 * i, 2 * i + 1) + b"h%c\x86" % (2 * i) for i in range(60)
)


@pytest.mark.parametrize(
    "content, message",
    [
        (DOUBLED, "no experiment_state"),
        (b"}" + DOUBLED + b"Ns", "keys are no names"),
        (b"c_codecs\nencode\nX\x01\x00\x00\x00x" + DOUBLED, "no whole"),
        (
            b"c_codecs\nencode\nX\x01\x00\x00\x00x" + DOUBLED + b"\x86R",
            "another encoding",
        ),
        (b"cnumpy\ndtype\n" + DOUBLED + b"\x85R", "REDUCE cannot"),
        (b"cnumpy\ndtype\n(" + DOUBLED + b"tR", "REDUCE cannot"),
        (
            b"chaiku._src.data_structures\nFlatMap\n" + DOUBLED + b"\x85R",
            "REDUCE cannot",
        ),
        (
            b"cdill._dill\n_create_namedtuple\n(N" + DOUBLED + b"tR)\x81",
            "keys are no names",
        ),
        (
            b"}X\x10\x00\x00\x00experiment_state}(X\x0d\x00\x00\x00"
            b"online_params}X\x0d\x00\x00\x00target_params}X\x0c\x00\x00\x00"
            b"online_state}X\x0c\x00\x00\x00target_state}usX\x04\x00\x00\x00"
            b"step" + DOUBLED + b"s",
            "step is no whole number",
        ),
        (
            b"}X\x10\x00\x00\x00experiment_state}(X\x0d\x00\x00\x00"
            b"online_params}X\x01\x00\x00\x00a}X\x01\x00\x00\x00b"
            + DOUBLED
            + b"ssX\x0d\x00\x00\x00target_params}X\x0c\x00\x00\x00"
            b"online_state}X\x0c\x00\x00\x00target_state}us",
            "online_params is not",
        ),
    ],
)
def test_a_pickle_that_doubles_itself(tmp_path, content, message):
    """2^60 objects wherever they could be counted: refused at once."""
    path = written(tmp_path, b"\x80\x02" + content + b".")
    with pytest.raises(CheckpointError, match=message):
        read_checkpoint(path)


def test_work_and_memory_are_in_proportion_to_the_file(tmp_path):
    """What a small file could make quadratic."""
    wide = b"(" + 30_000 * b"N" + b"t" + 30_000 * b"q\x01" + b"0"
    types = b"cnumpy\ndtype\nX\x02\x00\x00\x00f4\x85R" + b"".join(
        b"r" + i.to_bytes(4, "little") for i in range(20_000)
    )
    mappings = (
        b"chaiku._src.data_structures\nFlatMap\nq\x00}("
        + b"".join(b"X\x04\x00\x00\x00%04xN" % i for i in range(20_000))
        + b"u\x85q\x01("
        + 4000 * b"h\x00h\x01R"
        + b"t"
    )
    for content in (wide, types, mappings):
        path = written(tmp_path, b"\x80\x02" + content + b".")
        tracemalloc.start()
        try:
            with pytest.raises(CheckpointError):
                read_checkpoint(path)
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert peak < 20e6


def test_what_is_no_file(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(CheckpointError, match="pipe is no file"):
        read_checkpoint(tmp_path / "pipe")


@pytest.mark.parametrize("share", [0.0, 0.001, 0.3, 0.9, 0.999999])
def test_truncated_file(tmp_path, share):
    content = OFFICIAL.read_bytes()
    path = written(tmp_path, content[: int(share * len(content))])
    with pytest.raises(CheckpointError, match=r"no whole pickle.*downloaded"):
        read_checkpoint(path)


def test_damaged_bytes_raise_nothing_else(tmp_path):
    """One byte changed: read, or refused with a reason, and nothing else."""
    content = bytearray(OFFICIAL.read_bytes())
    random = np.random.RandomState(0)
    places = [*range(0, 1200, 11), *random.randint(0, len(content), 30)]
    for place in places:
        damaged = bytearray(content)
        damaged[place] ^= 1 << random.randint(8)
        try:
            read_checkpoint(written(tmp_path, bytes(damaged)))
        except CheckpointError as error:
            assert "checkpoint.pkl" in str(error)


@pytest.mark.parametrize(
    "content, message",
    [
        ([1, 2], "no experiment_state"),
        ({"step": 3}, "but step"),
        ({"experiment_state": 5, "step": 1}, "but experiment_state, step"),
        (
            {"experiment_state": {"\x1b[31m\x07" + 300 * "x": 1}},
            r"but \\x1b\[31m\\x07x{190,}…",
        ),
        (
            {"experiment_state": {"backbone_params": {}, "step": 1}},
            "but backbone_params, step",
        ),
    ],
)
def test_other_contents(tmp_path, content, message):
    path = written(tmp_path, pickle.dumps(content, 2))
    with pytest.raises(CheckpointError, match=message):
        read_checkpoint(path)


def test_trees_of_other_depths(tmp_path, trees):
    trees["online_state"] = {"net": trees["online_state"]}
    path = tmp_path / "checkpoint.pkl"
    write_official(path, trees)
    with pytest.raises(CheckpointError, match="online_state is not {module"):
        read_checkpoint(path)


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(FileNotFoundError):
        read_checkpoint(tmp_path / "none.pkl")


@pytest.mark.parametrize("protocol, inflated", [(2, 1.4), (4, 1.0)])
def test_memory_is_that_of_the_arrays(tmp_path, protocol, inflated):
    random = np.random.RandomState(0)

    def tree():
        return {
            f"net/~/conv_{i}": {"w": random.randn(64, 1024).astype(np.float32)}
            for i in range(40)
        }

    names = ("online_params", "target_params", "online_state", "target_state")
    trees = {name: tree() for name in (*names, "mu")}
    path = tmp_path / "checkpoint.pkl"
    write_official(path, trees, protocol=protocol)
    raw = 5 * 40 * 64 * 1024 * 4
    assert path.stat().st_size > inflated * raw
    last = trees["mu"]["net/~/conv_39"]["w"]
    del trees
    tracemalloc.start()
    try:
        checkpoint = read_checkpoint(path)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    np.testing.assert_array_equal(
        checkpoint.trees["mu"]["net/~/conv_39"]["w"], last
    )
    assert peak < 1.1 * raw
