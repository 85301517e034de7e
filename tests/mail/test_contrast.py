"""The colours of the built-in mails: each text differs from its background, as readers need it and filters count."""

from __future__ import annotations

import re
from email.parser import BytesParser
from email.policy import default as default_policy
from html.parser import HTMLParser

import pytest
from attrs import define, field

from trio_worker.jobs.email_type import Catalogue
from trio_worker.jobs.job import sample_jobs
from trio_worker.mail.composer import Composer, Mail

MIN_RATIO = 4.5  # WCAG 2.2, success criterion 1.4.3
_VOID = {"br", "meta", "img", "hr", "link", "input"}
_COLOUR = re.compile(r"(?:^|;)\s*(color|background-color)\s*:\s*#([0-9a-f]{6})", re.IGNORECASE)


def luminance(colour: str) -> float:
    """Relative luminance of rrggbb (WCAG 2.2)."""
    shares = [int(colour[at : at + 2], 16) / 255 for at in (0, 2, 4)]
    red, green, blue = (share / 12.92 if share <= 0.04045 else ((share + 0.055) / 1.055) ** 2.4 for share in shares)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(one: str, other: str) -> float:
    """Contrast ratio of two colours, from 1 to 21 (WCAG 2.2)."""
    dark, light = sorted((luminance(one), luminance(other)))
    return (light + 0.05) / (dark + 0.05)


@define
class Colours(HTMLParser):
    """Collects each text with its colour and the colour behind it, which elements inherit."""

    texts: list[tuple[str, str, str]] = field(factory=list)
    _stack: list[dict[str, str]] = field(factory=lambda: [{"color": "000000", "background-color": "ffffff"}])

    def __attrs_pre_init__(self) -> None:
        super().__init__()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in _VOID:
            style = dict(attrs).get("style") or ""
            own = {name.lower(): colour.lower() for name, colour in _COLOUR.findall(style.replace("\n", " "))}
            self._stack.append({**self._stack[-1], **own, "": tag})

    def handle_endtag(self, tag: str) -> None:
        assert self._stack.pop()[""] == tag

    def handle_data(self, data: str) -> None:
        if data.strip() and self._stack[-1].get("") not in {"style", "title"}:
            self.texts.append((data.strip(), self._stack[-1]["color"], self._stack[-1]["background-color"]))


@pytest.mark.parametrize("email_type", [
    "Registration",
    "ResetPassword",
    "EmailChange",
    "WeeklyRecap",
    "MonthlyRecap",
    "YearlyRecap",
])  # fmt: skip
def test_every_text_stands_out_from_its_background(email_type: str, catalogue: Catalogue, composer: Composer) -> None:
    """The hidden preheader too: SpamAssassin counts it as HTML_FONT_LOW_CONTRAST otherwise."""
    for job in sample_jobs(catalogue.types[email_type]):
        mail = composer.compose(job, "sample", 0.0)
        assert isinstance(mail, Mail)
        html = BytesParser(policy=default_policy).parsebytes(mail.content(eight_bit=True)).get_body(("html",))
        assert html is not None
        colours = Colours()
        colours.feed(html.get_content())

        assert len(colours.texts) > 5
        assert [each for each in colours.texts if contrast(each[1], each[2]) < MIN_RATIO] == []
