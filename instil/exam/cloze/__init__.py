"""An exam made from documents alone: sentences cut right before a date, a name, a number or a telling word."""

from instil.exam.cloze.making import Cloze, clozes_of, reframed
from instil.exam.cloze.plan import ClozePlan, asked_of_items, is_cloze, plan_clozes

__all__ = ["Cloze", "ClozePlan", "asked_of_items", "clozes_of", "is_cloze", "plan_clozes", "reframed"]
