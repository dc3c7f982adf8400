"""The textbook task with one ``requests.Session`` a worker process, whose connections are kept."""

from __future__ import annotations

import os
from functools import cache

import requests
from celery import Celery
from requests.adapters import HTTPAdapter

app = Celery("session", broker=os.environ["BENCH_BROKER_URL"], set_as_current=False)
app.conf.update(
    task_acks_late=True,
    task_ignore_result=True,
    worker_prefetch_multiplier=4,
    task_default_queue="session",
)


@cache
def session() -> requests.Session:
    """Made in the child that uses it; room for a connection to each of some hundred customers' hosts."""
    made = requests.Session()
    made.mount("http://", HTTPAdapter(pool_connections=500))
    made.mount("https://", HTTPAdapter(pool_connections=500))
    return made


@app.task(bind=True, name="session.post", shared=False)
def post(self, url, xml):
    """POST a ready document; anything but 200 is tried again in five minutes, five times."""
    try:
        response = session().post(
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
