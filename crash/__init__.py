"""Losses counted: kill anything at any moment, count every postback afterwards (``make crash``).

``run`` drives a ``world``: ``planned_world`` lets processes die by ``plan``, ``sentinel`` lets the primary die under
Sentinel, while ``producer`` sends, ``customers`` change and ``receive`` writes down. ``look`` reads what the broker holds
at the end, and ``comparison`` compares the three lists.
"""
