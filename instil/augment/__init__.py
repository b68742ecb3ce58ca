"""A document in other formats, orders and wordings.

A *format* keeps every word in its place, which is proved for each copy as it is made; a *control* is what formats are
compared with, and says what it does not keep.
"""

from instil.augment.controls import CONTROLS, PARAPHRASES, Control
from instil.augment.copies import Copy, Recipe, augment, copies_of, copy_of, format_text, formatted_copies, recipes
from instil.augment.formats import FORMATS, Format, Level
from instil.augment.sheet import Formatted, Sheet, prove, recover, words
from instil.augment.tokens import copies_of_equal_size, ordinary_ids, token_dropout, token_noise

__all__ = [
    "CONTROLS",
    "FORMATS",
    "PARAPHRASES",
    "Control",
    "Copy",
    "Format",
    "Formatted",
    "Level",
    "Recipe",
    "Sheet",
    "augment",
    "copies_of",
    "copies_of_equal_size",
    "copy_of",
    "format_text",
    "formatted_copies",
    "ordinary_ids",
    "prove",
    "recipes",
    "recover",
    "token_dropout",
    "token_noise",
    "words",
]
