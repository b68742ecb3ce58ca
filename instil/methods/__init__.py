"""Published methods, one folder each: code, typed config, card.

A method is a module with `Config` (pydantic), `teach(lesson, config)` and `SUMMARY`, one line for the list; its card is
the `README.md` beside it. One that knows its stages beforehand has `plan(roles, config)` too, which a dry run reads and
`teach` follows. Nothing is imported until a method is asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module, resources
from typing import TYPE_CHECKING, Any

from instil.errors import InputError

if TYPE_CHECKING:
    from pydantic import BaseModel

    from instil.facts.lesson_roles import Roles
    from instil.lesson import Lesson
    from instil.training import Stage

NAMES = ("sft", "gradual", "cpt", "cpt_sft", "mixed", "pit", "generalize", "mentor")


@dataclass(frozen=True)
class Method:
    """One way to teach.

    Attributes:
        name: what the command line calls it.
        summary: one line.
        config: the pydantic class of its settings.
        teach: the recipe; it changes the lesson's model through the lesson's verbs and returns nothing.
        needs: what it cannot do without: "target" (questions to train on), "documents", "practice" (questions about
            other documents). A module says so as `NEEDS`.
        plan: its stages, where they do not depend on what a probe finds.
    """

    name: str
    summary: str
    config: type[BaseModel]
    teach: Callable[[Lesson, Any], None]
    needs: tuple[str, ...] = ()
    plan: Callable[[Roles, Any], Sequence[Stage]] | None = None

    @property
    def card(self) -> str:
        """The method's README: idea, paper, formula, when to use it, settings, what we changed, what we measured."""
        return (resources.files(f"instil.methods.{self.name}") / "README.md").read_text(encoding="utf-8")

    def settings(self, given: Mapping[str, Any] | None = None) -> BaseModel:
        """The settings, checked.

        Raises:
            InputError: a field is unknown or has a wrong value; the first fault is named.
        """
        from pydantic import ValidationError

        try:
            return self.config.model_validate(dict(given or {}))
        except ValidationError as error:
            fault = error.errors()[0]
            raise InputError(
                f"a setting of method {self.name} is wrong",
                field=".".join(str(part) for part in fault["loc"]) or "config",
                found=repr(fault["input"])[:80],
                expected=fault["msg"],
            ) from None


def get(name: str) -> Method:
    """The method with this name.

    Raises:
        InputError: there is none.
    """
    if name not in NAMES:
        raise InputError("there is no such method", field="method", found=repr(name), expected=" | ".join(NAMES))
    module = import_module(f"instil.methods.{name}.method")
    needs, plan = getattr(module, "NEEDS", ()), getattr(module, "plan", None)
    return Method(name, module.SUMMARY, module.Config, module.teach, needs, plan)
