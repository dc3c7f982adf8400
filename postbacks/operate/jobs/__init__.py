"""Jobs: resends and cancels of many postbacks, moved in slices by the process that runs history.

A job's request, state and cursors stand in the broker; its frozen set stands in the history's database. ``requests.py`` asks
for jobs and changes them, ``status.py`` reads them, ``mover.py`` is the duty that freezes and moves. No caller of the first
two needs the database.
"""
