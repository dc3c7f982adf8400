"""History: a copy of what the broker's ledger knows, in a real database, for whoever searches.

Nothing on the way of delivery reads it or waits for it.
"""
