"""The flags: one for each field of `Config`. The only module on absl.flags."""

import dataclasses
import difflib
import itertools
import pathlib
import re
import shutil
import textwrap

from absl import flags

from byol_tf.config import Config, ConfigError, as_text

USAGE = """\
byol_tf: self-supervised pretraining of image encoders (arXiv 2006.07733)

  python byol_tf/main.py --flagfile=flags/quickstart.flags
  python byol_tf/main.py --flagfile=flags/quickstart.flags --seed=1
  python byol_tf/main.py --dataset=folder:PATH --run_dir=runs/mine
  python byol_tf/main.py --mode=evaluate --run_dir=runs/mine
  python byol_tf/main.py --mode=convert --deepmind_checkpoint=FILE.pkl \\
      --run_dir=runs/official

A flagfile holds one flag a line. A flag further right wins over one to its
left, and over those of a flagfile there.
"""


def parse(arguments: list[str]) -> Config | None:
    """The configuration that the arguments ask for; None for `--help` or none.

    A mode that works on an existing run folder takes its settings from there,
    and those given as flags in their place.

    Args:
      arguments: `sys.argv`.

    Raises:
      ConfigError: for an unknown flag or a value that cannot be.
    """
    values = _define_flags()
    try:
        rest = values(arguments)[1:]
    except flags.UnrecognizedFlagError as error:
        near = difflib.get_close_matches(error.flagname, list(values), 1)
        hint = f" Did you mean --{near[0]}?" if near else ""
        raise ConfigError(
            f"--{error.flagname} is no flag.{hint} See --help."
        ) from error
    except flags.IllegalFlagValueError as error:
        flag = re.search(r"--[^\s:]+", str(error)).group()
        raise ConfigError(f"{flag} is no valid value. See --help.") from error
    except flags.CantOpenFlagFileError as error:
        reason = str(error).rpartition("]")[2].strip()
        raise ConfigError(f"--flagfile cannot be read: {reason}") from error
    except flags.Error as error:
        raise ConfigError(" ".join(str(error).split())) from error
    if rest:
        raise ConfigError(f"{rest[0]!r} is no flag; flags begin with --.")
    if values.help or len(arguments) == 1:
        print(help_page())
        return None

    given = {
        field.name: _as_setting(field, values[field.name].value)
        for field in dataclasses.fields(Config)
        if values[field.name].present
    }
    if given.get("mode") not in ("evaluate", "export"):
        return Config(**given)
    if "encoder" in given:
        encoder = pathlib.Path(given["encoder"])
        folder = encoder if encoder.is_dir() else encoder.parent
        given.setdefault("run_dir", str(folder))
    else:
        folder = pathlib.Path(given.get("run_dir", Config.run_dir))
    if (folder / "config.json").is_file():
        saved = Config.load(folder / "config.json")
        return dataclasses.replace(saved, **({"run_dir": str(folder)} | given))
    return Config(**given)


def help_page() -> str:
    """All flags, grouped, wrapped to the width of the terminal."""
    width = min(shutil.get_terminal_size((80, 24)).columns, 100)
    lines = [USAGE]
    fields = dataclasses.fields(Config)
    for group, members in itertools.groupby(
        fields, lambda field: field.metadata["group"]
    ):
        lines.append(f"{group}\n")
        for field in members:
            default = as_text(field.default)
            lines.append(
                f"  --{field.name}" + (f"={default}" if default else "")
            )
            lines += textwrap.wrap(
                field.metadata["description"],
                width,
                initial_indent=" " * 6,
                subsequent_indent=" " * 6,
            )
        lines.append("")
    return "\n".join(lines)


def _define_flags() -> flags.FlagValues:
    values = flags.FlagValues()
    flags.DEFINE_flag(
        flags.BooleanFlag("help", False, "Show this page.", short_name="h"),
        flag_values=values,
    )
    for field in dataclasses.fields(Config):
        kind = field.metadata
        define = {
            int: flags.DEFINE_integer,
            float: flags.DEFINE_float,
            bool: flags.DEFINE_bool,
            str: flags.DEFINE_string,
        }[kind["type"]]
        if isinstance(field.default, tuple):
            define = flags.DEFINE_list
        define(
            field.name,
            None,
            kind["description"],
            flag_values=values,
        )
    return values


def _as_setting(field: dataclasses.Field, value):
    """A flag's value as the field's."""
    if not isinstance(field.default, tuple):
        return value
    try:
        return tuple(field.metadata["type"](item) for item in value if item)
    except ValueError as error:
        raise ConfigError(
            f"--{field.name}={','.join(value)} is no list of numbers."
        ) from error
