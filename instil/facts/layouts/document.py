"""A document a row: `text`, optionally `id`, `title`, `subject`, `role`, `copy_of`, `metadata`.

Other fields become metadata.
"""

from __future__ import annotations

from instil.facts.layouts import fields
from instil.facts.layouts.fields import Row, Source
from instil.facts.layouts.own import merged_metadata, read_role
from instil.facts.types import Document

FIELDS = frozenset(Document.__slots__)


def documents(row: Row, source: Source) -> tuple[Document]:
    return (
        Document(
            id=fields.identifier(row, "id", source),
            text=fields.text(row, "text"),
            title=fields.optional_text(row, "title"),
            subject=fields.optional_text(row, "subject"),
            role=read_role(row),
            metadata=merged_metadata(row, FIELDS, source),
            copy_of=fields.optional_text(row, "copy_of"),
        ),
    )
