"""Messages that were sent for customers, each with its delivery receipt."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import JSON, Connection, DateTime, String
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column
from sqlalchemy.schema import CreateTable

from postbacks import SmsDelivered, SmsNotDelivered


class Base(DeclarativeBase):
    """Tables of this service."""


class Message(Base):
    """SMS that was sent for an account, and the event that its delivery receipt became.

    The event is stored with the message: what is sent again is the same postback, whatever changes meanwhile.
    """

    __tablename__ = "messages"

    tracking_id: Mapped[str] = mapped_column(String(36), primary_key=True)
    account: Mapped[str] = mapped_column(String(128))
    sender: Mapped[str] = mapped_column(String(15))
    recipient: Mapped[str] = mapped_column(String(15))
    carrier: Mapped[str] = mapped_column(String(20))
    receipt: Mapped[dict[str, Any] | None] = mapped_column(JSON(none_as_null=True))
    postback_sent_at: Mapped[datetime | None] = mapped_column(DateTime(timezone=True))

    @property
    def postback_id(self) -> str:
        """Id of the postback: a message has one receipt, so no id has to be made up and stored."""
        return f"receipt-{self.tracking_id}"

    def make_receipt(self, status: str, timestamp: str) -> SmsDelivered | SmsNotDelivered:
        """Make the event of a delivery receipt.

        Args:
            status: ``delivered``, or what the carrier says instead.
            timestamp: the carrier's time, ISO 8601 with an offset.

        Raises:
            InvalidEvent: the time cannot be one.
        """
        if status == "delivered":
            return SmsDelivered(
                status="Message Sent/Delivered",
                from_=self.sender,
                to=self.recipient,
                tracking_id=self.tracking_id,
                spid=self.carrier,
                timestamp=timestamp,
            )
        return SmsNotDelivered(
            status="Message Sent/Failed",
            from_=self.sender,
            to=self.recipient,
            tracking_id=self.tracking_id,
            spid=self.carrier,
            timestamp=timestamp,
            status_details=status,
        )


def create_missing_tables(connection: Connection) -> None:
    """Create the tables that are not there; another process may create them at the same moment."""
    for table in Base.metadata.sorted_tables:
        connection.execute(CreateTable(table, if_not_exists=True))
