"""Measurement of a transfer's phases, when it has ended: our own times, and between them libcurl's."""

from __future__ import annotations

from typing import Any

import pycurl

from postbacks.ledger.phases import Phases
from postbacks.transport.transfer import Transfer


def measure(curl: Any, transfer: Transfer, elapsed_s: float, *, has_name: bool) -> Phases:
    """Return the phases of a transfer; together they are as long as it was.

    libcurl knows nothing of a look-up of ours, nor of what it has done before it began anew. So of its times only
    differences are used.

    Args:
        curl: the transfer's easy handle.
        transfer: the transfer.
        elapsed_s: time from its begin to its end.
        has_name: True if its URL has a name that had to be looked up.
    """
    end_s = transfer.started_s + elapsed_s
    looked_up_s = transfer.looked_up_s if has_name else None
    tcp_s = tls_s = first_byte_s = None
    if has_name and looked_up_s is None:
        looked_up_s = end_s
    elif transfer.connected_s is None:
        tcp_s = _tcp_s(curl, transfer)
        tcp_s, tls_s = (end_s, None) if tcp_s is None else (tcp_s, end_s)
    else:
        if transfer.is_new_connection:
            tcp_s = transfer.connected_s
            if secured_s := curl.getinfo(pycurl.APPCONNECT_TIME):
                tcp_s, tls_s = tcp_s - (secured_s - curl.getinfo(pycurl.CONNECT_TIME)), tcp_s
        if begun_s := curl.getinfo(pycurl.STARTTRANSFER_TIME):
            first_byte_s = transfer.connected_s + begun_s - curl.getinfo(pycurl.PRETRANSFER_TIME)
            return _between(transfer.started_s, elapsed_s, looked_up_s, tcp_s, tls_s, first_byte_s, end_s)
        first_byte_s = end_s
    return _between(transfer.started_s, elapsed_s, looked_up_s, tcp_s, tls_s, first_byte_s)


def _tcp_s(curl: Any, transfer: Transfer) -> float | None:
    """Return when TCP stood, of a transfer that was not connected whole; None where it never did."""
    if transfer.sends or transfer.url[:5].lower() != "https":
        return None  # what libcurl says may be of the kept connection before
    connect_s: float = curl.getinfo(pycurl.CONNECT_TIME)
    begun_s = transfer.renewed_s or transfer.looked_up_s or transfer.started_s
    return begun_s + connect_s if connect_s else None


def _between(started_s: float, elapsed_s: float, *ends_s: float | None) -> Phases:
    """Return the phases that end at these times, None where there was none; rounded, they add up to the whole."""
    whole_ms = round(elapsed_s * 1000)
    phases: list[int | None] = [None] * len(ends_s)
    before_ms = 0
    for number, end_s in enumerate(ends_s):
        if end_s is None:
            continue
        end_ms = round((end_s - started_s) * 1000)
        if end_ms < before_ms:  # each POST pays for this: max() and min() would take as long as all else
            end_ms = before_ms
        elif end_ms > whole_ms:
            end_ms = whole_ms
        phases[number] = end_ms - before_ms
        before_ms = end_ms
    return Phases(*phases)
