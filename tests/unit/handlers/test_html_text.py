"""Plain text of HTML: what a reader sees; anything goes in, and nothing makes it slow."""

from __future__ import annotations

import time

import pytest

from shared.handlers.html_text import MOST_MARKUP, plain_text


@pytest.mark.parametrize(
    ("markup", "text"),
    [
        (None, ""),
        ("", ""),
        ("&nbsp;", ""),
        ("<div><img src=x></div>", ""),
        ("<p> \n </p>", ""),
        ("<p>One</p><p>Two <b>bold</b></p>", "One\n\nTwo bold"),
        ("One<br>Two<br/>Three", "One\nTwo\nThree"),
        ("<table><tr><td>a</td><td>b</td></tr></table>", "a b"),
        ("a &lt;b&gt; &amp;amp; &#8364; &euro;", "a <b> &amp; € €"),
        ("<head><title>T</title><style>p{}</style></head><p>x</p>", "x"),
        ("<script>if (a < b) x('</p>')</script>y", "y"),
        ("<!-- <p>no</p> -->yes<![endif]>", "yes"),
        ("<!--[if mso]><p>no</p><![endif]-->yes", "yes"),
        ('<a title="a > b">x</a>', "x"),
        ('<emoji id="smile" alt="😄" title="Smile"></emoji>', "😄"),
        ('<img itemtype="http://schema.skype.com/Emoji" alt="😄">', "😄"),
        ('<img alt="a photo">', ""),
        ('<at id="0">Alex</at>, go', "Alex, go"),
        ('<attachment id="1"></attachment>x', "x"),
        ("1 < 2 and <b 3", "1 < 2 and <b 3"),
        ("<p>unclosed <b>x", "unclosed x"),
        ("</p></div>x", "x"),
        ("<script>never closed", ""),
        ("a\r\nb", "a\n\nb"),
    ],
)
def test_the_text_that_a_reader_sees(markup: str | None, text: str) -> None:
    assert plain_text(markup) == text


@pytest.mark.parametrize(
    "part",
    ["<!--", "<a ", "</", "&#", "<!", "<a href='", '<a b="', "<![x", "<?", "<div>", "<script>", "<", "&", "<a\n", "="],
)
def test_a_megabyte_of_broken_markup_takes_no_time(part: str) -> None:
    started = time.monotonic()
    plain_text(part * (MOST_MARKUP // len(part)))
    assert time.monotonic() - started < 5
