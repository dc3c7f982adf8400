"""Actions of operators, for Python as well. Commands call them, and a web page would: neither holds rules of its own.

Cancelling one postback stands in ``queue/actions.py``, as Celery's ``revoke`` calls it too.
"""

from postbacks.operate.pauses import Pause
from postbacks.operate.pauses import pause as pause_account
from postbacks.operate.pauses import paused as paused_accounts
from postbacks.operate.pauses import resume as resume_account

__all__ = ["Pause", "pause_account", "paused_accounts", "resume_account"]
