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

    @property
    def written_files(self) -> list[Path]:
        """Files that the stage writes beside its output."""
        return [getattr(self, name) for name in _WRITTEN_FILES if name in type(self).model_fields]


_WRITTEN_FILES = ("report", "metrics", "markdown", "page")
"""Names that settings have for them."""


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
        raise _explain(model, config, overrides, values, error) from None


def _read_yaml(config: Path) -> dict[str, Any]:
    try:
        text = config.read_text(encoding="utf-8")
    except FileNotFoundError:
        do = "run inside a project folder (`cprd-pipeline init DIR` makes one) or name a file with --config"
        if config.parent.is_dir():
            do = "name another with --config, or copy it from a demo project (`cprd-pipeline init DIR`), which has every setting"
        raise SettingsError(f"{config}: there is no such settings file", do=do) from None
    except OSError as error:
        raise SettingsError(f"{config}: {error.strerror or error}", expected="a YAML file", do="name it with --config") from None
    except UnicodeDecodeError as error:
        found = f"{config}: not UTF-8 (byte 0x{error.object[error.start]:02X})"
        raise SettingsError(found, expected="a YAML file in UTF-8", do="save it as UTF-8") from None
    values = _parse(text, str(config), "check indentation, quotes and colons")
    if values is None:
        return {}
    if not isinstance(values, dict):
        kind = "a list" if isinstance(values, list) else "a single value"
        raise SettingsError(f"{config}: holds {kind}", expected="a mapping of setting names to values", do="write name: value")
    return values


def _parse(text: str, where: str, do: str) -> Any:
    """The values of a YAML text.

    Args:
        text: The text.
        where: Where it stands, for messages.
        do: Advice about a text that is no YAML.

    Raises:
        SettingsError: It is no YAML, or a key is no text or occurs twice in one mapping.
    """
    try:
        return yaml.load(text, Loader=_StrictLoader)
    except _KeyRefusedError as error:
        line = f" line {error.line}:" if "\n" in text else ""
        raise SettingsError(f"{where}:{line} {error.found}", expected=error.expected, do=error.do) from None
    except (yaml.YAMLError, ValueError) as error:  # ValueError: a date that is in no calendar
        mark = getattr(error, "problem_mark", None)
        line = f" at line {mark.line + 1}" if mark and "\n" in text else ""
        raise SettingsError(f"{where}: not valid YAML{line}", do=do) from None


_TEXT, _MERGE = "tag:yaml.org,2002:str", "tag:yaml.org,2002:merge"


class _KeyRefusedError(yaml.YAMLError):
    """A key that no mapping of settings may have."""

    def __init__(self, line: int, found: str, *, expected: str, do: str) -> None:
        super().__init__(found)
        self.line, self.found, self.expected, self.do = line, found, expected, do


class _StrictLoader(yaml.SafeLoader):
    """YAML whose keys are texts, each once in its mapping: of two equal ones PyYAML keeps the last and says nothing."""

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        # Where a mapping is still as it was written: later the keys that `<<` merges stand among its own.
        node = super().compose_mapping_node(anchor)
        first: dict[str, int] = {}
        for key in (key for key, _ in node.value if key.tag != _MERGE):
            line = key.start_mark.line + 1
            if key.tag != _TEXT:
                raise _no_text(key, line)
            if key.value in first:
                found = f"{key.value} occurs twice" + (f", first in line {first[key.value]}" if first[key.value] < line else "")
                raise _KeyRefusedError(line, found, expected="every key once", do="remove one of the two")
            first[key.value] = line
        return node


def _no_text(key: yaml.Node, line: int) -> _KeyRefusedError:
    if not isinstance(key, yaml.ScalarNode):
        return _KeyRefusedError(line, "a key is a list or a mapping", expected="a name", do="check indentation, quotes and colons")
    kind = key.tag.rpartition(":")[2]
    kinds = {"bool": "a boolean in YAML, as yes, no, on and off are", "int": "a number", "float": "a number", "null": "null"}
    found = f"the key {key.value!r} is {kinds.get(kind, f'a {kind}')}"
    return _KeyRefusedError(line, found, expected="a text", do=f"write it in quotes: '{key.value}'")


def _apply_override(values: dict[str, Any], override: str) -> None:
    key, equals, text = override.partition("=")
    if not equals or not key.strip():
        raise SettingsError(f"--set {override}: no '='", expected="--set key=value or --set group.key=value")
    value = _parse(text, f"--set {override}", "quote the value for the shell and for YAML")
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


def _explain(
    model: type[Settings], config: Path, overrides: Sequence[str], values: dict[str, Any], error: ValidationError
) -> SettingsError:
    """One line for the first of pydantic's complaints, with the nearest known name for an unknown key."""
    errors = error.errors(include_url=False)
    # In a union every alternative complains; an unknown key, then a missing one, says most about what was meant.
    ranked = ("extra_forbidden", "missing")
    first = next((entry for kind in ranked for entry in errors if entry["type"] == kind), errors[0])
    location = _location(first["loc"], values)
    where = _origin(config, overrides, location)
    if first["type"] == "extra_forbidden":
        known = _known_names(model, first["loc"][:-1])
        near = difflib.get_close_matches(str(first["loc"][-1]).lower(), known, n=1)
        hint = f"did you mean {near[0]}?" if near else f"known are: {', '.join(known)}"
        return SettingsError(f"{where}: unknown setting {location}", do=hint)
    if first["type"] == "missing":
        return SettingsError(f"{where}: setting {location} is missing", do=f"add {location} to the file or --set it")
    if first["type"] == "value_error":
        return SettingsError(f"{where}: {location + ': ' if location else ''}{first['msg'].removeprefix('Value error, ')}")
    message = first["msg"].replace("String should match pattern", "a name of the pattern")
    wanted = _KINDS.get(first["type"], message.removeprefix("Input ").removeprefix("should be ").split(", unable")[0])
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


def _location(found: Sequence[int | str], values: Any) -> str:
    """A place as a user writes it: what pydantic put between the keys of the given values is left out."""
    parts = []
    for part in found:
        given = isinstance(values, dict) and part in values
        if given or not _is_union_tag(str(part)):
            parts.append(str(part))
            values = values[part] if given else None
    return ".".join(parts)


def _is_union_tag(part: str) -> bool:
    """Whether a part of a location looks like the name of a union's alternative, not like a key."""
    return part in ("str", "int", "float", "bool", "[key]") or part[:1].isupper() or part.startswith(("constrained-", "literal["))


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
