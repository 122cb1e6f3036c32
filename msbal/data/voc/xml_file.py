"""XML from anywhere, read with the standard library's expat alone.

Expat would expand entities that a document type declares (the "billion laughs"), so a file that declares
any is refused; no external thing is ever looked up, because no handler for it is set. A document type that
only names a file is passed over.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import NoReturn
from xml.etree.ElementTree import Element, TreeBuilder
from xml.parsers import expat

from msbal.data.files import named, read_bytes
from msbal.errors import DataError

_DEEPEST = 50
_DECLARED = re.compile(rb"""^(?:\xef\xbb\xbf)?\s*<\?xml[^>]*?\bencoding\s*=\s*["']([A-Za-z0-9._-]+)["']""")
# Programs that declare the older of these write characters of the newer.
_SUPERSETS = {"gb2312": "gb18030", "gbk": "gb18030", "shift_jis": "cp932", "euc-kr": "cp949"}


def read_xml(path: Path, what: str) -> Element:
    """The root element of an XML file, tags without the prefixes of their namespaces.

    Args:
        path: the file.
        what: what it should be, for the message.

    Raises:
        DataError: naming line and column where it is not XML; where it declares or uses entities; where
            it is nested more than 50 deep.
    """
    raw = read_bytes(path, what)
    where = named(path)
    if not raw.strip():
        raise DataError(where, "is empty", what)
    builder = TreeBuilder()
    depth = 0

    def start(tag: str, attributes: dict[str, str]) -> None:
        nonlocal depth
        depth += 1
        if depth > _DEEPEST:
            raise DataError(where, "is nested too deeply", what)
        builder.start(tag.rpartition(":")[2], attributes)

    def end(tag: str) -> None:
        nonlocal depth
        depth -= 1
        builder.end(tag.rpartition(":")[2])

    def refuse(*_: object) -> NoReturn:
        raise DataError(
            where, "declares or uses entities", what, "remove its <!DOCTYPE ...> and write them out"
        )

    def doctype(name: str, system: str | None, public: str | None, has_declarations: int) -> None:
        if has_declarations:
            refuse()

    try:
        raw, encoding = _readable(raw)
    except (LookupError, ValueError) as error:  # an encoding that Python lacks, or not the declared one
        raise DataError(where, f"is not XML that can be read: {error}", what) from error
    parser = expat.ParserCreate(encoding)
    parser.buffer_text = True
    parser.StartElementHandler = start
    parser.EndElementHandler = end
    parser.CharacterDataHandler = builder.data
    parser.StartDoctypeDeclHandler = doctype
    parser.EntityDeclHandler = refuse
    parser.SkippedEntityHandler = refuse  # else its text would be missing without a word
    try:
        parser.Parse(raw, True)
        return builder.close()
    except expat.ExpatError as error:
        message = expat.ErrorString(error.code)
        found = f"is not XML: {message} at line {error.lineno}, column {error.offset + 1}"
        fix = ""
        if error.code == _INVALID_TOKEN and not _is_utf8(raw):
            found = f"has bytes at line {error.lineno}, column {error.offset + 1} that are no UTF-8"
            fix = 'save it as UTF-8, or begin it with what it is, e.g. <?xml version="1.0" encoding="gbk"?>'
        raise DataError(where, found, what, fix) from error
    except (LookupError, ValueError) as error:
        raise DataError(where, f"is not XML that can be read: {error}", what) from error


_INVALID_TOKEN = expat.errors.codes[expat.errors.XML_ERROR_INVALID_TOKEN]


def _readable(raw: bytes) -> tuple[bytes, str | None]:
    """The bytes in an encoding that expat knows, and its name where that is not the declared one."""
    match = _DECLARED.match(raw)
    if match is None:
        return raw, None
    name = match.group(1).decode("ascii").lower()
    if name in {"utf-8", "utf8", "us-ascii", "iso-8859-1"}:
        return raw, None
    # A declaration that was read as bytes is not in UTF-16, whatever it says: .NET writes so.
    if not name.startswith(("utf-16", "utf16", "ucs-2")):
        raw = raw.decode(_SUPERSETS.get(name, name)).encode()
    return raw, "utf-8"


def _is_utf8(raw: bytes) -> bool:
    try:
        raw.decode()
    except UnicodeDecodeError:
        return False
    return True
