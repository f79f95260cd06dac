"""HTML put together so that text can never become markup by accident."""

import html
import json
from dataclasses import dataclass
from typing import Any


class Html(str):
    """Markup that is finished; every other string is text and gets escaped."""

    __slots__ = ()


def element(tag: str, *children: str, **attributes: str) -> Html:
    """One element with its end tag.

    Args:
        tag: Its name.
        *children: `Html` goes in as it is, any other string as text.
        **attributes: Values are escaped; a trailing underscore is dropped and others become hyphens (`class_`, `aria_label`).
    """
    written = "".join(f' {_attribute(name)}="{html.escape(value)}"' for name, value in attributes.items())
    return Html(f"<{tag}{written}>{join(*children)}</{tag}>")


def join(*children: str) -> Html:
    """Several pieces, one after the other; text among them is escaped."""
    return Html("".join(child if isinstance(child, Html) else html.escape(child) for child in children))


@dataclass(frozen=True)
class Section:
    """A titled part of the page.

    Args:
        title: Its heading.
        explanation: A sentence or two on what is seen.
        content: What is seen.
    """

    title: str
    explanation: str
    content: tuple[Html, ...]

    @property
    def anchor(self) -> str:
        """The title's first word in small letters."""
        return self.title.split()[0].lower()

    def html(self) -> Html:
        """The finished element."""
        heading = element("h2", self.title)
        return element("section", heading, element("p", self.explanation, class_="muted"), *self.content, id=self.anchor)


def json_script(identifier: str, content: Any) -> Html:
    """A JSON value inside the page, for the page's own script.

    No `<` is left in it, so nothing in the data can end the element.
    """
    text = json.dumps(content, allow_nan=False, separators=(",", ":"))
    for sign in "<>&":
        text = text.replace(sign, f"\\u{ord(sign):04x}")
    return Html(f'<script type="application/json" id="{html.escape(identifier)}">{text}</script>')


def _attribute(name: str) -> str:
    return name.removesuffix("_").replace("_", "-")
