"""Page *Now*."""

from __future__ import annotations


def test_the_first_page_says_how_it_is(world, browse):
    world.rig.tick()
    page = browse().get("/")
    assert page.status_code == 200
    assert "the last tick finished" in page.text
    assert 'aria-current="page">Now' in page.text


def test_the_live_part_comes_once_and_then_304(world, browse):
    world.rig.tick()
    browser = browse()
    part = browser.get("/", headers={"HX-Request": "true"})
    assert part.status_code == 200
    assert "<html" not in part.text
    again = browser.get("/", headers={"HX-Request": "true", "If-None-Match": part.headers["ETag"]})
    assert (again.status_code, again.content) == (304, b"")
