"""The design card taken literally: one Celery task a postback, requests.post, Celery's own retry."""

from __future__ import annotations

import os

import requests
from celery import Celery

app = Celery("textbook", broker=os.environ["BENCH_BROKER_URL"], set_as_current=False)
app.conf.update(
    task_acks_late=True,
    task_ignore_result=True,
    worker_prefetch_multiplier=4,
    task_default_queue="textbook",
)


@app.task(bind=True, name="textbook.post", shared=False)
def post(self, url, xml):
    """POST a ready document; anything but 200 is tried again in five minutes, five times."""
    try:
        response = requests.post(
            url,
            data=xml.encode(),
            headers={"Content-Type": "application/xml; charset=utf-8"},
            timeout=(10, 10),
            allow_redirects=False,
        )
    except requests.RequestException as error:
        raise self.retry(exc=error, countdown=300, max_retries=5) from error
    if response.status_code != 200:
        raise self.retry(countdown=300, max_retries=5)
