"""Subscriptions, each with the postback that tells its customer."""

from __future__ import annotations

import uuid
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import JSON, Connection, DateTime, String
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column
from sqlalchemy.schema import CreateTable

from postbacks import Subscribed


class Base(DeclarativeBase):
    """Tables of this service."""


class Subscription(Base):
    """Subscription of a phone number to a campaign of an account.

    The postback's id and its event are stored with the subscription, so that a second call, after a crash or a failure,
    sends the same postback again instead of another one.
    """

    __tablename__ = "subscriptions"

    account: Mapped[str] = mapped_column(String(128), primary_key=True)
    campaign_id: Mapped[str] = mapped_column(String(255), primary_key=True)
    mobile: Mapped[str] = mapped_column(String(15), primary_key=True)
    postback_id: Mapped[uuid.UUID]
    event: Mapped[dict[str, Any]] = mapped_column(JSON)
    postback_sent_at: Mapped[datetime | None] = mapped_column(DateTime(timezone=True))

    @classmethod
    def begun_now(cls, account: str, campaign_id: str, mobile: str) -> Subscription:
        """Make a subscription that begins now.

        Raises:
            InvalidEvent: the number or the campaign's id cannot be one.
        """
        event = Subscribed(mobile=mobile, campaign_id=campaign_id, timestamp=datetime.now(UTC), source="API")
        return cls(
            account=account,
            campaign_id=campaign_id,
            mobile=mobile,
            postback_id=uuid.uuid4(),
            event=event.to_mapping(),
        )


def create_missing_tables(connection: Connection) -> None:
    """Create the tables that are not there; another process may create them at the same moment."""
    for table in Base.metadata.sorted_tables:
        connection.execute(CreateTable(table, if_not_exists=True))
