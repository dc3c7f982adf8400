"""Sweep of the postbacks that are owed: a process died after its commit, or the broker was away."""

from __future__ import annotations

from argparse import ArgumentParser
from datetime import timedelta

from django.core.management.base import BaseCommand, CommandError
from django.utils import timezone

from inbox.models import OwedPostback
from postbacks import BrokerError, PostbacksError


class Command(BaseCommand):
    """Send the postbacks that have no mark. A timer calls it every minute; two at a time do no harm."""

    help = "Send the postbacks that were committed and have not been sent."

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Declare the options."""
        parser.add_argument(
            "--older-s",
            type=int,
            default=60,
            help="seconds that a postback is left to the request that made it",
        )

    def handle(self, *, older_s: int, **_: object) -> None:
        """Send them, the oldest first.

        Raises:
            CommandError: the broker does not take them, or one of them cannot be sent as it is.
        """
        made_before = timezone.now() - timedelta(seconds=older_s)
        sent = failed = 0
        for owed in OwedPostback.objects.filter(sent_at=None, made_at__lte=made_before).order_by("made_at"):
            try:
                owed.send()
            except BrokerError as error:  # the next sweep begins here
                raise CommandError(f"{sent} sent, then the broker failed: {error}") from error
            except PostbacksError as error:  # must not keep the others
                self.stderr.write(f"{owed}: {error}")
                failed += 1
            else:
                sent += 1
        self.stdout.write(f"{sent} sent.")
        if failed:
            raise CommandError(f"{failed} cannot be sent as they are.")
