"""XML from anywhere, read so that no content can do worse than a DataError.

The standard library's parser never fetches external entities. Entities that a file declares can grow without bounds
("billion laughs"), so such a file is refused before it is parsed.
"""

from __future__ import annotations

import re
from pathlib import Path
from xml.etree import ElementTree
from xml.parsers.expat import errors

from msbal.data.files import named, read_bytes
from msbal.errors import DataError

_DECLARED = re.compile(rb"""^\s*<\?xml[^>]*?\bencoding\s*=\s*["']([A-Za-z0-9._-]+)["']""")
_PREFIX = re.compile(r"(</?)[\w.-]+:(?=[\w.-]+[\s/>])")
_UNDEFINED_ENTITY = errors.codes[errors.XML_ERROR_UNDEFINED_ENTITY]
# Programs declare the older encoding and write characters of the newer one.
_SUPERSETS = {
    "gb2312": "gb18030",
    "gbk": "gb18030",
    "shift_jis": "cp932",
    "euc-kr": "cp949",
    "us-ascii": "utf-8",
}


def read_xml(path: Path, what: str) -> ElementTree.Element:
    """Return the root element of an XML file, tags without the prefixes of their namespaces.

    Args:
        path: the file.
        what: what it should be, for the message.

    Raises:
        DataError: naming line and column where it is not XML; where it declares or uses entities.
    """
    raw = read_bytes(path, what)
    where = named(path)
    if not raw.strip():
        raise DataError(where, "is empty", what)
    try:
        text = raw.decode(_encoding(raw))
    except UnicodeDecodeError as error:
        line, column = raw.count(b"\n", 0, error.start) + 1, error.start - raw.rfind(b"\n", 0, error.start)
        found = f"has bytes at line {line}, column {column} that are no {error.encoding.upper()}"
        fix = 'save it as UTF-8, or begin it with what it is, e.g. <?xml version="1.0" encoding="gbk"?>'
        raise DataError(where, found, what, fix) from error
    except (LookupError, ValueError) as error:  # an encoding that Python lacks
        raise DataError(where, f"is not XML that can be read: {error}", what) from error
    entities = DataError(
        where, "declares or uses entities", what, "remove its <!DOCTYPE ...> and write them out"
    )
    if "<!ENTITY" in text:
        raise entities
    try:
        root = ElementTree.fromstring(_PREFIX.sub(r"\1", text))
    except ElementTree.ParseError as error:
        if error.code == _UNDEFINED_ENTITY:
            raise entities from error
        message, _, _ = str(error).partition(":")
        line, column = error.position
        found = f"is not XML: {message} at line {line}, column {column + 1}"
        raise DataError(where, found, what) from error
    except ValueError as error:
        raise DataError(where, f"is not XML that can be read: {error}", what) from error
    for element in root.iter() if "xmlns" in text else ():
        element.tag = element.tag.rpartition("}")[2]  # without the namespace
    return root


def _encoding(raw: bytes) -> str:
    if raw.startswith((b"\xff\xfe", b"\xfe\xff")):
        return "utf-16"
    declared = _DECLARED.match(raw)
    name = declared.group(1).decode("ascii").lower() if declared else "utf-8"
    # .NET declares UTF-16 in files that are not: this declaration was found as single bytes.
    is_utf8 = name in {"utf-8", "utf8"} or name.startswith(("utf-16", "utf16", "ucs-2"))
    return "utf-8-sig" if is_utf8 else _SUPERSETS.get(name, name)
