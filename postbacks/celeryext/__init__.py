"""Overrides of Celery 5.7: each says which class it mirrors and what differs."""
