"""The page of a report: escaping, and parts that are put together."""

from __future__ import annotations

import math
from html import unescape

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eval_utils.report_page import bar, cards, escape, number, number_with_bar, page, table_row


@given(st.text(alphabet=st.characters()))
def test_escaped_text_is_text(text):
    escaped = escape(text)
    assert not set(escaped) & set("<>\"'\n\r\0\x1b")
    assert escaped.encode("utf-8").decode("utf-8") == escaped
    if text.isprintable() and text.isascii():
        assert unescape(escaped) == text


@pytest.mark.parametrize(
    ("value", "expected"), [(0.12345, "0.123"), (1.0, "1.000"), (math.nan, "n/a")]
)
def test_numbers(value, expected):
    assert expected in number(value)
    assert expected in number_with_bar(value)
    assert ("bar" in number_with_bar(value)) == (expected != "n/a")


@pytest.mark.parametrize(("share", "width"), [(0, "0.0"), (0.256, "25.6"), (1.5, "100.0")])
def test_bars_stay_in_their_place(share, width):
    assert f"width:{width}%" in bar(share)


def test_plain_texts_are_escaped_everywhere():
    hostile = "<i>&"
    parts = [cards([(hostile, hostile)]), table_row(hostile, []), page(hostile, [])]
    for part in parts:
        assert hostile not in part
        assert "&lt;i&gt;&amp;" in part
