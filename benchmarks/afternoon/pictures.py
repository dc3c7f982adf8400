"""Pictures of the dashboard, taken in headless Chromium and written with a palette of few colours."""

from __future__ import annotations

import base64
import shutil
import struct
import zlib
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from benchmarks.afternoon.stage import Stage

WIDE: Final = 1280
PHONE: Final = 390
#: Highest picture: what is longer is cut off, as nobody looks at the hundredth row.
HIGH_MAX: Final = 1400
_COLOURS: Final = 64
_PIXELS: Final = """
async (png) => {
  const image = new Image();
  image.src = 'data:image/png;base64,' + png;
  await image.decode();
  const canvas = new OffscreenCanvas(image.width, image.height);
  const context = canvas.getContext('2d');
  context.drawImage(image, 0, 0);
  const bytes = context.getImageData(0, 0, image.width, image.height).data;
  let text = '';
  for (let at = 0; at < bytes.length; at += 32768) text += String.fromCharCode(...bytes.subarray(at, at + 32768));
  return [image.width, image.height, btoa(text)];
}
"""


CUSTOMER: Final = "customer"


@dataclass(frozen=True, slots=True)
class Picture:
    """Picture of a page.

    Attributes:
        name: of its file.
        address: of the page; ``{…}`` stands for a fact of the stage.
        dark: True for the dark colours.
        width: of the window.
        press: text of a button that is pressed first; empty for none.
        viewer: who is logged in; empty for nobody, ``CUSTOMER`` for whoever has come by a link.
    """

    name: str
    address: str
    dark: bool = False
    width: int = WIDE
    press: str = ""
    viewer: str = "maria"


PICTURES: Final = (
    Picture("login", "/login", viewer=""),
    Picture("now", "/"),
    Picture("now-dark", "/", dark=True),
    Picture("now-phone", "/", width=PHONE),
    Picture("incidents", "/incidents"),
    Picture("incident", "/incidents/{incident unavailable}"),
    Picture("incident-dark", "/incidents/{incident unavailable}", dark=True),
    Picture("incident-recovered", "/incidents/{incident recovered}"),
    Picture("incident-hostile", "/incidents/{incident hostile}"),
    Picture("postbacks", "/postbacks?q=dead+since:24h+outcome:status"),
    Picture("postbacks-dark", "/postbacks?q=dead+since:24h+outcome:status", dark=True),
    Picture("selection", "/incidents/{incident recovered}", press="Resend what died"),
    Picture("postback", "/postbacks/{postback parked}"),
    Picture("postback-dark", "/postbacks/{postback parked}", dark=True),
    Picture("postback-phone", "/postbacks/{postback parked}", width=PHONE),
    Picture("postback-hostile", "/postbacks/{postback hostile}"),
    Picture("story", "/story/{postback parked}"),
    Picture("accounts", "/accounts"),
    Picture("account", "/accounts/blue-heron-dental"),
    Picture("ping", "/accounts/copperline-bank", press="Ping"),
    Picture("jobs", "/jobs"),
    Picture("job", "/jobs/{job}"),
    Picture("opt-outs", "/opt-outs"),
    Picture("journal", "/journal"),
    Picture("system", "/system"),
    Picture("zone", "/zone"),
    Picture("customer", "/customer/", viewer=CUSTOMER),
    Picture("customer-postbacks", "/customer/postbacks?q=state:dead", viewer=CUSTOMER),
    Picture("customer-postback", "/customer/postbacks/{postback parked}", viewer=CUSTOMER),
    Picture("customer-urls", "/customer/urls", viewer=CUSTOMER),
)


@contextmanager
def chromium() -> Iterator[Any]:
    """Run headless Chromium."""
    from playwright.sync_api import sync_playwright

    path = shutil.which("chromium") or shutil.which("chromium-browser")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox", "--disable-gpu"])
        try:
            yield browser
        finally:
            browser.close()


def take(stage: Stage, folder: Path, users: dict[str, str], only: Sequence[str] = ()) -> list[Path]:
    """Take pictures; return their files.

    Args:
        stage: that is lit.
        folder: of the files.
        users: name -> password; empty where the dashboard has no login.
        only: names of the pictures that are taken; empty for all.
    """
    folder.mkdir(parents=True, exist_ok=True)
    taken = []
    with chromium() as browser:
        studio = browser.new_page()
        contexts: dict[tuple[bool, int, str], Any] = {}
        for picture in PICTURES:
            if only and picture.name not in only:
                continue
            look = picture.dark, picture.width, picture.viewer
            if look not in contexts:
                contexts[look] = _context(browser, stage, picture, users)
            page = contexts[look].new_page()
            page.goto(stage.url.rstrip("/") + picture.address.format_map(stage.facts), wait_until="load")
            if picture.press:
                page.get_by_role("button", name=picture.press).first.click(timeout=30_000)
                page.wait_for_load_state("load")
            high = min(
                HIGH_MAX if picture.width > PHONE else 2 * HIGH_MAX,
                page.evaluate("document.body.scrollHeight"),
            )
            page.set_viewport_size({"width": picture.width, "height": max(high, 500)})
            page.mouse.move(0, 0)
            png = page.screenshot()
            path = folder / f"{picture.name}.png"
            width, height, pixels = studio.evaluate(_PIXELS, base64.b64encode(png).decode())
            path.write_bytes(with_palette(width, height, base64.b64decode(pixels)))
            page.close()
            taken.append(path)
    return taken


def _context(browser: Any, stage: Stage, picture: Picture, users: dict[str, str]) -> Any:
    context = browser.new_context(
        viewport={"width": picture.width, "height": 800},
        color_scheme="dark" if picture.dark else "light",
        timezone_id="UTC",
        reduced_motion="reduce",
    )
    if picture.viewer == CUSTOMER:
        context.new_page().goto(stage.facts["customer link"])
    elif picture.viewer and users:
        page = context.new_page()
        page.goto(f"{stage.url}login")
        page.fill("#name", picture.viewer)
        page.fill("#secret", users[picture.viewer])
        page.get_by_role("button", name="Log in").click()
        page.wait_for_load_state("load")
        page.close()
    return context


def with_palette(width: int, height: int, pixels: bytes) -> bytes:
    """Return pixels of four bytes as a PNG of the colours that they have most, each other one as the nearest of these."""
    words = memoryview(pixels).cast("I")
    counted = Counter(words)
    # Of colours that are much alike only the most frequent one, or shades of text would leave no place for a small mark.
    alike: dict[tuple[int, ...], int] = {}
    for colour, _ in counted.most_common():
        alike.setdefault(tuple(part >> 4 for part in _parts_of(colour)), colour)
    # A small mark of a strong colour says more than a shade of grey that is seen more often.
    ranked = sorted(alike.values(), key=lambda colour: -counted[colour] * (1 + _strength(colour)))
    palette = ranked[:_COLOURS]
    palette += [colour for colour, _ in counted.most_common(2 * _COLOURS) if colour not in palette][
        : _COLOURS - len(palette)
    ]
    parts = [_parts_of(colour) for colour in palette]
    places = {colour: place for place, colour in enumerate(palette)}
    for colour in counted.keys() - places.keys():
        wanted = _parts_of(colour)
        places[colour] = min(
            range(len(parts)),
            key=lambda place: sum(
                (own - other) ** 2 for own, other in zip(parts[place], wanted, strict=True)
            ),
        )
    indexes = bytes(map(places.__getitem__, words))
    lines = b"".join(b"\0" + indexes[at : at + width] for at in range(0, width * height, width))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        (
            _chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 3, 0, 0, 0)),
            _chunk(b"PLTE", bytes(part for colour in parts for part in colour)),
            _chunk(b"IDAT", zlib.compress(lines, 9)),
            _chunk(b"IEND", b""),
        )
    )


def _parts_of(colour: int) -> tuple[int, int, int]:
    """Return red, green and blue of four bytes."""
    return colour & 255, colour >> 8 & 255, colour >> 16 & 255


def _strength(colour: int) -> int:
    """Return how far a colour is from grey."""
    parts = _parts_of(colour)
    return max(parts) - min(parts)


def _chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
