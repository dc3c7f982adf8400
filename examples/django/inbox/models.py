"""Customers, the messages that came in for them, and the postbacks that are owed to them."""

from __future__ import annotations

import uuid

from django.db import models, transaction
from django.utils import timezone

from postbacks import Event, SmsReceived, send_postback


class Customer(models.Model):
    """Customer of ours: the account of postbacks that has its name (``inbox/account_store.py``)."""

    name = models.CharField(max_length=128, unique=True)
    short_code = models.CharField(max_length=8, unique=True)
    postback_url = models.URLField()
    signing_secret = models.CharField(max_length=200, blank=True)

    def __str__(self) -> str:
        return self.name


class IncomingMessage(models.Model):
    """SMS from a phone to a customer's short code."""

    customer = models.ForeignKey(Customer, on_delete=models.PROTECT)
    carrier_id = models.CharField(max_length=100, unique=True)
    sender = models.CharField(max_length=15)
    text = models.TextField()
    received_at = models.DateTimeField()

    def __str__(self) -> str:
        return f"{self.sender} to {self.customer}: {self.carrier_id}"

    def event(self) -> SmsReceived:
        """Make the event that tells the customer of this message.

        Raises:
            InvalidEvent: the message has what no postback may have.
        """
        return SmsReceived(
            from_=self.sender,
            to=self.customer.short_code,
            text=self.text,
            received=self.received_at,
            transaction_id=self.carrier_id,
        )


class OwedPostback(models.Model):
    """Postback that is to be sent: committed with the rows that it tells of.

    Its id is made before it is sent, and its event is stored as it was made. So whatever dies, and wherever, the same
    postback can be sent again, and it is one.
    """

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    account = models.CharField(max_length=128)
    event = models.JSONField()
    made_at = models.DateTimeField(auto_now_add=True)
    sent_at = models.DateTimeField(null=True)
    refused = models.TextField(blank=True)  # why it can never be sent as it is

    class Meta:
        indexes = (
            # Of those that the sweep looks for, so it is nearly empty.
            models.Index(
                fields=["made_at"], name="unsent_postbacks", condition=models.Q(sent_at=None, refused="")
            ),
        )

    def __str__(self) -> str:
        return f"{self.id} of {self.account}"

    @classmethod
    def owe(cls, account: str, event: Event) -> OwedPostback:
        """Note a postback in the caller's transaction, and send it once that has committed.

        A send that fails is logged and raises nothing: the rows are there, and the sweep sends the postback
        (``manage.py send_owed_postbacks``).

        Raises:
            InvalidAccount: the customer's name cannot be an account's.
            InvalidEvent: the event cannot be one.
        """
        account, tags = send_postback.s(account, event).args  # which checks both
        owed = cls.objects.create(account=account, event=tags)
        transaction.on_commit(owed.send, robust=True)
        return owed

    def send(self) -> None:
        """Send the postback, and mark it once the call has returned.

        Raises:
            BrokerError: nothing is known to be accepted; call again.
            InvalidAccount: the row was changed to what cannot be sent, as for the next two.
            InvalidEvent: the event is no longer one.
            IdTaken: another postback has the id.
        """
        send_postback.apply_async((self.account, self.event), task_id=self.id)
        self.sent_at = timezone.now()
        self.save(update_fields=["sent_at"])
