"""Overrides of Celery 5.7: each says which class or function it mirrors and in what it differs.

Two modules override nothing. The overrides ask ``capture`` whether a test takes what they would send, and may import
nothing that stands above them. ``deployment`` reads the Celery settings of whoever runs the workers.
"""
