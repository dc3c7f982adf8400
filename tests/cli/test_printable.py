"""Strangers' text in each form of output: nothing for a terminal to obey, and the same value to who reads it back."""

from __future__ import annotations

import json
import logging
import xml.etree.ElementTree as ET

import pytest
from harmless import EVIL, is_harmless
from hypothesis import given
from hypothesis import strategies as st

from postbacks.logs import JsonFormatter, TextFormatter
from postbacks.printable import document_text, json_text, printable, printable_lines

ANY = st.text(st.characters(codec=None, categories=None))


@given(ANY)
def test_any_text_is_one_harmless_line(text):
    """The same where there is nothing to escape."""
    assert printable(text).isprintable()
    assert printable(text) == text or not text.isprintable()


@given(ANY)
def test_json_is_one_harmless_line_and_reads_back_the_same(text):
    """In a key as well, in ASCII as well, halves of characters included."""
    value = {"text": [text, None, 1.5], text: True}
    for ascii_only in (True, False):
        shown = json_text(value, ascii_only=ascii_only)
        assert shown.isprintable()
        assert json.loads(shown) == value
    assert shown.encode()


@given(st.text(st.characters(codec="utf-8", exclude_categories=("Cs",), min_codepoint=0x7F)))
def test_a_document_for_a_terminal_is_the_same_document(text):
    """Characters that a terminal would obey are written as references."""
    text = "".join(c for c in text if c not in "\ufffe\uffff")
    document = f"<POSTBACK>\n  <TEXT>{text}</TEXT>\n</POSTBACK>\n"
    shown = document_text(document.encode())
    assert is_harmless(shown)
    assert ET.fromstring(shown).findtext("TEXT") == text


def test_what_is_no_document_is_harmless_as_well():
    """Bytes that somebody has put into the broker."""
    assert is_harmless(document_text(EVIL.encode("utf-8", "surrogatepass") + b"\xff\xfe"))


@pytest.mark.parametrize("formatter", [TextFormatter(), JsonFormatter()], ids=["text", "json"])
def test_an_error_forges_no_line_of_a_log(formatter):
    """Neither by what it says nor by the name of what has raised it; a record's further lines are indented."""
    forged = "[2026-11-27 10:00:00,000: ERROR/MainProcess] postback.delivered id=1"
    error = ValueError(f"{EVIL}\n{forged}\n{forged}")
    arguments = (f"{EVIL}\n{forged}",)
    record = logging.LogRecord(
        "shop", logging.ERROR, "x.py", 1, "%s", arguments, (ValueError, error, error.__traceback__)
    )
    first, *rest = formatter.format(record).split("\n")
    assert is_harmless(first)
    assert all(is_harmless(line) and line.startswith("  ") for line in rest)
    assert printable_lines(f"a{EVIL}\nb").count("\n") == 1
