"""Question templates by relation: "Where was [X] born?", with [X] for the subject and [Y] for the object."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from instil.errors import InputError

NAMES_BESIDE = ("question_templates.json", "templates.json", "patterns.json")
"""Files that are used without being named when they lie beside the facts."""

_ENDS_WITH_OBJECT = re.compile(r"\s*\[Y\][\s.]*$")


@dataclass(frozen=True)
class Templates:
    """Templates by relation. Those with [Y] are statements, the others questions."""

    by_relation: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    @staticmethod
    def load(path: str | Path) -> Templates:
        """Read a JSON object that maps each relation to one template or a list of them.

        Raises:
            InputError: the file is missing, not such an object, or a template has no [X].
        """
        try:
            value = json.loads(Path(path).read_text(encoding="utf-8-sig"))
        except OSError as error:
            raise InputError("the templates cannot be read", file=path, found=error.strerror) from error
        except (ValueError, RecursionError) as error:
            raise InputError("the templates are not JSON", file=path, found=str(error)) from error
        expected = 'an object such as {"P19": "Where was [X] born?"}'
        if not isinstance(value, dict):
            raise InputError("the templates are not an object", file=path, expected=expected)
        listed = {relation: [item] if isinstance(item, str) else item for relation, item in value.items()}
        for relation, items in listed.items():
            if not isinstance(items, list) or not all(isinstance(item, str) and "[X]" in item for item in items):
                raise InputError(
                    "a template without [X]", file=path, field=relation, found=repr(items)[:80], expected=expected
                )
        return Templates({relation: tuple(items) for relation, items in listed.items()})

    @staticmethod
    def beside(path: Path) -> Templates:
        """The templates that lie beside a file of facts, or none."""
        for name in NAMES_BESIDE:
            candidate = path.parent / name
            if candidate.is_file() and candidate != path:
                return Templates.load(candidate)
        return Templates()

    def questions(self, relation: str, subject: str) -> tuple[str, ...]:
        """Every question wording about `subject`."""
        return tuple(
            template.replace("[X]", subject) for template in self.by_relation.get(relation, ()) if "[Y]" not in template
        )

    def completions(self, relation: str, subject: str) -> tuple[str, ...]:
        """Every statement that ends with the object, cut right before it; other statements cannot be asked."""
        cut = (
            _ENDS_WITH_OBJECT.sub("", template)
            for template in self.by_relation.get(relation, ())
            if _ENDS_WITH_OBJECT.search(template) and template.count("[Y]") == 1
        )
        return tuple(template.replace("[X]", subject) for template in cut if "[X]" in template)

    def recover(self, question: str, relation: str | None) -> tuple[str, str] | None:
        """(relation, subject) of a question made from one template, or None when none or several relations fit."""
        fits = {
            (name, question[len(before) : len(question) - len(after)])
            for name, before, after in self._frames
            if relation in (None, name)
            and len(question) > len(before) + len(after)
            and question.startswith(before)
            and question.endswith(after)
        }
        return fits.pop() if len(fits) == 1 else None

    @cached_property
    def _frames(self) -> tuple[tuple[str, str, str], ...]:
        return tuple(self._each_frame())

    def _each_frame(self) -> Iterator[tuple[str, str, str]]:
        for relation, templates in self.by_relation.items():
            for template in templates:
                if template.count("[X]") == 1 and "[Y]" not in template:
                    before, after = template.split("[X]")
                    yield relation, before, after
