"""XML from anywhere, read with the standard library's expat alone.

Expat would expand entities that a document type declares (the "billion laughs"), so a file with a
document type is refused, as ``defusedxml`` does with ``forbid_dtd=True``; no external thing is ever
looked up, because no handler for it is set.
"""

from __future__ import annotations

from pathlib import Path
from typing import NoReturn
from xml.etree.ElementTree import Element, TreeBuilder
from xml.parsers import expat

from msbal.data.files import named, read_bytes
from msbal.errors import DataError

_DEEPEST = 50


def read_xml(path: Path, what: str) -> Element:
    """The root element of an XML file.

    Args:
        path: the file.
        what: what it should be, for the message.

    Raises:
        DataError: naming line and column where it is not XML; where it has a document type; where
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
        builder.start(tag, attributes)

    def end(tag: str) -> None:
        nonlocal depth
        depth -= 1
        builder.end(tag)

    def refuse(*_: object) -> NoReturn:
        raise DataError(where, "declares a document type or entities", what, "remove its <!DOCTYPE ...> line")

    parser = expat.ParserCreate()
    parser.buffer_text = True
    parser.StartElementHandler = start
    parser.EndElementHandler = end
    parser.CharacterDataHandler = builder.data
    parser.StartDoctypeDeclHandler = refuse
    parser.EntityDeclHandler = refuse
    try:
        parser.Parse(raw, True)
        return builder.close()
    except expat.ExpatError as error:
        message = expat.ErrorString(error.code)
        found = f"is not XML: {message} at line {error.lineno}, column {error.offset + 1}"
        raise DataError(where, found, what) from error
    except (LookupError, ValueError) as error:  # an encoding that Python lacks
        raise DataError(where, f"is not XML that can be read: {error}", what) from error
