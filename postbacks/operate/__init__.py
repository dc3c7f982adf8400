"""Actions of operators on accounts. Commands call them, and a web page would: neither holds rules of its own.

Actions on one postback, cancel and resend, stand in ``queue/actions.py``, as Celery's ``revoke`` calls them too.
"""
