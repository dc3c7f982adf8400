"""Manners of every page: zones, light and dark, keys, nothing from outside."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from postbacks.web import charts, render, zones

STATIC = Path(render.__file__).parent / "static"
NOW_MS = 1_764_324_000_000  # 2025-11-28 10:00:00 UTC


def test_times_are_in_utc_until_the_viewer_says_otherwise(browse, world):
    world.rig.tick()
    browser = browse()
    assert "<option selected>UTC</option>" in browser.get("/zone").text
    reply = browser.get("/zone", params={"name": "Asia/Tokyo", "back": "/?x=1"})
    assert (reply.status_code, reply.headers["Location"]) == (303, "/?x=1")
    assert "HttpOnly" in reply.headers["Set-Cookie"]
    page = browser.get("/zone").text
    assert "<option selected>Asia/Tokyo</option>" in page
    assert 'data-zone="Asia/Tokyo"' in page


@pytest.mark.parametrize(
    "name", ["../../etc/passwd", "Europe/Nowhere", "localtime", "", "UTC\n", "posix/UTC"]
)
def test_a_zone_that_is_none_is_utc(browse, name):
    browser = browse()
    assert browser.get("/zone", params={"name": name}).status_code == 200
    browser.cookies.set(zones.COOKIE, "nowhere")
    assert "<option selected>UTC</option>" in browser.get("/zone").text


@pytest.mark.parametrize(
    ("zone", "shown"),
    [
        ("UTC", "2025-11-28 10:00:00"),
        ("Asia/Tokyo", "2025-11-28 19:00:00"),
        ("America/New_York", "2025-11-28 05:00:00"),
    ],
)
def test_a_time_is_relative_with_the_exact_one_on_hover(zone, shown):
    template = render.environment().from_string("{{ ms | when }}|{{ ms | moment }}")
    when, moment = template.render(ms=NOW_MS, zone=zones.ZoneInfo(zone)).split("|")
    assert f'<time datetime="2025-11-28T10:00:00.000Z" title="{shown}.000 ' in when
    assert when.endswith(" ago</time>")
    assert f">{shown}</time>" in moment


def test_distances_change_once_a_minute_and_together():
    times_ms = [NOW_MS - back_ms for back_ms in (200, 70_001, 119_999, 3_599_000, 86_000_000)]
    seen = {
        tuple(render.relative(ms, render.steady_now_ms(ms, NOW_MS + later_ms)) for ms in times_ms)
        for later_ms in range(0, 60_000, 500)
    }
    assert len(seen) == 1
    assert render.relative(NOW_MS + 400, render.steady_now_ms(NOW_MS + 400, NOW_MS + 500)) == "just now"
    assert (
        render.relative(NOW_MS + 300_000, render.steady_now_ms(NOW_MS + 300_000, NOW_MS + 500)) == "in 5 min"
    )


@pytest.mark.parametrize(
    ("distance_ms", "words"),
    [(0, "just now"), (59_999, "just now"), (60_000, "1 min ago"), (7_500_000, "2 h 5 min ago"), (-1, "in a moment"),
     (-3_600_000, "in 1 h"), (270_000_000, "3 d 3 h ago")],
)  # fmt: skip
def test_a_distance_is_put_into_words(distance_ms, words):
    assert render.relative(NOW_MS - distance_ms, NOW_MS) == words


def test_the_style_sheet_is_small_and_knows_dark_narrow_and_paper():
    css = (STATIC / "style.css").read_text()
    assert len(css.encode()) < 20_000
    assert "prefers-color-scheme: dark" in css
    assert "max-width: 40rem" in css
    assert "@media print" in css
    assert "url(" not in css
    assert "@import" not in css


def test_nothing_comes_from_outside(browse, world):
    world.rig.tick()
    for path in ("/", "/zone", "/nothing"):
        text = browse().get(path).text
        addresses = re.findall(r'(?:href|src|action|content|hx-get)="([^"]*)"', text)
        assert addresses
        assert [address for address in addresses if "//" in address] == []


def test_htmx_evaluates_nothing_and_injects_no_style(browse, world):
    config = browse().get("/zone").text.partition("htmx-config")[2].partition("'>")[0]
    for setting in ('"allowEval":false', '"includeIndicatorStyles":false', '"allowScriptTags":false'):
        assert setting in config
    assert (STATIC / "htmx.min.js").stat().st_size < 60_000


def test_static_files_have_an_address_for_each_version(browse):
    page = browse().get("/zone").text
    for name in ("style.css", "htmx.min.js", "live.js", "keys.js"):
        assert re.search(rf"/static/{re.escape(name)}\?v=[0-9a-f]{{12}}", page), name


def test_every_key_of_the_help_is_one_that_the_script_knows(browse):
    script = (STATIC / "keys.js").read_text()
    keys = set(re.findall(r"<dt>(.*?)</dt>", browse().get("/zone").text))
    named = {key for part in keys for key in re.findall(r"<kbd>(.*?)</kbd>", part)}
    assert named == {"/", "j", "k", "Enter", "x", "r", "?"}
    for key in named:
        assert re.search(rf'^    "?{re.escape(key)}"?: ', script, re.MULTILINE), key


def test_a_chart_is_shapes_with_classes_and_words():
    svg = charts.bars(
        '<"last hour">', [charts.Bar("10:00: 3", {"good": 3, "bad": 1}), charts.Bar("10:01", {})]
    )
    assert 'aria-label="&lt;&#34;last hour&#34;&gt;"' in svg
    assert svg.count('<rect class="room"') == 2
    assert '<rect class="good" x="0" y="15.0" width="8" height="45.0"/>' in svg
    assert "style=" not in svg


def test_a_chart_with_labels_has_an_axis_that_ends_at_a_round_number():
    plot = charts.bars(
        "hour", [charts.Bar("10:00", {"good": 101}), charts.Bar("10:01", {})], along=("<10", "11")
    )
    assert "<span>120</span><span>60</span><span>0</span>" in plot
    assert '<p class="along each" aria-hidden="true"><span>&lt;10</span><span>11</span></p>' in plot
    assert "<span>1</span><span></span><span>0</span>" in charts.bars("none", [], along=("a",))


def test_a_chart_of_nothing_is_drawn():
    assert "<svg" in charts.bars("none", [])


def test_a_long_page_is_sent_compressed(browse, world):
    world.rig.tick()
    reply = browse().get("/")
    assert reply.headers["Content-Encoding"] == "gzip"
