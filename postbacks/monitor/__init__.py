"""Room of the people who run the system: "how is it now?", answered once for commands, metrics and pages.

* ``snapshot.read``: the whole system in figures.
* ``health.judge``: well or not well, in one line, from that snapshot.
* ``causes.explain``: why one postback has not been sent.
"""
