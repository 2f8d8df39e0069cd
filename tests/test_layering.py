"""BUILD against the code: every module has a target, with its real imports."""

import ast
import pathlib

import pytest

ROOT = pathlib.Path(__file__).parents[1]

# Floor of each module or package; what stands on a floor imports lower floors
# only, except for its own package and the pairs below.
FLOORS = {
    "config": 0,
    "image_operations": 0,
    "augment": 0,
    "plots": 0,
    "report": 0,
    "scene_sheets": 0,
    "optim": 0,
    "model": 1,
    "data": 1,
    "evaluation": 2,
    "training": 2,
    "dense": 2,
    "serving": 2,
    "deepmind": 2,
    "pretrain": 3,
    "evaluate": 3,
    "evaluate_dense": 3,
    "export": 3,
    "convert": 3,
    "data_server": 3,
    "preview": 3,
    "profile_input": 3,
    "command_line": 4,
    "main": 4,
    "benchmarks": 5,
}
NOT_TO_EACH_OTHER = [("data", "model"), ("evaluation", "model")]
# `augment` draws what it applies; `training` holds the monitors, which
# evaluate; `dense` is a part of the evaluation that trains; `main` reads flags.
SAME_FLOOR = {
    ("augment", "image_operations"),
    ("training", "evaluation"),
    ("dense", "evaluation"),
    ("dense", "training"),
    ("main", "command_line"),
}


class Target:
    """A rule of BUILD: its name, files and dependencies."""

    def __init__(self, call: ast.Call):
        arguments = {k.arg: ast.literal_eval(k.value) for k in call.keywords}
        self.kind = call.func.id
        self.name = arguments["name"]
        self.files = arguments.get("srcs", [])
        self.dependencies = set(arguments.get("deps", []))


TARGETS = [
    Target(node.value)
    for node in ast.parse((ROOT / "BUILD").read_text()).body
    if isinstance(node, ast.Expr) and node.value.func.id != "package"
]


def module_name(path: str) -> str:
    path = path.removesuffix(".py").removesuffix("/__init__")
    # Tests import their shared part by its bare name.
    return path.removeprefix("tests/").replace("/", ".")


MODULES = {
    module_name(file): target for target in TARGETS for file in target.files
}


def imports(path: pathlib.Path) -> set[str]:
    """The first-party modules that a file imports."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = [f"{node.module}.{alias.name}" for alias in node.names]
            names.append(node.module)
        for name in names:
            if name in MODULES and name != "byol_tf":
                found.add(name)
    return found


def test_every_file_has_one_target():
    listed = [file for target in TARGETS for file in target.files]
    assert len(listed) == len(set(listed))
    existing = {
        str(path.relative_to(ROOT))
        for folder in ("byol_tf", "tests")
        for path in (ROOT / folder).rglob("*.py")
        if len(ast.parse(path.read_text()).body) > 1  # Not a docstring alone.
    }
    assert set(listed) == existing


def test_names_are_unique():
    names = [target.name for target in TARGETS]
    assert len(names) == len(set(names))


@pytest.mark.parametrize("target", TARGETS, ids=lambda t: t.name)
def test_dependencies_are_the_imports(target):
    imported = {
        f":{MODULES[name].name}"
        for file in target.files
        for name in imports(ROOT / file)
        if name not in map(module_name, target.files)
    }
    declared = {d for d in target.dependencies if d.startswith(":")}
    # The jobs that main runs by name are dependencies that no import shows.
    if target.name == "main":
        declared -= {
            ":pretrain",
            ":evaluate",
            ":profile_input",
            ":export",
            ":preview",
            ":convert",
        }
    assert declared == imported


def part(module: str) -> str:
    return module.split(".")[1]


@pytest.mark.parametrize(
    "module", [m for m in MODULES if m.startswith("byol_tf.")]
)
def test_nobody_imports_upwards(module):
    here = part(module)
    if here == "data" and module.endswith("remake"):
        return  # A script that imports nothing of ours.
    for other in imports(ROOT / MODULES[module].files[0]):
        there = part(other)
        if here == there or (here, there) in SAME_FLOOR:
            continue
        assert FLOORS[there] < FLOORS[here], f"{module} imports {other}"
        for a, b in NOT_TO_EACH_OTHER:
            assert {here, there} != {a, b}, f"{module} imports {other}"
