"""Subscriptions to campaigns: a small API that tells customers of each new subscriber."""
