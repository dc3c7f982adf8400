"""Dashboard: pages that show what ``monitor``, ``history`` and ``operate`` know. They hold no rules of their own."""
