"""Customers, and the messages that came in for them."""

from __future__ import annotations

import uuid
from datetime import UTC

from django.db import models
from django.utils import timezone

from postbacks import SmsReceived, send_postback


class Customer(models.Model):
    """Customer of ours: the account of postbacks that has its name (``inbox/account_store.py``)."""

    name = models.CharField(max_length=100, unique=True)
    short_code = models.CharField(max_length=8, unique=True)
    postback_url = models.URLField()
    signing_secret = models.CharField(max_length=200, blank=True)

    def __str__(self) -> str:
        return self.name


class IncomingMessage(models.Model):
    """SMS from a phone to a customer's short code, and the postback that tells the customer of it.

    The id of the postback is made and stored with the message, so that a second call, after a crash or a failure, sends
    the same postback again instead of another one.
    """

    customer = models.ForeignKey(Customer, on_delete=models.PROTECT)
    carrier_id = models.CharField(max_length=100, unique=True)
    sender = models.CharField(max_length=15)
    text = models.TextField()
    received_at = models.DateTimeField()
    stored_at = models.DateTimeField(auto_now_add=True)
    postback_id = models.UUIDField(default=uuid.uuid4, unique=True, editable=False)
    postback_sent_at = models.DateTimeField(null=True, editable=False)

    class Meta:
        indexes = (
            # Only what the sweep looks for: empty, or nearly so.
            models.Index(
                fields=["stored_at"],
                name="message_without_postback",
                condition=models.Q(postback_sent_at__isnull=True),
            ),
        )

    def __str__(self) -> str:
        return f"{self.sender} to {self.customer}: {self.carrier_id}"

    def event(self) -> SmsReceived:
        """Make the event of this message, the same each time.

        Raises:
            InvalidEvent: the message has what no postback may have; nothing is sent.
        """
        return SmsReceived(
            from_=self.sender,
            to=self.customer.short_code,
            text=self.text,
            # As the database gives it back: another offset of the same moment would be another event.
            received=self.received_at.astimezone(UTC),
            transaction_id=self.carrier_id,
        )

    def send_postback(self) -> None:
        """Send the postback, and mark the message once that is done.

        Raises:
            BrokerError: nothing is known to be accepted; call again.
        """
        send_postback.apply_async((self.customer.name, self.event()), task_id=self.postback_id)
        self.postback_sent_at = timezone.now()
        self.save(update_fields=["postback_sent_at"])
