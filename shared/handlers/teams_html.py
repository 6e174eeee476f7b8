"""HTML of Teams messages: what Teams shows is kept, everything else goes before it is sent."""

from __future__ import annotations

import html
import re
from collections.abc import Sequence

import nh3

from shared.handlers.html_text import plain_text

#: Elements that Teams renders in a message, and its own for mentions, attachments and emoji.
_TAGS = {
    "a", "at", "attachment", "b", "blockquote", "br", "caption", "code", "codeblock", "del", "div", "em", "emoji", "h1",
    "h2", "h3", "h4", "h5", "h6", "hr", "i", "img", "ins", "li", "ol", "p", "pre", "s", "span", "strike", "strong",
    "sub", "sup", "table", "tbody", "td", "tfoot", "th", "thead", "tr", "u", "ul",
}  # fmt: skip
_CELL = {"colspan", "rowspan", "style"}
_ATTRIBUTES = {
    "a": {"href", "title"},
    "at": {"id"},
    "attachment": {"id"},
    "codeblock": {"class"},
    "div": {"style"},
    "emoji": {"id", "alt", "title"},
    "img": {"src", "alt", "width", "height", "style"},
    "li": {"style"},
    "ol": {"start"},
    "p": {"style"},
    "span": {"style"},
    "table": {"style"},
    "td": _CELL,
    "th": _CELL,
}
_STYLES = {
    "background-color", "border", "color", "font-size", "font-style", "font-weight", "height", "text-align",
    "text-decoration", "vertical-align", "width",
}  # fmt: skip
#: `cid` names an image of the message.
_SCHEMES = {"https", "http", "mailto", "tel", "msteams", "cid"}
_CLEANER = nh3.Cleaner(
    tags=_TAGS,
    attributes=_ATTRIBUTES,
    url_schemes=_SCHEMES,
    url_relative="deny",
    filter_style_properties=_STYLES,
    link_rel=None,
)
_CID = re.compile(r'<img\b[^>]*?\bsrc="cid:([^"]*)"[^>]*>')
_SHOWN_IMAGE = re.compile(r'<img\b[^>]*?\bsrc="[^"]')
_AT = re.compile(r'<at id="(\d+)">')
_MENTION = re.compile(r'<at id="(\d+)">.*?</at>', re.DOTALL)


def clean(markup: str) -> str:
    """The markup without scripts, event handlers, links of other schemes, and whatever Teams does not render."""
    return _CLEANER.clean(markup)


def as_html(text: str) -> str:
    """Text that shows as it was typed: markup escaped once, lines and indents kept."""
    escaped = html.escape(text, quote=False).replace("\t", "    ").replace("  ", "&nbsp; ")
    return re.sub(r"\r\n|\r|\n", "<br>", escaped)


def mention_ids(cleaned: str) -> list[int]:
    """The ids of <at id="…"> in cleaned markup, in order."""
    return [int(found) for found in _AT.findall(cleaned)]


def mentions_as(cleaned: str, names: dict[int, str]) -> str:
    """The markup with each <at id="n">…</at> as a bot writes it: <at>name</at>."""
    return _MENTION.sub(lambda found: f"<at>{html.escape(names[int(found[1])], quote=False)}</at>", cleaned)


def has_content(cleaned: str) -> bool:
    """Whether cleaned markup shows anything: a text or an image."""
    return bool(plain_text(cleaned)) or _SHOWN_IMAGE.search(cleaned) is not None


def image_names(cleaned: str) -> list[str]:
    """The names of images that <img src="cid:…"> of cleaned markup asks for."""
    return [html.unescape(name) for name in _CID.findall(cleaned)]


def without_images(cleaned: str) -> str:
    """The markup without its <img src="cid:…">."""
    return _CID.sub("", cleaned)


def hosted_images(cleaned: str, names: Sequence[str]) -> str:
    """The markup with its images as Graph's hosted contents 1, 2 …, in the order of `names`; unused ones at its end."""
    for number, name in enumerate(names, 1):
        source = f"../hostedContents/{number}/$value"
        here = f'src="cid:{html.escape(name)}"'
        if here in cleaned:
            cleaned = cleaned.replace(here, f'src="{source}"')
        else:
            cleaned += f'<img src="{source}">'
    return cleaned
