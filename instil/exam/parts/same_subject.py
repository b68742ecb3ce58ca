"""Other relations of the same subject: facts that are not taught about subjects that are.

In a lesson, roles are disjoint by subject, so that such facts are in no role. They come from the held-back facts of the
file whose subject is taught (which cannot serve as held-back facts for that reason), or from one's own questions.
"""

from __future__ import annotations

from instil.exam.paper import SAME_SUBJECT, Item
from instil.exam.parts.material import Material, question_of

NAME = "same_subject"


def items(material: Material) -> list[Item]:
    if not len(material.same_subject):
        material.left_out.append(("same subject", "every fact about a taught subject is taught itself"))
    asked = material.drawn(SAME_SUBJECT, material.same_subject)
    return material.untaught(
        SAME_SUBJECT, (Item(SAME_SUBJECT, 0, question_of(SAME_SUBJECT, f, f.question, f.answers)) for f in asked)
    )
