"""From a YAML file and `--set key=value` to a checked, frozen model of one stage's settings.

Each stage keeps its own model in `<room>/settings.py`, so that a new knob of one stage makes no other stage run again.
"""

import difflib
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, TypeVar, get_args

import yaml
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from cprd_pipeline.errors import SettingsError

PositiveInt = Annotated[int, Field(gt=0)]
NonNegativeInt = Annotated[int, Field(ge=0)]
PositiveFloat = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NonNegativeFloat = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Share = Annotated[float, Field(ge=0, le=1)]
Beta = Annotated[float, Field(ge=0, lt=1)]
"""Of Adam: share of the running mean that a step keeps."""
Seed = Annotated[int, Field(ge=0, lt=2**63)]
"""Of torch's generators."""


class Settings(BaseModel):
    """Base of every settings model: immutable, and an unknown key is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())

    def as_json(self) -> dict[str, Any]:
        """The settings as plain JSON types, defaults included."""
        return self.model_dump(mode="json")


def _json_file(path: Path) -> Path:
    if path.suffix != ".json":
        raise ValueError(f"{path} does not end in .json; a report is a JSON file, and replaces what lies there")
    return path


ReportPath = Annotated[Path, AfterValidator(_json_file)]


class StageSettings(Settings):
    """Base of the settings of a stage, each of which writes a report.

    Args:
        report: Where the stage's report goes.
    """

    report: ReportPath


S = TypeVar("S", bound=Settings)


def load_settings(model: type[S], config: Path, overrides: Sequence[str] = ()) -> S:
    """Read one stage's settings.

    Args:
        model: The stage's settings model.
        config: YAML file with the stage's keys.
        overrides: `key=value` or `group.key=value`; the value is read as YAML.

    Raises:
        SettingsError: The file is missing or is no YAML mapping, a key is unknown, or a value is out of range.
    """
    values = _read_yaml(config)
    for override in overrides:
        _apply_override(values, override)
    try:
        return model.model_validate(values)
    except ValidationError as error:
        raise _explain(model, config, overrides, error) from None


def _read_yaml(config: Path) -> dict[str, Any]:
    try:
        values = yaml.safe_load(config.read_text(encoding="utf-8"))
    except FileNotFoundError:
        do = "run inside a project folder (`cprd-pipeline init DIR` makes one) or name a file with --config"
        if config.parent.is_dir():
            do = "name another with --config, or copy it from a demo project (`cprd-pipeline init DIR`), which has every setting"
        raise SettingsError(f"{config}: there is no such settings file", do=do) from None
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"{config}: cannot be read ({error})", expected="a UTF-8 YAML file") from None
    except yaml.YAMLError as error:
        where = getattr(error, "problem_mark", None)
        line = f" at line {where.line + 1}" if where else ""
        raise SettingsError(f"{config}: not valid YAML{line}", do="check indentation, quotes and colons") from None
    if values is None:
        return {}
    if not isinstance(values, dict):
        raise SettingsError(f"{config}: holds a {type(values).__name__}", expected="a mapping of setting names to values")
    return values


def _apply_override(values: dict[str, Any], override: str) -> None:
    key, equals, text = override.partition("=")
    if not equals or not key.strip():
        raise SettingsError(f"--set {override}: no '='", expected="--set key=value or --set group.key=value")
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError:
        raise SettingsError(f"--set {override}: the value is not valid YAML", do="quote it for the shell and for YAML") from None
    *groups, last = key.strip().split(".")
    for group in groups:
        if values.get(group) is None:
            values[group] = {}  # a group that is null in the file begins with its defaults
        inner = values[group]
        if not isinstance(inner, dict):
            raise SettingsError(f"--set {override}: {group} is a single value", expected=f"--set {group}=value")
        values = inner
    values[last] = value


# What pydantic calls by Python's names.
_KINDS = {
    "tuple_type": "a list: [value, ...]",
    "list_type": "a list: [value, ...]",
    "dict_type": "a mapping of names to values",
    "model_type": "a group of settings",
    "model_attributes_type": "a group of settings",
    "string_type": "a text",
    "none_required": "null",
    "too_short": "more entries",
    "too_long": "fewer entries",
}


def _explain(model: type[Settings], config: Path, overrides: Sequence[str], error: ValidationError) -> SettingsError:
    """One line for the first of pydantic's complaints, with the nearest known name for an unknown key."""
    errors = error.errors(include_url=False)
    # In a union every alternative complains; an unknown key, then a missing one, says most about what was meant.
    ranked = ("extra_forbidden", "missing")
    first = next((entry for kind in ranked for entry in errors if entry["type"] == kind), errors[0])
    location = ".".join(str(part) for part in first["loc"] if not _is_union_tag(str(part)))
    where = _origin(config, overrides, location)
    if first["type"] == "extra_forbidden":
        known = _known_names(model, first["loc"][:-1])
        near = difflib.get_close_matches(str(first["loc"][-1]), known, n=1)
        hint = f"did you mean {near[0]}?" if near else f"known are: {', '.join(known)}"
        return SettingsError(f"{where}: unknown setting {location}", do=hint)
    if first["type"] == "missing":
        return SettingsError(f"{where}: setting {location} is missing", do=f"add {location} to the file or --set it")
    if first["type"] == "value_error":
        return SettingsError(f"{where}: {location + ': ' if location else ''}{first['msg'].removeprefix('Value error, ')}")
    wanted = _KINDS.get(first["type"], first["msg"].removeprefix("Input ").removeprefix("should be ").split(", unable")[0])
    return SettingsError(f"{where}: {location} is {_as_yaml(first['input'])}", expected=wanted)


def _as_yaml(value: Any) -> str:
    """A value as a user writes it."""
    return repr(value) if isinstance(value, str) else yaml.safe_dump(value, default_flow_style=True, width=10_000).split("\n")[0]


def _origin(config: Path, overrides: Sequence[str], location: str) -> str:
    """Who named a setting: the last override of it, of its group or of a part of it, otherwise the file."""
    for override in reversed(overrides):
        key = override.partition("=")[0].strip()
        if key and (location == key or location.startswith(f"{key}.") or key.startswith(f"{location}.")):
            return f"--set {override}"
    return str(config)


def _is_union_tag(part: str) -> bool:
    """Whether pydantic put the name of a union's alternative, not a key, into a location."""
    return part in ("str", "int", "float", "bool") or part[:1].isupper() or part.startswith(("constrained-", "literal["))


def _known_names(model: type[BaseModel], location: tuple[int | str, ...]) -> list[str]:
    """Field names of the model that lies at a location, looking through unions and optionals."""
    models: list[type[BaseModel]] = [model]
    for part in location:
        annotations = [m.model_fields[str(part)].annotation for m in models if str(part) in m.model_fields]
        inner = [found for annotation in annotations for found in _models_in(annotation)]
        models = inner or models
    return [name for m in models for name in m.model_fields]


def _models_in(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [found for argument in get_args(annotation) for found in _models_in(argument)]
