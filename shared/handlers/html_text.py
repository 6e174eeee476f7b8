"""Plain text of a message's HTML, for searching. Takes anything: broken markup gives some text, never an error.

Not html.parser: measured on Python 3.11, 200 kB of `<a <a <a …` hold it for five minutes. This one reads each
character a fixed number of times.
"""

from __future__ import annotations

import html
import re
from collections.abc import Iterator

MOST_MARKUP = 1_000_000
#: Elements whose content is no text, up to their end tag, whatever stands between.
_RAW = {"script", "style", "title", "template"}
_BLOCKS = {
    "address", "article", "blockquote", "br", "dd", "div", "dl", "dt", "fieldset", "figcaption", "figure", "footer",
    "form", "h1", "h2", "h3", "h4", "h5", "h6", "header", "hr", "li", "main", "nav", "ol", "p", "pre", "section",
    "table", "tr", "ul",
}  # fmt: skip
_CELLS = {"td", "th"}
# Possessive throughout: what was taken is not given back, so that no input makes it slow.
_TAG = re.compile(r"""<(/?+)([a-zA-Z][\w:-]*+)((?:[^<>"']++|"[^"<]*+"|'[^'<]*+')*+)>""")
_ALT = re.compile(r"""\balt\s*+=\s*+(?:"([^"]*+)"|'([^']*+)')""", re.IGNORECASE)
_SPACES = re.compile(r"[^\S\n]++")
_EMPTY_LINES = re.compile(r"\n{3,}")


def plain_text(markup: str | None) -> str:
    """The text that a reader sees, a line for each block; "" for nothing, blanks only, or images only."""
    if not markup:
        return ""
    text = html.unescape("".join(_parts(markup[:MOST_MARKUP])))
    lines = (line.strip() for line in _SPACES.sub(" ", text.replace("\r", "\n")).split("\n"))
    return _EMPTY_LINES.sub("\n\n", "\n".join(lines)).strip()


def _parts(markup: str) -> Iterator[str]:
    """Text, and what tags stand for; entities still as written."""
    at = 0
    while True:
        start = markup.find("<", at)
        if start < 0:
            yield markup[at:]
            return
        yield markup[at:start]
        tag = _TAG.match(markup, start)
        if tag:
            name = tag[2].lower()
            yield _meaning(name, tag[3])
            at = tag.end()
            if name in _RAW and not tag[1]:
                at = _end_of_raw(markup, at, name)
        elif markup.startswith(("<!", "<?"), start):
            end = "-->" if markup.startswith("<!--", start) else ">"
            at = _after(markup, start, end)
        else:
            yield "<"
            at = start + 1


def _meaning(name: str, attributes: str) -> str:
    if name in _BLOCKS:
        return "\n"
    if name in _CELLS:
        return " "
    # Teams writes emoji as an element, or as an image of its own type; the character stands in `alt`.
    if name == "emoji" or (name == "img" and "schema.skype.com/emoji" in attributes.lower()):
        found = _ALT.search(attributes)
        return (found[1] or found[2] or "") if found else ""
    return ""


def _end_of_raw(markup: str, at: int, name: str) -> int:
    end = re.compile(rf"</{name}\b", re.IGNORECASE).search(markup, at)
    return _after(markup, end.start(), ">") if end else len(markup)


def _after(markup: str, at: int, end: str) -> int:
    found = markup.find(end, at)
    return len(markup) if found < 0 else found + len(end)
