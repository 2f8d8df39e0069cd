"""Files as the official release writes them, without its packages.

The release pickles with dill, and its trees hold arrays of JAX in mappings of
Haiku. Their names are put into the file; here they stand for nothing.
"""

import collections
import contextlib
import io
import pathlib
import pickle
import sys
import types
from collections.abc import Iterator

import numpy as np

State = collections.namedtuple(
    "_ByolExperimentState",
    "online_params target_params online_state target_state opt_state",
)
Momentum = collections.namedtuple("ScaleByLarsState", "mu")
WeightDecay = collections.namedtuple("AddWeightDecayState", "")
MODULES = {
    State: "byol.byol_experiment",
    Momentum: "byol.utils.optimizers",
    WeightDecay: "byol.utils.optimizers",
}
for named_tuple, module in MODULES.items():
    named_tuple.__module__ = module

JAX_ARRAYS = "jax._src.array._reconstruct_array"
OLD_JAX_ARRAYS = "jax._src.device_array.reconstruct_device_array"
DILL_ARRAYS = "dill._dill._create_array"


class Mapping(dict):
    """A dict that is pickled under Haiku's name for it."""


def name_that_stands_for_nothing(path: str):
    """A function that pickles as the given name, and does nothing."""

    def function(*_):
        raise NotImplementedError(path)

    function.__module__, _, name = path.rpartition(".")
    function.__name__ = function.__qualname__ = name
    return function


@contextlib.contextmanager
def importable(functions) -> Iterator[None]:
    """Makes pickle find functions under their names, for a while."""
    modules = {}
    for function in functions:
        path = function.__module__
        while path:  # Its packages as well.
            modules.setdefault(path, types.ModuleType(path))
            path = path.rpartition(".")[0]
        setattr(modules[function.__module__], function.__name__, function)
    hidden = {name: sys.modules.get(name) for name in modules}
    sys.modules.update(modules)
    try:
        yield
    finally:
        for name, module in hidden.items():
            del sys.modules[name]
            if module is not None:
                sys.modules[name] = module


def official_bytes(
    trees: dict,
    **arguments,
) -> bytes:
    """A checkpoint's bytes; see `write_official`."""
    file = io.BytesIO()
    _write(file, trees, **arguments)
    return file.getvalue()


def write_official(path: pathlib.Path, trees: dict, **arguments) -> None:
    """Writes a checkpoint.

    Args:
      path: of the file.
      trees: as `to_haiku` returns them.
      **arguments: `step` of the checkpoint; by which function `arrays` are to
        be made, None for NumPy's way; by which a `mapping`; the `protocol` of
        the pickle, which is 2 in the release; `named_tuples`, whether dill is
        to describe them.
    """
    with path.open("wb") as file:
        _write(file, trees, **arguments)


def _write(
    file,
    trees: dict,
    step=7,
    arrays: str | None = DILL_ARRAYS,
    mapping: str = "haiku._src.data_structures.FlatMapping",
    protocol: int = 2,
    named_tuples: bool = True,
) -> None:
    make_array = name_that_stands_for_nothing(arrays) if arrays else None
    make_mapping = name_that_stands_for_nothing(mapping)
    make_tuple = name_that_stands_for_nothing("dill._dill._create_namedtuple")

    class Pickler(pickle.Pickler):
        def reducer_override(self, value):
            if isinstance(value, np.ndarray) and make_array:
                function, arguments, state = value.__reduce__()
                extra = {"weak_type": False} if "jax" in arrays else None
                return make_array, (function, arguments, state, extra)
            if isinstance(value, Mapping):
                return make_mapping, (dict(value),)
            if named_tuples and isinstance(value, type) and value in MODULES:
                fields = (value.__name__, value._fields, MODULES[value])
                return make_tuple, fields
            return NotImplemented

    def tree(name: str) -> Mapping:
        return Mapping(
            {module: Mapping(arrays) for module, arrays in trees[name].items()}
        )

    content = {
        "experiment_state": State(
            *(tree(name) for name in State._fields[:-1]),
            (WeightDecay(), Momentum(tree("mu")), ()),
        ),
        "step": step,
        "rng": np.zeros(2, np.uint32),
    }
    functions = [make_mapping, make_tuple, *MODULES]
    with importable([*functions, make_array] if make_array else functions):
        Pickler(file, protocol).dump(content)
