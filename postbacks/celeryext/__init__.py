"""Overrides of Celery 5.7: each says which class or function it mirrors and in what it differs."""
