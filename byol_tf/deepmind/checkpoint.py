"""Reads the official checkpoints, which are pickles, without trusting them.

A pickle is a program, and Python's own machine runs whatever that program
names. The machine here knows the instructions that build data, and a short list
of names that stand for data: arrays of NumPy and JAX, mappings of Haiku, named
tuples. None of these packages is imported, and every other name is refused.

Source: the official `byol/utils/checkpointing.py`, which writes with dill;
`dill._dill`, `jax._src.array` and `haiku._src.data_structures` for what is
written.
"""

import dataclasses
import math
import os
import pathlib
import pickletools
import re
from collections.abc import Callable, Iterator

import numpy as np
import tqdm

_NETWORK_TREES = (
    "online_params",
    "target_params",
    "online_state",
    "target_state",
)


class CheckpointError(ValueError):
    """A file that is no checkpoint of the release, or a dangerous one."""


@dataclasses.dataclass(frozen=True)
class Checkpoint:
    """What a pretraining checkpoint holds.

    Attributes:
      trees: `online_params`, `target_params`, `online_state`, `target_state`,
        and `mu`, the momentum of LARS; each {module path: {name: array}}.
      step: optimizer steps done.
    """

    trees: dict[str, dict[str, dict[str, np.ndarray]]]
    step: int


def read_checkpoint(path: str | os.PathLike) -> Checkpoint:
    """Reads a pretraining checkpoint of the official release.

    The memory that it takes is that of the arrays.

    Raises:
      CheckpointError: if the file is damaged, is something else, or names
        anything that such a checkpoint does not need.
      OSError: if it cannot be read.
    """
    path = pathlib.Path(path)
    if path.exists() and not (path.is_file() or path.is_dir()):
        raise CheckpointError(f"{path} is no file.")
    with path.open("rb") as file:
        try:
            content = _run(_instructions(file, path.stat().st_size))
        except _Damaged as error:
            raise CheckpointError(
                f"{path} is no whole pickle: {error}. Was it downloaded to "
                "the end?"
            ) from error
        except _Refused as error:
            raise CheckpointError(
                f"{path} is refused: it asks for {error}, which no checkpoint "
                "of the official release needs. Nothing of it was run."
            ) from error
    return _as_checkpoint(path, content)


def _as_checkpoint(path: pathlib.Path, content) -> Checkpoint:
    state = content.get("experiment_state") if _is_dict(content) else None
    if not _is_dict(state) or not set(_NETWORK_TREES) <= set(state):
        holder = state if _is_dict(state) else content
        held = ", ".join(holder) if _is_dict(holder) else ""
        raise CheckpointError(
            f"{path} is no pretraining checkpoint of the official release: "
            f"it holds no experiment_state with {', '.join(_NETWORK_TREES)}"
            + (f", but {_shown(held)}." if held else ".")
        )
    trees = {name: state[name] for name in _NETWORK_TREES}
    optimizer = state.get("opt_state")
    for part in optimizer if isinstance(optimizer, tuple) else ():
        if _is_dict(part) and "mu" in part:
            trees["mu"] = part["mu"]
    for name, tree in trees.items():
        if not _is_tree(tree):
            raise CheckpointError(
                f"{path}: {name} is not {{module path: {{name: array}}}}."
            )
    step = content.get("step")
    if _is_array(step) and step.size == 1 and step.dtype.kind in "iu":
        step = step.item()
    if type(step) is not int:
        raise CheckpointError(f"{path}: its step is no whole number.")
    return Checkpoint(trees, step)


def _shown(text: str) -> str:
    """Text of an untrusted file, fit for a terminal."""
    return ascii(text[:200])[1:-1] + ("…" if len(text) > 200 else "")


def _is_dict(value) -> bool:
    return isinstance(value, dict)


def _is_array(value) -> bool:
    return isinstance(value, np.ndarray | np.generic)


def _is_tree(value) -> bool:
    return _is_dict(value) and all(
        _is_dict(entries) and all(map(_is_array, entries.values()))
        for entries in value.values()
    )


# --- What the names stand for -------------------------------------------------


class _Array:
    """An array under construction: NumPy makes it empty, and fills it then."""

    def set_state(self, state) -> np.ndarray:
        _, shape, dtype, fortran, content = state
        if (
            not isinstance(dtype, np.dtype)
            or not isinstance(content, bytes)
            or math.prod(shape) * dtype.itemsize != len(content)
        ):
            raise ValueError("an array without its numbers")
        array = np.frombuffer(content, dtype)
        return array.reshape(shape, order="F" if fortran else "C")


class _Type:
    """The dtype of an array under construction, without its byte order."""

    def __init__(self, code: str, *_):
        if not re.fullmatch("[biuf][1-8]", code):
            raise _Refused(f"an array of dtype {_shown(code)}")
        self._dtype = np.dtype(code)

    def set_state(self, state) -> np.dtype:
        order = state[1]
        return self._dtype.newbyteorder(order) if order in "<>" else self._dtype


# More than any named tuple of the release has.
_MOST_FIELDS = 16


class _Record:
    """A named tuple's type; its values come as {field: value}."""

    def __init__(self, name: str, fields: tuple[str, ...], *_):
        if len(fields) > _MOST_FIELDS:
            raise _Refused(f"a named tuple of {len(fields)} fields")
        self._fields = fields

    def __call__(self, *values) -> dict:
        return _dict(self._fields, values)


def _empty_array(*_) -> _Array:
    return _Array()


def _filled_array(make: Callable, arguments: tuple, state, *_) -> np.ndarray:
    # The last argument: a JAX array's weak type, a NumPy array's attributes.
    return make(*arguments).set_state(state)


def _scalar(dtype: np.dtype, content: bytes) -> np.generic:
    return np.frombuffer(content, dtype)[0]


def _bytes(text: str = "", encoding: str = "latin1") -> bytes:
    # The way in which protocol 2, which has no bytes, writes them.
    if encoding != "latin1":
        raise _Refused("another encoding than latin1")
    return text.encode("latin1")


def _mapping(content: dict) -> dict:
    if not _is_dict(content):
        raise ValueError("a mapping of what is no dict")
    return content


def _dict(keys, values) -> dict:
    # Names only: what else can be a key can take for ever to compare.
    if not all(isinstance(key, str) for key in keys):
        raise _Refused("a dict whose keys are no names")
    return dict(zip(keys, values, strict=True))


_NDARRAY = object()  # An argument of `_reconstruct`; never called.

# What a name in the file stands for. numpy.core became numpy._core in 2.0, and
# JAX arrays of before 2022 are under `device_array`. Dill describes the named
# tuples; plain pickle, which others may have used, names them.
_NAMES = {
    "_codecs.encode": _bytes,
    "__builtin__.bytes": _bytes,
    "numpy.ndarray": _NDARRAY,
    "numpy.dtype": _Type,
    "numpy.core.multiarray._reconstruct": _empty_array,
    "numpy._core.multiarray._reconstruct": _empty_array,
    "numpy.core.multiarray.scalar": _scalar,
    "numpy._core.multiarray.scalar": _scalar,
    "dill._dill._create_array": _filled_array,
    "jax._src.array._reconstruct_array": _filled_array,
    "jax._src.device_array.reconstruct_device_array": _filled_array,
    "dill._dill._create_namedtuple": _Record,
    "byol.byol_experiment._ByolExperimentState": _Record(
        "_ByolExperimentState", (*_NETWORK_TREES, "opt_state")
    ),
    "byol.utils.optimizers.AddWeightDecayState": _Record("", ()),
    "byol.utils.optimizers.ScaleByLarsState": _Record("", ("mu",)),
    "optax._src.base.EmptyState": _Record("", ()),
    "haiku._src.data_structures.FlatMapping": _mapping,
    "haiku._src.data_structures.FlatMap": _mapping,
    "haiku._src.data_structures.frozendict": _mapping,
}


# --- The machine --------------------------------------------------------------


class _Damaged(Exception):
    """The pickle ends early, or its instructions make no sense."""


class _Refused(Exception):
    """The pickle asks for something that is not admitted."""


Instructions = Iterator[tuple[str, object]]


def _instructions(file, size: int) -> Instructions:
    """The pickle's instructions and their arguments, one after the other."""
    with tqdm.tqdm(
        total=size, unit="B", unit_scale=True, desc="read", delay=2
    ) as bar:
        try:
            for opcode, argument, _ in pickletools.genops(file):
                yield opcode.name, argument
                bar.update(file.tell() - bar.n)
        except (ValueError, OverflowError, MemoryError) as error:
            reason = str(error) or "it announces more bytes than it has"
            raise _Damaged(_shown(reason)) from error


# Instructions that push their argument, or a constant.
_PUSH = {
    *("BININT", "BININT1", "BININT2", "INT", "LONG", "LONG1", "LONG4"),
    *("BINFLOAT", "FLOAT"),
    *("BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8", "UNICODE"),
    *("BINBYTES", "SHORT_BINBYTES", "BINBYTES8"),
}
_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
_EMPTY = {"EMPTY_DICT": dict, "EMPTY_LIST": list, "EMPTY_TUPLE": tuple}
_TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}

# Longer texts are an array's numbers.
_LONGEST_TEXT = 1024

# Of the functions that make an array.
_MOST_ARGUMENTS = 8

_FORGOTTEN = object()


def _holds_numbers(value, depth: int = 2) -> bool:
    """Whether it is an array's numbers as a text, or arguments with them.

    These are needed once. A pickle may fetch again whatever it has stored, but
    to remember them all would take the memory twice over.
    """
    if isinstance(value, tuple) and depth and len(value) <= _MOST_ARGUMENTS:
        return any(_holds_numbers(item, depth - 1) for item in value)
    return isinstance(value, str | bytes) and len(value) > _LONGEST_TEXT


def _run(instructions: Instructions):
    """Follows the instructions; returns the object that they build."""
    stack: list = []
    marks: list[int] = []
    memory: dict[int, object] = {}
    # Where memory holds an object that BUILD is to finish: id -> places.
    unfinished_at: dict[int, list[int]] = {}

    def popped(count: int) -> list:
        if not 0 <= count <= len(stack):
            raise _Damaged("it takes more objects than there are")
        values = stack[len(stack) - count :]
        del stack[len(stack) - count :]
        return values

    def popped_to_mark() -> list:
        return popped(len(stack) - marks.pop())

    def remember(place: int) -> None:
        value = stack[-1]
        memory[place] = _FORGOTTEN if _holds_numbers(value) else value
        if isinstance(value, _Array | _Type):
            unfinished_at.setdefault(id(value), []).append(place)

    def follow(name: str, argument) -> None:
        if name in _PUSH:
            stack.append(argument)
        elif name in _CONSTANTS:
            stack.append(_CONSTANTS[name])
        elif name in _EMPTY:
            stack.append(_EMPTY[name]())
        elif name == "MARK":
            marks.append(len(stack))
        elif name == "TUPLE":
            stack.append(tuple(popped_to_mark()))
        elif name == "LIST":
            stack.append(popped_to_mark())
        elif name == "DICT":
            values = popped_to_mark()
            stack.append(_dict(values[::2], values[1::2]))
        elif name in _TUPLES:
            stack.append(tuple(popped(_TUPLES[name])))
        elif name in ("APPEND", "APPENDS"):
            values = popped_to_mark() if name == "APPENDS" else popped(1)
            stack[-1].extend(values)
        elif name in ("SETITEM", "SETITEMS"):
            values = popped_to_mark() if name == "SETITEMS" else popped(2)
            stack[-1].update(_dict(values[::2], values[1::2]))
        elif name in ("BINPUT", "LONG_BINPUT", "PUT"):
            remember(argument)
        elif name == "MEMOIZE":
            remember(len(memory))
        elif name in ("BINGET", "LONG_BINGET", "GET"):
            if memory[argument] is _FORGOTTEN:
                raise _Refused("the bytes of one array in another place")
            stack.append(memory[argument])
        elif name == "GLOBAL":
            stack.append(_named(argument.replace(" ", ".")))
        elif name == "STACK_GLOBAL":
            stack.append(_named(".".join(popped(2))))
        elif name in ("REDUCE", "NEWOBJ"):
            function, arguments = popped(2)
            stack.append(function(*arguments))
        elif name == "BUILD":
            unfinished, state = popped(2)
            stack.append(unfinished.set_state(state))
            for place in unfinished_at.pop(id(unfinished), ()):
                memory[place] = stack[-1]
        elif name not in ("PROTO", "FRAME", "STOP"):
            text = f"{name} {argument}" if argument is not None else name
            raise _Refused(f"the pickle instruction {_shown(text)}")

    for name, argument in instructions:
        try:
            follow(name, argument)
        except (_Refused, _Damaged):
            raise
        except Exception as error:
            # The instructions of a sound file fit together.
            reason = _shown(str(error))
            raise _Damaged(f"{name} cannot be followed ({reason})") from error
    if len(stack) != 1:
        raise _Damaged(f"it leaves {len(stack)} objects, not one")
    return stack[0]


def _named(name: str):
    if name not in _NAMES:
        raise _Refused(_shown(name))
    return _NAMES[name]
