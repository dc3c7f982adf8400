"""Pages of the monitoring server, fetched and read."""

from __future__ import annotations

import http.client

from prometheus_client.parser import text_string_to_metric_families


def page(port: int, path: str) -> tuple[int, str]:
    """Return status and text of a page of the monitoring server."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        return answer.status, answer.read().decode()
    finally:
        connection.close()


def samples(text: str) -> dict[tuple[str, ...], float]:
    """Read a page with prometheus_client's parser: name and label values -> value."""
    return {
        (sample.name, *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }
