"""postbacks: tells customers' servers what happened in their messaging account.

::

    from postbacks import SmsReceived, send_postback

    event = SmsReceived(from_="15552312102", to="86717", text="STOP", received=when)
    result = send_postback.delay("acme", event)
"""

from postbacks.catalogue import *  # noqa: F403 - the event types, one class a row of the catalogue
from postbacks.errors import InvalidAccount as InvalidAccount
from postbacks.errors import InvalidEvent as InvalidEvent
from postbacks.errors import InvalidUrl as InvalidUrl
from postbacks.errors import PostbackDead as PostbackDead
from postbacks.errors import PostbackFailed as PostbackFailed
from postbacks.errors import PostbacksError as PostbacksError
from postbacks.errors import PostbackSkipped as PostbackSkipped
from postbacks.tasks import resend as resend
from postbacks.tasks import send_postback as send_postback
from postbacks.tasks import send_postbacks as send_postbacks
