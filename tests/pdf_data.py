"""PDF files written by hand: pages of lines in Helvetica, or a picture, a title where one is wanted."""

from __future__ import annotations

from collections.abc import Sequence
from io import BytesIO

Pages = Sequence[Sequence[str] | None]
"""Lines by page; None is a page with a picture and no text."""


def pdf(pages: Pages, title: str | None = None) -> bytes:
    objects = ["<< /Type /Catalog /Pages 2 0 R >>", "", "<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>"]
    picture = "<< /Type /XObject /Subtype /Image /Width 1 /Height 1 /ColorSpace /DeviceGray /BitsPerComponent 8"
    objects.append(f"{picture} /Length 1 >>\nstream\nA\nendstream")
    objects.append(f"<< /Title ({_escaped(title)}) >>" if title else "<< >>")
    kids = []
    for lines in pages:
        content = "q 100 0 0 100 50 500 cm /P Do Q" if lines is None else _shown(lines)
        objects.append(f"<< /Length {len(content)} >>\nstream\n{content}\nendstream")
        used = "/XObject << /P 4 0 R >>" if lines is None else "/Font << /F 3 0 R >>"
        box = "/MediaBox [0 0 612 792]"
        objects.append(f"<< /Type /Page /Parent 2 0 R {box} /Resources << {used} >> /Contents {len(objects)} 0 R >>")
        kids.append(f"{len(objects)} 0 R")
    objects[1] = f"<< /Type /Pages /Kids [{' '.join(kids)}] /Count {len(kids)} >>"
    out, places = "%PDF-1.4\n", []
    for number, body in enumerate(objects, 1):
        places.append(len(out))
        out += f"{number} 0 obj\n{body}\nendobj\n"
    table = "".join(f"{place:010} 00000 n \n" for place in places)
    start = len(out)
    size = len(objects) + 1
    out += f"xref\n0 {size}\n0000000000 65535 f \n{table}"
    out += f"trailer\n<< /Size {size} /Root 1 0 R /Info 5 0 R >>\nstartxref\n{start}\n%%EOF\n"
    return out.encode("latin-1")


def encrypted(data: bytes, password: str) -> bytes:
    import pypdf

    writer = pypdf.PdfWriter(clone_from=pypdf.PdfReader(BytesIO(data)))
    writer.encrypt(password, owner_password="owner", algorithm="RC4-128")
    into = BytesIO()
    writer.write(into)
    return into.getvalue()


def _shown(lines: Sequence[str]) -> str:
    return "BT /F 11 Tf 50 740 Td 14 TL " + " ".join(f"({_escaped(line)}) Tj T*" for line in lines) + " ET"


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace("(", "\\(").replace(")", "\\)")
