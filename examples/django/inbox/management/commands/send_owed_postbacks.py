"""Sweep of the postbacks that are owed: a process died after its commit, or the broker was away."""

from __future__ import annotations

from argparse import ArgumentParser
from datetime import timedelta

from django.core.management.base import BaseCommand, CommandError
from django.db import transaction
from django.utils import timezone

from inbox.models import OwedPostback
from postbacks import IdTaken, InvalidAccount, InvalidEvent, PostbacksError

#: Postbacks of one sweep, which are locked until it ends.
BATCH = 1000


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
        """Send them, the oldest first; set aside with its reason what can never be sent as it is.

        Raises:
            CommandError: the broker does not take them, or one of them cannot be sent as it is.
        """
        unmarked = OwedPostback.objects.filter(sent_at=None, refused="")
        old = unmarked.filter(made_at__lte=timezone.now() - timedelta(seconds=older_s)).order_by("made_at")
        sent = refused = 0
        failure: PostbacksError | None = None
        # One commit: the rows stay locked until then, and another sweep skips them (but on SQLite, which has no such
        # locks). A sweep that is killed sends these again, with the same ids.
        with transaction.atomic():
            for owed in old.select_for_update(skip_locked=True)[:BATCH]:
                try:
                    owed.send()
                    sent += 1
                except (InvalidAccount, InvalidEvent, IdTaken) as error:  # must not keep the others
                    owed.refused = str(error)
                    owed.save(update_fields=["refused"])
                    self.stderr.write(f"{owed}: {error}")
                    refused += 1
                except PostbacksError as error:  # of the broker or a setting: the next sweep begins here
                    failure = error
                    break
        if failure:
            raise CommandError(f"{sent} sent, then the sweep ended: {failure}") from failure
        self.stdout.write(f"{sent} sent.")
        if refused:
            raise CommandError(f"{refused} cannot be sent as they are: see their column `refused`.")
