"""docs/receiving.md, docs/operating.md and docs/sending.md."""

from __future__ import annotations

from block_checks import (
    UP,
    Check,
    composes,
    elsewhere,
    is_our_unit,
    is_up,
    stays,
    types,
)

from block_tables.help import VERIFY
from block_tables.start import SET_ACME

RECEIVING = "tests/house/test_receiving_page.py::"
EXAMPLES_OF_RECEIVING = elsewhere(
    "code of a receiver, no command", RECEIVING + "test_the_examples_know_ours_from_others"
)
SHOWN_BY_RECEIVING = elsewhere(
    "what arrives, no command", RECEIVING + "test_the_document_and_the_headers_of_the_page_are_what_is_sent"
)

CHECKS: dict[str, dict[str, Check]] = {
    "docs/receiving.md": {
        "POST /postbacks HTTP/1.1": SHOWN_BY_RECEIVING,
        "<?xml version='1.0' encoding='UTF-8'?>": SHOWN_BY_RECEIVING,
        "from standardwebhooks import Webhook, WebhookVerificationError": EXAMPLES_OF_RECEIVING,
        "const crypto = require('node:crypto');": EXAMPLES_OF_RECEIVING,
        "postbacks verify --secret whsec_… < request": elsewhere(
            "wants a secret and a signed request", VERIFY
        ),
        UP: is_up,
        "postbacks receive --port 8080": stays("Receiving on http://127.0.0.1:8080/"),
        SET_ACME: types(says="delivered after 1 attempt"),
        "postbacks ping https://acme.example/postbacks": types(
            fill={"https://acme.example": "http://127.0.0.1:8080"}, says="Delivered: answered 200"
        ),
        "postbacks ping acme": types(says="Delivered: answered 200"),
        "postbacks account secret rotate acme --overlap 24h": types(says="whsec_"),
    },
    "docs/operating.md": {
        "cp .env.example .env": composes,
        "docker compose exec history postbacks history status": composes,
        "# /etc/systemd/system/postbacks-worker@.service": is_our_unit,
        "docker compose up -d --scale worker=4": composes,
        "postbacks drop --dead --account acme --older 7d --dry-run": types(says="No such postback is dead."),
        "docker compose stop worker": composes,
        "docker compose exec redis redis-cli bgrewriteaof": composes,
    },
    "docs/sending.md": {
        'send_postback.apply_async(("acme", event), task_id="order-17")': elsewhere(
            "the event is the README's", "tests/client/test_ids.py::test_the_same_postback_sent_again_is_one"
        ),
        '{"id": "7c0e1f3a-…", "task": "postbacks.send_postback", "args": ["acme", {"ORIGIN": "SUB", …}], "kwargs": {}}': elsewhere(
            "an outline", "tests/queue/test_message.py::test_a_message_of_protocol_1_is_read"
        ),
    },
}
