"""Settings as people write them: YAML files, `KEY=VALUE`, and where each value stands, so that a fault is found."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from instil.errors import InputError

if TYPE_CHECKING:
    import yaml
    from pydantic import BaseModel

    from instil.methods import Method

SECTIONS = ("train", "probe", "exam")
"""Groups of settings, which hold others."""


class Given(dict[str, Any]):
    """Settings as they were given.

    Attributes:
        file: the file they were read from, if any.
        lines: the 1-based line of each setting in that file, by its dotted name ("train.learning_rate", "betas.0").
    """

    def __init__(
        self, values: Mapping[str, Any] = {}, file: Path | None = None, lines: Mapping[str, int] | None = None
    ) -> None:
        super().__init__(values)
        self.file, self.lines = file, dict(lines or {})
        self._overridden: set[str] = set()

    def line_of(self, field: str) -> int | None:
        """The line of a setting, or of the nearest group around it that is in the file."""
        steps = field.split(".")
        names = (".".join(steps[:depth]) for depth in range(len(steps), 0, -1))
        return next((self.lines[name] for name in names if name in self.lines), None)

    def override(self, text: str) -> None:
        """Write one `KEY=VALUE` in, its value read as YAML.

        Raises:
            InputError: there is no `=`, the value is no YAML, or the key goes through a single value.
        """
        key, found, value = text.partition("=")
        steps = key.strip().split(".")
        if not found or not all(steps):
            raise InputError("an override without a value", field="--set", found=text, expected="KEY=VALUE")
        into: dict[str, Any] = self
        for step in steps[:-1]:
            branch = into.get(step)
            branch = {} if branch is None else branch
            if not isinstance(branch, dict):
                raise InputError(f"{step} is a single value, not a group", field="--set", found=text)
            into[step] = dict(branch)
            into = into[step]
        into[steps[-1]] = _loaded(value, f"--set {key.strip()}")
        name = ".".join(steps)
        self._overridden.add(name)

    def section(self, name: str) -> dict[str, Any]:
        """A group of settings; an empty one where it was left out or left empty.

        Raises:
            InputError: it is a single value.
        """
        held = self.get(name)
        if held is None:
            return {}
        if not isinstance(held, Mapping):
            raise InputError(
                "a group of settings must be a mapping", field=name, found=repr(held)[:80], expected="name: value"
            )
        return dict(held)

    @contextmanager
    def located(self) -> Iterator[None]:
        """Name the file and the line in an `InputError` about a setting that stands in the file."""
        try:
            yield
        except InputError as error:
            line = self.line_of(error.field) if error.field else None
            if self.file is None or error.file is not None or line is None or self._is_overridden(str(error.field)):
                raise
            raise replace(error, file=self.file, line=line) from error

    def _is_overridden(self, field: str) -> bool:
        return any(field == name or field.startswith(f"{name}.") for name in self._overridden)


def read_settings(file: str | Path) -> Given:
    """A YAML or JSON file that holds a mapping (YAML is read safely: no tags, no code).

    Raises:
        InputError: the file is missing, is not UTF-8 or not YAML, holds no mapping, or names a setting twice.
    """
    path = Path(file)
    if not path.is_file():
        what = "no such settings file" if not path.exists() else "the settings are no file"
        raise InputError(what, file=path, field="--config")
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise InputError("not UTF-8", file=path, found=f"byte {error.object[error.start]:#04x}") from error
    value = _loaded(text, path)
    if value is None:
        return Given({}, path)
    if not isinstance(value, dict):
        raise InputError(
            "settings must be a mapping", file=path, found=type(value).__name__, expected="key: value lines"
        )
    if wrong := next((key for key in value if not isinstance(key, str)), None):
        raise InputError("the name of a setting must be text", file=path, found=repr(wrong))
    return Given(value, path, _lines(text, path))


def gathered(file: Path | None, overrides: Sequence[str] | None) -> Given:
    """The settings file, if there is one, with overrides written into it."""
    given = read_settings(file) if file is not None else Given()
    for text in overrides or ():
        given.override(text)
    return given


def checked(
    model: type[BaseModel], values: Mapping[str, Any], section: str = "", what: str = "a setting is wrong"
) -> Any:
    """Settings as pydantic checks them.

    Raises:
        InputError: a field is unknown or has a wrong value; the first fault is named, unknown fields first.
    """
    from pydantic import ValidationError

    try:
        return model.model_validate(dict(values))
    except ValidationError as error:
        faults = sorted(error.errors(), key=lambda fault: fault["type"] != "extra_forbidden")
        raise wrong_setting(faults[0], model, values, section, what) from None


def settings_schema(method: Method) -> dict[str, Any]:
    """The JSON schema of a file of settings for a method, for editors: the method's own, with `probe` and `exam`."""
    from pydantic import Field, create_model

    from instil.exam import ExamConfig
    from instil.probe import ProbeConfig

    whole: Any = create_model(
        f"Settings of instil teach --method {method.name}",
        __base__=method.config,
        probe=(ProbeConfig, Field(default_factory=ProbeConfig, description="how facts are probed")),
        exam=(ExamConfig, Field(default_factory=ExamConfig, description="what is asked before and after")),
    )
    schema: dict[str, Any] = whole.model_json_schema()
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema, "description": method.summary}


def wrong_setting(
    fault: Any, model: type[BaseModel], values: Mapping[str, Any], section: str = "", what: str = "a setting is wrong"
) -> InputError:
    """One of pydantic's faults as the error that people read."""
    unknown = fault["type"] == "extra_forbidden"
    place = _place(fault["loc"], values)
    return InputError(
        "there is no such setting" if unknown else what,
        field=".".join([*([section] if section else []), *(str(step) for step in place)]) or section or "config",
        found=repr(fault["input"])[:80],
        expected=_known(model, place[:-1], str(place[-1])) if unknown else fault["msg"],
    )


def _place(loc: Sequence[str | int], values: Any) -> list[str | int]:
    """Where a fault is, in the words of the one who wrote the values: without the names of members of a union."""
    place: list[str | int] = []
    for number, step in enumerate(loc, start=1):
        group = isinstance(values, Mapping)
        member = group and step not in values and number < len(loc)
        if isinstance(step, str) and (member or step.startswith("function-")):
            continue
        place.append(step)
        inside = (group and step in values) or (isinstance(values, list | tuple) and isinstance(step, int))
        values = values[step] if inside else None
    return place


def _known(model: type[BaseModel], group: Sequence[Any], name: str) -> str:
    """The settings that there are where an unknown one was given, the likely one first."""
    from difflib import get_close_matches

    for step in group:
        inner = _model_of(model.model_fields[step].annotation) if step in model.model_fields else None
        if inner is None:
            return "a known setting"
        model = inner
    names = list(model.model_fields)
    near = get_close_matches(name, names, n=1)
    return f"{near[0]}, perhaps" if near else "one of " + ", ".join(names)


def _model_of(annotation: Any) -> type[BaseModel] | None:
    from typing import get_args

    from pydantic import BaseModel

    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((found for part in get_args(annotation) if (found := _model_of(part))), None)


def _loaded(text: str, source: str | Path) -> Any:
    import yaml

    try:
        return yaml.safe_load(text)
    except (yaml.YAMLError, RecursionError) as error:
        mark = getattr(error, "problem_mark", None)
        what = f"not YAML: {getattr(error, 'problem', None) or type(error).__name__}"
        if isinstance(source, Path):
            raise InputError(what, file=source, line=None if mark is None else mark.line + 1) from error
        raise InputError(what, field=source, found=text[:80]) from error


def _lines(text: str, path: Path) -> dict[str, int]:
    import yaml

    lines: dict[str, int] = {}
    seen: set[int] = set()

    def walk(node: yaml.Node | None, name: str) -> None:
        if node is None or id(node) in seen:  # an alias: it was walked where it is written
            return
        seen.add(id(node))
        if isinstance(node, yaml.MappingNode):
            own: dict[str, int] = {}
            for key, value in node.value:
                inner = f"{name}.{key.value}" if name else str(key.value)
                if key.value in own:
                    raise InputError(
                        "a setting is given twice",
                        file=path,
                        line=key.start_mark.line + 1,
                        field=inner,
                        expected=f"one of it and line {own[key.value]}",
                    )
                own[str(key.value)] = lines[inner] = key.start_mark.line + 1
                walk(value, inner)
        elif isinstance(node, yaml.SequenceNode):
            for place, value in enumerate(node.value):
                lines[f"{name}.{place}"] = value.start_mark.line + 1
                walk(value, f"{name}.{place}")

    walk(yaml.compose(text, Loader=yaml.SafeLoader), "")
    return lines
