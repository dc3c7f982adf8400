"""Delivery receipts: a small hook for the carrier, which tells customers what became of their messages.

Run it with ``flask --app receipts run``.
"""

from __future__ import annotations

import os
import uuid
from datetime import UTC, datetime

import click
from flask import Flask, Response, jsonify, request
from sqlalchemy import create_engine, update
from sqlalchemy.orm import Session, sessionmaker

from postbacks import BrokerError, InvalidEvent, send_postback
from receipts.models import Message, create_missing_tables

#: Seconds after which the carrier is asked to try again while the broker is away.
RETRY_AFTER_S = 30


def create_app(database_url: str | None = None) -> Flask:
    """Make the application on a database: the one given, or ``DATABASE_URL``."""
    app = Flask(__name__)
    engine = create_engine(database_url or os.environ.get("DATABASE_URL", "sqlite:///receipts.db"))
    with engine.begin() as connection:
        create_missing_tables(connection)
    sessions = sessionmaker(engine)
    app.extensions["engine"] = engine  # for tests, which dispose of it

    @app.post("/carrier/receipts")
    def receive_receipt() -> tuple[Response, int]:
        """Store a receipt, and send its postback once it is committed.

        The carrier repeats a receipt until it is answered with 200. The repeated call finds the receipt, and sends the
        same postback if none is known to be sent: no crash between commit and call loses it.
        """
        fields = request.get_json()
        try:
            tracking_id, status, timestamp = (
                str(fields[name]) for name in ("tracking_id", "status", "timestamp")
            )
        except (KeyError, TypeError):
            return jsonify(error="tracking_id, status and timestamp are wanted."), 400
        with sessions() as session:
            message = session.get(Message, tracking_id)
            if message is None:
                return jsonify(error="No message has this tracking_id."), 404
            store_receipt(session, message, status, timestamp)
            if message.postback_sent_at is None:
                send_postback.apply_async((message.account, message.receipt), task_id=message.postback_id)
                message.postback_sent_at = datetime.now(UTC)
                session.commit()
            return jsonify(postback_id=message.postback_id), 200

    @app.errorhandler(InvalidEvent)
    def refuse(error: InvalidEvent) -> tuple[Response, int]:
        """Answer 422 with each tag at fault; nothing was stored."""
        return jsonify(errors=dict(error.problems)), 422

    @app.errorhandler(BrokerError)
    def ask_to_repeat(error: BrokerError) -> tuple[Response, int, dict[str, str]]:
        """Answer 503: the receipt is stored, and the same call again sends its postback."""
        body = jsonify(error=f"Stored, but its postback is not sent yet: {error}")
        return body, 503, {"Retry-After": str(RETRY_AFTER_S)}

    @app.cli.command("add-message")
    @click.argument("account")
    @click.argument("recipient")
    def add_message(account: str, recipient: str) -> None:
        """Store a message as if it had been sent, and print its tracking_id."""
        tracking_id = str(uuid.uuid4())
        with sessions.begin() as session:
            session.add(
                Message(
                    tracking_id=tracking_id,
                    account=account,
                    sender="86717",
                    recipient=recipient,
                    carrier="0077",
                )
            )
        click.echo(tracking_id)

    return app


def store_receipt(session: Session, message: Message, status: str, timestamp: str) -> None:
    """Commit a receipt, unless the message has one: the first counts, also of two that come at once.

    Raises:
        InvalidEvent: the receipt has what no postback may have; nothing is stored.
    """
    event = message.make_receipt(status, timestamp)
    has_none = (Message.tracking_id == message.tracking_id, Message.receipt.is_(None))
    session.execute(update(Message).where(*has_none).values(receipt=event.to_mapping()))
    session.commit()
