"""README.md, docs/quickstart.md and what ``postbacks up`` prints."""

from __future__ import annotations

from block_checks import (
    UP,
    Check,
    composes,
    elsewhere,
    is_printed,
    is_up,
    makes,
    stays,
    types,
    with_password,
)

EXPORT = "export POSTBACKS_BROKER_URL=redis://:PASSWORD@127.0.0.1:6379/0"
SET_ACME = "postbacks account set acme --url http://127.0.0.1:8080/"

CHECKS: dict[str, dict[str, Check]] = {
    "README.md": {
        "make demo": makes,
        "cp .env.example .env": composes,
    },
    "docs/quickstart.md": {
        "python3 -m venv .venv": elsewhere(
            "pip asks its index", "tests/house/test_installing.py::test_what_the_pages_install_is_an_extra"
        ),
        UP: is_up,
        "postbacks receive --fail-first 2": stays("answers 500 to the first 2 POSTs"),
        SET_ACME: types(says="order-17 delivered after 3 attempts"),
        "14:05:06.090  SMS_MO N211  attempt 3  POST /  answered 200": is_printed,
        "postbacks health": types(),
    },
    UP: {
        "postbacks receive --port 8080": stays("Receiving on http://127.0.0.1:8080/"),
        EXPORT: with_password(types(says="delivered after 1 attempt")),
    },
    "postbacks up": {
        EXPORT: with_password(
            types(fill={"https://YOUR-SERVER": "http://127.0.0.1:8080"}, says="delivered after 1 attempt")
        ),
    },
}
