"""Losses counted: kill anything at any moment, count every postback afterwards (``make crash``).

``run`` drives a ``world``: ``planned_world`` lets processes die by ``plan``, ``history_world`` recorders and their
database as well, ``sentinel`` lets the primary die under Sentinel, while ``producer`` sends, ``customers`` change and
``receive`` writes down. ``broker`` reads what the broker holds at the end. ``comparison`` compares the three lists, and
``history_comparison`` the ledger with the history.
"""
