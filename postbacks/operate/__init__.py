"""Actions of operators on postbacks and accounts. Commands call them, and a web page would: neither holds rules of its own.

::

    from postbacks.history import Query
    from postbacks.operate import read_job, start_resend

    started = start_resend(Query(account="acme", state="dead"), why="their gateway was down")
    print(read_job(started.id).counts)

Actions on one postback, cancel and resend, stand in ``queue/actions.py``, as Celery's ``revoke`` calls them too.
"""

from typing import TYPE_CHECKING, Any

from postbacks.errors import HistoryUnfit

if TYPE_CHECKING:
    from postbacks.operate.account_file import apply as apply_accounts
    from postbacks.operate.account_file import export as export_accounts
    from postbacks.operate.account_file import plan as plan_accounts
    from postbacks.operate.accounts import remove_account, remove_secrets, rotate_secret, set_account
    from postbacks.operate.direct import DeadSelection, resend_dead, select_dead
    from postbacks.operate.forget import Count as PersonCount
    from postbacks.operate.forget import Receipt
    from postbacks.operate.forget import count as count_person
    from postbacks.operate.forget import forget as forget_person
    from postbacks.operate.forget import wait as wait_until_forgotten
    from postbacks.operate.incidents import (
        Incident,
        all_incidents,
        mute_incident,
        read_incident,
        unmute_incident,
    )
    from postbacks.operate.jobs.job import Counts, Job, Part, Preview
    from postbacks.operate.jobs.preview import preview as preview_job
    from postbacks.operate.jobs.requests import pause as pause_job
    from postbacks.operate.jobs.requests import resume as resume_job
    from postbacks.operate.jobs.requests import start_cancel, start_resend
    from postbacks.operate.jobs.requests import stop as stop_job
    from postbacks.operate.jobs.status import all_jobs
    from postbacks.operate.jobs.status import read as read_job
    from postbacks.operate.journal import entries as journal_entries
    from postbacks.operate.links import Link, make_link, open_links, withdraw_links
    from postbacks.operate.lookup import Found, look_up
    from postbacks.operate.pauses import Pause
    from postbacks.operate.pauses import pause as pause_account
    from postbacks.operate.pauses import paused as paused_accounts
    from postbacks.operate.pauses import resume as resume_account
    from postbacks.operate.resend import resend as resend_one
    from postbacks.operate.story import story as read_story
else:
    #: Name -> its module, and its name there.
    _PUBLIC = {
        "Counts": ("postbacks.operate.jobs.job", "Counts"),
        "DeadSelection": ("postbacks.operate.direct", "DeadSelection"),
        "Found": ("postbacks.operate.lookup", "Found"),
        "Incident": ("postbacks.operate.incidents", "Incident"),
        "Job": ("postbacks.operate.jobs.job", "Job"),
        "Link": ("postbacks.operate.links", "Link"),
        "Part": ("postbacks.operate.jobs.job", "Part"),
        "Pause": ("postbacks.operate.pauses", "Pause"),
        "PersonCount": ("postbacks.operate.forget.counting", "Count"),
        "Preview": ("postbacks.operate.jobs.job", "Preview"),
        "Receipt": ("postbacks.operate.forget.request", "Receipt"),
        "all_incidents": ("postbacks.operate.incidents", "all_incidents"),
        "all_jobs": ("postbacks.operate.jobs.status", "all_jobs"),
        "apply_accounts": ("postbacks.operate.account_file", "apply"),
        "count_person": ("postbacks.operate.forget.asking", "count"),
        "export_accounts": ("postbacks.operate.account_file", "export"),
        "forget_person": ("postbacks.operate.forget.asking", "forget"),
        "journal_entries": ("postbacks.operate.journal", "entries"),
        "look_up": ("postbacks.operate.lookup", "look_up"),
        "make_link": ("postbacks.operate.links", "make_link"),
        "mute_incident": ("postbacks.operate.incidents", "mute_incident"),
        "open_links": ("postbacks.operate.links", "open_links"),
        "pause_account": ("postbacks.operate.pauses", "pause"),
        "pause_job": ("postbacks.operate.jobs.requests", "pause"),
        "paused_accounts": ("postbacks.operate.pauses", "paused"),
        "plan_accounts": ("postbacks.operate.account_file", "plan"),
        "preview_job": ("postbacks.operate.jobs.preview", "preview"),
        "read_incident": ("postbacks.operate.incidents", "read_incident"),
        "read_job": ("postbacks.operate.jobs.status", "read"),
        "read_story": ("postbacks.operate.story", "story"),
        "remove_account": ("postbacks.operate.accounts", "remove_account"),
        "remove_secrets": ("postbacks.operate.accounts", "remove_secrets"),
        "resend_dead": ("postbacks.operate.direct", "resend_dead"),
        "resend_one": ("postbacks.operate.resend", "resend"),
        "resume_account": ("postbacks.operate.pauses", "resume"),
        "resume_job": ("postbacks.operate.jobs.requests", "resume"),
        "rotate_secret": ("postbacks.operate.accounts", "rotate_secret"),
        "select_dead": ("postbacks.operate.direct", "select_dead"),
        "set_account": ("postbacks.operate.accounts", "set_account"),
        "start_cancel": ("postbacks.operate.jobs.requests", "start_cancel"),
        "start_resend": ("postbacks.operate.jobs.requests", "start_resend"),
        "stop_job": ("postbacks.operate.jobs.requests", "stop"),
        "unmute_incident": ("postbacks.operate.incidents", "unmute_incident"),
        "wait_until_forgotten": ("postbacks.operate.forget.asking", "wait"),
        "withdraw_links": ("postbacks.operate.links", "withdraw_links"),
    }

    # Hidden from type checkers, to which every misspelt name would be Any.
    def __getattr__(name: str) -> Any:
        """Load an action when it is first used: a command loads its own alone."""
        from importlib import import_module  # noqa: PLC0415 - that is the point

        if name not in _PUBLIC:
            raise AttributeError(f"module 'postbacks.operate' has no attribute {name!r}")
        module, attribute = _PUBLIC[name]
        try:
            return getattr(import_module(module), attribute)
        except ModuleNotFoundError as error:
            if error.name != "sqlalchemy":
                raise
            from postbacks.history.query import WITHOUT_DRIVER  # noqa: PLC0415 - processes that deliver search nothing

            raise HistoryUnfit(WITHOUT_DRIVER) from None


# Literal, as checkers read it. A name of a module here (``resend``, ``jobs``) can be no action's.
__all__ = [
    "Counts",
    "DeadSelection",
    "Found",
    "Incident",
    "Job",
    "Link",
    "Part",
    "Pause",
    "PersonCount",
    "Preview",
    "Receipt",
    "all_incidents",
    "all_jobs",
    "apply_accounts",
    "count_person",
    "export_accounts",
    "forget_person",
    "journal_entries",
    "look_up",
    "make_link",
    "mute_incident",
    "open_links",
    "pause_account",
    "pause_job",
    "paused_accounts",
    "plan_accounts",
    "preview_job",
    "read_incident",
    "read_job",
    "read_story",
    "remove_account",
    "remove_secrets",
    "resend_dead",
    "resend_one",
    "resume_account",
    "resume_job",
    "rotate_secret",
    "select_dead",
    "set_account",
    "start_cancel",
    "start_resend",
    "stop_job",
    "unmute_incident",
    "wait_until_forgotten",
    "withdraw_links",
]


def __dir__() -> list[str]:
    return __all__
