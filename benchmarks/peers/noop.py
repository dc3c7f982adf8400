"""A stock Celery app whose beat sends a task that does nothing, every second: what a tick costs at least."""

from __future__ import annotations

import os

from celery import Celery

app = Celery("noop", broker=os.environ["BENCH_BROKER_URL"], set_as_current=False)
app.conf.update(
    task_ignore_result=True,
    task_default_queue="noop",
    beat_scheduler="celery.beat:Scheduler",
    beat_schedule={"tick": {"task": "noop.tick", "schedule": 1.0}},
)


@app.task(name="noop.tick", shared=False)
def tick():
    """Do nothing."""
