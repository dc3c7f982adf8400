"""Django application whose table has the accounts' URLs."""
