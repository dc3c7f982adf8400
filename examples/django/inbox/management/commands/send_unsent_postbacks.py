"""Sweep of the messages whose postback has not been sent: after a crash, or while the broker was away."""

from __future__ import annotations

from argparse import ArgumentParser
from datetime import timedelta

from django.core.management.base import BaseCommand, CommandError
from django.utils import timezone

from inbox.models import IncomingMessage
from postbacks import BrokerError, PostbacksError


class Command(BaseCommand):
    """Send the postbacks of messages that have no mark; a timer calls it each minute."""

    help = "Send the postbacks of messages that were stored and whose postback was not sent."

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Declare the options."""
        parser.add_argument(
            "--older-s", type=int, default=60, help="leave younger messages to the request that stores them"
        )

    def handle(self, *, older_s: int, **_: object) -> None:
        """Send them, the oldest first."""
        unsent = IncomingMessage.objects.filter(
            postback_sent_at__isnull=True, stored_at__lt=timezone.now() - timedelta(seconds=older_s)
        )
        sent = failed = 0
        for message in unsent.select_related("customer").order_by("stored_at").iterator():
            try:
                message.send_postback()
            except BrokerError as error:
                raise CommandError(f"{error} {sent} sent; the others are sent by the next call.") from error
            except PostbacksError as error:  # of this message alone: the others go on
                self.stderr.write(f"message {message.carrier_id}: {error}")
                failed += 1
            else:
                sent += 1
        self.stdout.write(f"{sent} sent.")
        if failed:
            raise CommandError(f"{failed} cannot be sent.")
