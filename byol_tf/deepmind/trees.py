"""The variables of a BYOL model under the official release's names.

Source: the official `byol/byol_experiment.py` and `byol/utils/networks.py`, and
the names that dm-haiku gives to their modules.
"""

import dataclasses
from collections.abc import Callable, Iterator, Mapping

import keras
import numpy as np

from byol_tf.deepmind.architecture import Architecture
from byol_tf.model.byol import BYOL
from byol_tf.model.heads import Network
from byol_tf.model.normalization import BatchNorm
from byol_tf.model.resnet import ResNet
from byol_tf.optim.lars import LARS

Tree = Mapping[str, Mapping[str, np.ndarray]]

TREES = (
    "online_params",
    "target_params",
    "online_state",
    "target_state",
    "mu",
)

# Of the moving averages in every published configuration.
_DECAY = 0.9


def from_haiku(model: BYOL, trees: Mapping[str, Tree]) -> None:
    """Sets a model's variables from arrays in the official names.

    Args:
      model: a BYOL model on a `ResNet`, compiled with `LARS` if `mu` is given.
      trees: any of `online_params`, `target_params`, `online_state`,
        `target_state` and `mu`, the momentum of LARS; each
        {module path: {name: array}}. What is not given stays as it is.

    Raises:
      ValueError: if an entry is missing, too many, of another shape or no
        number. All of them are listed, and nothing is changed.
    """
    places = {}
    for name in trees:
        if name not in TREES:
            raise ValueError(f"{name} is none of the trees {', '.join(TREES)}.")
        places[name] = _places(model, name)
    _assign(places, trees, model.online)


def network_from_haiku(network: Network, params: Tree, state: Tree) -> None:
    """Sets one network's parameters and BatchNorm statistics alone.

    Raises:
      ValueError: as `from_haiku`.
    """
    places = {"params": _parameters(network), "state": _statistics(network)}
    _assign(places, {"params": params, "state": state}, network)


def to_haiku(model: BYOL) -> dict[str, dict[str, dict[str, np.ndarray]]]:
    """A model's variables as arrays in the official names.

    Returns:
      All the trees of `from_haiku`; `mu` only if the model is compiled with
      `LARS`.
    """
    trees = {}
    for tree_name in TREES if _lars(model) else TREES[:-1]:
        tree = trees[tree_name] = {}
        for (module, name), place in _places(model, tree_name).items():
            tree.setdefault(module, {})[name] = place.read()
    return trees


# --- What is where ------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class _Place:
    """Where an array of the release is with us."""

    shape: tuple[int, ...]
    read: Callable[[], np.ndarray]
    write: Callable[[np.ndarray], None]


# (module path, name) -> the place.
_Places = dict[tuple[str, str], _Place]


def _places(model: BYOL, tree_name: str) -> _Places:
    if tree_name == "mu":
        lars = _lars(model)
        if lars is None:
            raise ValueError("mu needs a model that is compiled with LARS.")
        lars.build(model.trainable_variables)
        return _parameters(model.online, lars.momentum_of)
    role, _, kind = tree_name.partition("_")
    network = getattr(model, role)
    return (_parameters if kind == "params" else _statistics)(network)


def _lars(model: BYOL) -> LARS | None:
    """The model's optimizer, also if it is wrapped to scale the loss."""
    optimizer = getattr(model, "optimizer", None)
    optimizer = getattr(optimizer, "inner_optimizer", optimizer)
    return optimizer if isinstance(optimizer, LARS) else None


def _layers(network: Network) -> Iterator[tuple[str, keras.layers.Layer]]:
    """(module path, layer), for all layers with variables."""
    encoder = network.encoder
    if not isinstance(encoder, ResNet):
        raise ValueError(
            "Only a ResNet has names in the official release; this encoder is "
            f"a {type(encoder).__name__}."
        )
    kinds = {encoder.normalization, network.projector.normalization}
    if network.predictor is None or kinds != {"batch"}:
        raise ValueError(
            "Only a network with a predictor and BatchNorm has names in the "
            "official release; this is a variant without."
        )
    depth = Architecture.of_network(network).depth
    path = f"res_net{depth}/~" if depth else "tiny_res_net/~"
    yield f"{path}/initial_conv", encoder.initial_conv
    yield f"{path}/initial_batchnorm", encoder.initial_norm
    blocks = iter(encoder.residual_blocks)
    for group, count in enumerate(encoder.blocks):
        for number in range(count):
            block = next(blocks)
            inner = f"{path}/block_group_{group}/~/block_{number}/~"
            for i, layers in enumerate(zip(block.convs, block.norms)):
                yield f"{inner}/conv_{i}", layers[0]
                yield f"{inner}/batchnorm_{i}", layers[1]
            if block.projection:
                yield f"{inner}/shortcut_conv", block.shortcut_conv
                yield f"{inner}/shortcut_batchnorm", block.shortcut_norm
    for mlp in (network.projector, network.predictor):
        yield f"{mlp.name}/linear", mlp.linear
        yield f"{mlp.name}/batch_norm", mlp.norm
        yield f"{mlp.name}/linear_1", mlp.linear_1
    if network.classifier is not None:
        yield "classifier", network.classifier


def _parameters(network: Network, instead=lambda variable: variable) -> _Places:
    """Places of a network's parameters, or of what stands `instead` of each."""
    places = {}
    for path, layer in _layers(network):
        if isinstance(layer, BatchNorm):
            variables = {"scale": layer.gamma, "offset": layer.beta}
            shape = _vector_shape(path, layer)
        else:
            variables = {"w": layer.kernel, "b": layer.bias}
            shape = None
        for name, variable in variables.items():
            if variable is not None:
                places[path, name] = _variable(
                    instead(variable), shape or tuple(variable.shape)
                )
    return places


def _statistics(network: Network) -> _Places:
    """Places of the moving averages of a network's BatchNorm.

    The release keeps `hidden`, which starts from 0, and `average`, which is
    hidden / (1 - decay ** counter). We keep `average` and `counter`.
    """
    places = {}
    for path, layer in _layers(network):
        if not isinstance(layer, BatchNorm):
            continue
        shape = _vector_shape(path, layer)
        for name, variable in (
            ("mean_ema", layer.moving_mean),
            ("var_ema", layer.moving_variance),
        ):
            module = f"{path}/~/{name}"
            average = _variable(variable, shape)
            places[module, "average"] = average
            places[module, "counter"] = _Place(
                shape=(),
                read=lambda updates=layer.updates: _numpy(updates).astype(
                    np.int32
                ),
                write=layer.updates.assign,
            )
            places[module, "hidden"] = _Place(
                shape=shape,
                read=lambda average=average, layer=layer: (
                    average.read()
                    * (1 - layer.momentum ** int(_numpy(layer.updates)))
                ),
                write=lambda array: None,  # Follows from the other two.
            )
    return places


def _vector_shape(path: str, layer: BatchNorm) -> tuple[int, ...]:
    """The release's vectors have the rank of what they normalise."""
    in_encoder = "/~/" in path
    return (1,) * (3 if in_encoder else 1) + tuple(layer.gamma.shape)


def _numpy(variable) -> np.ndarray:
    return np.array(variable.numpy())


def _variable(variable, shape: tuple[int, ...]) -> _Place:
    """A variable, seen in the release's shape."""
    return _Place(
        shape=shape,
        read=lambda: _numpy(variable).reshape(shape),
        write=lambda array: variable.assign(array.reshape(variable.shape)),
    )


# --- From arrays, if they fit -------------------------------------------------


def _assign(
    places: dict[str, _Places], trees: Mapping[str, Tree], network: Network
) -> None:
    """Writes all arrays to their places, or raises and writes none."""
    arrays = {name: _flatten(tree) for name, tree in trees.items()}
    misfits = [
        f"{name}: {misfit}"
        for name in trees
        for misfit in _misfits(places[name], arrays[name])
    ]
    if misfits:
        summary = f"The trees do not fit the model{_sizes(trees, network)}:"
        raise ValueError("\n".join([summary, *misfits]))
    for name, tree in arrays.items():
        for key, array in tree.items():
            places[name][key].write(array)


def _flatten(tree: Tree) -> dict[tuple[str, str], np.ndarray]:
    """{(module path, name): array}, under the names that we give."""
    flat = {}
    if not isinstance(tree, Mapping) or not all(
        isinstance(module, str) and isinstance(entries, Mapping)
        for module, entries in tree.items()
    ):
        raise ValueError("A tree is {module path: {name: array}}.")
    for module, entries in tree.items():
        # Some released checkpoints have another name for it.
        plain = module.removesuffix("_1")
        if plain.endswith("/~/initial_conv") and plain not in tree:
            module = plain
        for name, array in entries.items():
            flat[module, str(name)] = np.asarray(array)
    return flat


def _misfits(places: _Places, arrays) -> list[str]:
    """What is wrong with arrays for these places, an entry each."""
    misfits = []
    for key in [*places, *(key for key in arrays if key not in places)]:
        entry = "::".join(key)
        if key not in arrays:
            misfits.append(f"missing {entry}")
        elif key not in places:
            misfits.append(f"unknown {entry}")
        elif arrays[key].dtype.kind not in "biuf":
            misfits.append(f"{entry} holds {arrays[key].dtype}, no numbers")
        elif arrays[key].shape != places[key].shape:
            misfits.append(
                f"{entry} has the shape {arrays[key].shape}, not "
                f"{places[key].shape}"
            )
    return misfits or _inconsistencies(arrays)


def _inconsistencies(arrays) -> list[str]:
    """Moving averages that no sequence of updates leads to."""
    misfits = []
    for module, name in arrays:
        if name != "counter":
            continue
        counter, hidden, average = (
            arrays[module, part] for part in ("counter", "hidden", "average")
        )
        other = module.replace("/var_ema", "/mean_ema")
        if counter < 0 or counter != arrays[other, "counter"]:
            misfits.append(f"{module}::counter is not that of {other}, from 0")
            continue
        expected = average * (1 - _DECAY ** int(counter))
        if not np.allclose(
            hidden, expected, rtol=0, atol=1e-4 * np.abs(expected).max()
        ):
            misfits.append(
                f"{module}::hidden is not average * (1 - {_DECAY} ** counter)"
            )
        if module.endswith("/var_ema") and (average < 0).any():
            misfits.append(f"{module}::average is a negative variance")
    return misfits


def _sizes(trees: Mapping[str, Tree], network: Network) -> str:
    """Which model they would fit, if it is another one."""
    model = Architecture.of_network(network)
    for name, tree in trees.items():
        try:
            given = Architecture.of_parameters(tree)
        except ValueError:
            continue  # These are states, or damaged.
        if given != model:
            return f", {model}, but one of {given} ({name})"
    return ""
