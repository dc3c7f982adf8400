"""Pictures of docs/dashboard.md and the stage that they are taken on: nobody's number, small files, each of them shown."""

from __future__ import annotations

import re
import struct
import zlib
from pathlib import Path

from benchmarks.afternoon.cast import ACCOUNTS, ROLES, Events, accounts
from benchmarks.afternoon.pictures import PICTURES, with_palette
from postbacks.catalogue import parse_event

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "docs" / "dashboard"
WEB = ROOT / "postbacks" / "web"
#: Numbers that are reserved for fiction: 555-0100 to 555-0199 of any area.
FICTIONAL = re.compile(r"1\d{3}55501\d\d")


def test_each_picture_that_the_script_takes_is_there_and_shown():
    names = {f"{picture.name}.png" for picture in PICTURES}
    assert {path.name for path in FOLDER.iterdir()} == names
    assert (
        set(re.findall(r"\(dashboard/([\w-]+\.png)\)", (ROOT / "docs" / "dashboard.md").read_text())) == names
    )


def test_the_pictures_are_small():
    assert sum(path.stat().st_size for path in FOLDER.iterdir()) < 1_600_000


def test_a_picture_has_the_pixels_that_it_was_made_of():
    red, white = bytes((255, 0, 0, 255)), bytes((255, 255, 255, 255))
    png = with_palette(2, 2, red + white + white + red)
    content = png[png.index(b"IDAT") + 4 :]
    lines = zlib.decompressobj().decompress(content)
    colours = png[png.index(b"PLTE") + 4 :]
    drawn = [colours[3 * place : 3 * place + 3] for place in (lines[1], lines[2], lines[4], lines[5])]
    assert drawn == [red[:3], white[:3], white[:3], red[:3]]
    assert struct.unpack(">II", png[16:24]) == (2, 2)


def test_a_picture_keeps_a_rare_colour_among_many_shades_of_another():
    shades = b"".join(bytes((0, shade // 2, 0, 255)) * 9 for shade in range(512)) * 2
    red = bytes((200, 0, 0, 255))
    png = with_palette(1, len(shades) // 4 + 1, shades + red)
    assert red[:3] in png[png.index(b"PLTE") + 4 : png.index(b"IDAT")]


def test_the_cast_is_the_same_each_time_and_of_nobody():
    cast = accounts(19)
    assert cast == accounts(19)
    assert len({account.name for account in cast}) == ACCOUNTS
    assert set(ROLES.values()) <= {account.name for account in cast}
    assert all(account.host.endswith(".example") for account in cast)
    events = Events(cast, 19)
    for _ in range(400):
        for _, event in events.of(events.account(), 1_780_000_000_000):
            parse_event(event)
            persons = [event[tag] for tag in ("MOBILE", "REFERENCEVALUE") if tag in event]
            persons += [event["TO"]] if event["ORIGIN"] == "SMS_MT" else []
            assert all(map(FICTIONAL.fullmatch, persons))


def test_each_class_of_the_style_sheet_is_of_a_page():
    sheet = re.sub(r"/\*.*?\*/|\"[^\"]*\"", "", (WEB / "static" / "style.css").read_text(), flags=re.DOTALL)
    classes = set(re.findall(r"\.([a-z][\w-]*)(?=[^{}]*\{)", sheet))
    words = set()
    for path in [*WEB.rglob("*.html"), *(ROOT / "postbacks").rglob("*.py"), *WEB.rglob("*.js")]:
        words |= {word.removesuffix("_ms") for word in re.findall(r"[\w-]+", path.read_text())}
    # Code puts these before a state, and before a part of a document.
    assert {mark.removeprefix("is-").removeprefix("x-") for mark in classes} - words == set()
