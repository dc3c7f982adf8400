"""A stock Celery task with the arguments of ``send_postback``: what a call costs its caller."""

from __future__ import annotations

import os

from celery import Celery

app = Celery("stock", broker=os.environ["BENCH_BROKER_URL"], set_as_current=False)
app.conf.update(task_ignore_result=True, task_default_queue="stock")


@app.task(name="stock.send", shared=False)
def send(account, event):
    """Never run."""
