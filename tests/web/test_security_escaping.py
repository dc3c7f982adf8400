"""Everything shown is made printable and escaped, whichever way a template shows it."""

from __future__ import annotations

import pytest

from postbacks.web import render

HOSTILE = "<script>alert(1)</script>\"' onload=x \u202e\u2066\x1b[31m\x00 &lt;"


@pytest.mark.parametrize(
    "template",
    ["{{ v }}", "{{ v | state }}", "{{ v | lines }}", "{{ v | shorten(9) }}", "{{ v | shorten }}",
     '<a title="{{ v }}">', "{{ url('/x', q=v) }}", "{{ [v] | join(', ') }}", "{{ v | counted(v) if False else v }}"],
)  # fmt: skip
def test_a_hostile_text_is_harmless(template):
    shown = render.environment().from_string(template).render(v=HOSTILE)
    assert "<script" not in shown
    assert "\u202e" not in shown
    assert "\u2066" not in shown
    assert "\x1b" not in shown
    assert "\x00" not in shown
    assert "\"' onload" not in shown


def test_what_stands_nowhere_is_an_error():
    with pytest.raises(Exception, match="missing"):
        render.environment().from_string("{{ missing }}").render()


def test_a_command_within_a_sentence_is_escaped_and_keeps_its_options_whole():
    shown = render.prose('Try `list --opt-outs --why="<b>" a--b` & --this.')
    option = '<span class="whole">--opt-outs</span>'
    assert shown == f"Try <code>list {option} --why=&#34;&lt;b&gt;&#34; a--b</code> &amp; --this."


def test_no_template_turns_escaping_off():
    folder = render._HERE / "templates"
    texts = {path.name: path.read_text() for path in folder.rglob("*.html")}
    assert texts
    assert [
        name for name, text in texts.items() if "|safe" in text.replace(" ", "") or "autoescape" in text
    ] == []
