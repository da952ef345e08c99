"""A folder of PDF, Markdown, HTML and text files into rows of plain text, cut at paragraphs."""

import logging
import re
from collections.abc import Iterator
from pathlib import Path

from inscriptis import Inscriptis
from inscriptis.css_profiles import CSS_PROFILES
from inscriptis.model.config import ParserConfig
from lxml import etree, html
from pypdf import PdfReader
from pypdf.errors import PyPdfError

from datatunerx.plugins import Call, DataPlugin
from datatunerx.plugins.hooks import Row

MAX_BYTES = 256 << 20
"""Of one file: it is held in memory whole."""
NOT_TEXT = ("script", "style", "noscript", "template", "nav", "header", "footer", "aside", "form", "svg")
"""Elements of a page that are not what it says."""
FRONT_MATTER = re.compile(r"\A---\n.*?\n---\n", re.DOTALL)
PARAMETERS = {
    "type": "object",
    "properties": {
        "maxCharacters": {
            "type": "integer", "minimum": 200, "maximum": 1_000_000, "default": 4000,
            "description": "A longer text becomes several rows, cut between paragraphs.",
        },
        "minCharacters": {
            "type": "integer", "minimum": 0, "default": 20,
            "description": "Shorter pieces, such as page numbers, become no row.",
        },
    },
    "additionalProperties": False,
}  # fmt: skip


class Unreadable(Exception):
    """Why a file gives no text."""


def make(call: Call) -> Iterator[Row]:
    """`text` and `source`: one row, or more where a file is long. What cannot be read is counted."""
    most = call.parameters.get("maxCharacters", 4000)
    least = call.parameters.get("minCharacters", 20)
    # pypdf says line by line what it puts up with in a file.
    logging.getLogger("pypdf").setLevel(logging.ERROR)
    for number, path in enumerate(call.files):
        call.tell(number, len(call.files), "files")
        try:
            pieces = [piece for piece in cut(_text(path), most) if len(piece) >= least]
        except Unreadable as error:
            call.leave_out(str(error), path.name)
            continue
        if not pieces:
            call.leave_out("no text in it", path.name)
        for piece in pieces:
            yield {"text": piece, "source": path.name}


def cut(text: str, most: int) -> Iterator[str]:
    """The text in pieces of at most `most` characters, cut at blank lines where that is possible, else at a
    line, a space, or hard. Nothing but white space is lost."""
    text = text.strip()
    while len(text) > most:
        for mark in ("\n\n", "\n", " "):
            place = text.rfind(mark, 1, most + 1)
            if place > 0:
                break
        else:
            place = most
        yield text[:place].rstrip()
        text = text[place:].lstrip()
    if text:
        yield text


def _text(path: Path) -> str:
    """The file's text, as it reads. Raises Unreadable."""
    if path.stat().st_size > MAX_BYTES:
        raise Unreadable(f"larger than {MAX_BYTES >> 20} MiB")
    suffix = path.suffix.lower()
    if suffix == ".pdf":
        found = _pdf(path)
    elif suffix in (".html", ".htm", ".xhtml"):
        found = _page(path)
    elif suffix in (".md", ".markdown", ".txt", ".text", ".rst"):
        found = FRONT_MATTER.sub("", _decoded(path))
    else:
        raise Unreadable(f"{suffix or 'no suffix'} is not .pdf, .html, .md or .txt")
    lines = [line.rstrip() for line in found.replace("\0", "").splitlines()]
    return re.sub(r"\n{3,}", "\n\n", "\n".join(lines))


def _decoded(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise Unreadable("not UTF-8") from error


def _pdf(path: Path) -> str:
    try:
        reader = PdfReader(path)
        if reader.is_encrypted and not reader.decrypt(""):
            raise Unreadable("needs a password")
        pages = [page.extract_text() for page in reader.pages]
    # A broken file shows itself anywhere in the parser.
    except (PyPdfError, ValueError, KeyError, TypeError, AttributeError, IndexError, RecursionError) as error:
        raise Unreadable("a broken PDF") from error
    # What a font maps to half a surrogate pair is no text.
    return "\n\n".join(pages).encode("utf-8", "ignore").decode()


def _page(path: Path) -> str:
    content = path.read_bytes()
    try:  # libxml2 takes Latin-1 where the page does not say
        content.decode()
        parser = html.HTMLParser(encoding="utf-8")
    except UnicodeDecodeError:
        parser = html.HTMLParser()
    try:
        page = html.document_fromstring(content, parser=parser)
    except (etree.ParserError, etree.XMLSyntaxError) as error:
        raise Unreadable("a broken page") from error
    for element in list(page.iter(*NOT_TEXT)):
        if element.getparent() is not None:
            element.drop_tree()
    text: str = Inscriptis(page, ParserConfig(css=CSS_PROFILES["strict"])).get_text()
    return text


PLUGIN = DataPlugin(
    make, "Text of a folder of PDF, Markdown, HTML and text files, cut at paragraphs.", PARAMETERS
)
