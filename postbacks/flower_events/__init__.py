"""Celery's task events of each postback, so that Flower and ``celery events`` show it as a task.

``publisher.py`` is the worker's side, ``client_side.py`` a program's.
"""
