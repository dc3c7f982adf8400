"""Calls as an application makes them, read by mypy and Pyright and never run.

A checker must report each line that ends in ``# error``, and no other.
"""

import asyncio
from datetime import UTC, datetime
from typing import assert_type
from uuid import uuid4

from celery import chain, group

from postbacks import (
    AccountsUnavailable,
    BadSetting,
    BrokerError,
    BrokerUnfit,
    BrokerUnreachable,
    InvalidAccount,
    InvalidEvent,
    InvalidUrl,
    NotReplicated,
    PostbackDead,
    PostbackFailed,
    PostbackResult,
    PostbackSkipped,
    PostbacksError,
    PostbackTask,
    SmsReceived,
    UnsupportedOption,
    resend,
    send_postback,
    send_postbacks,
)
from postbacks.catalogue import Event
from postbacks.testing import (
    Answer,
    CapturedPostback,
    EmbeddedStack,
    Outbox,
    Receiver,
    captured_postbacks,
)

event = SmsReceived(from_="15552312102", to="86717", text="STOP", received=datetime.now(UTC))
tags = {"ORIGIN": "SUB", "CODE": "N301", "MOBILE": "15552312102"}

# -- right ----------------------------------------------------------------------------------------

result = send_postback.delay("acme", event)
assert_type(result, PostbackResult)
assert_type(result.id, str)
assert_type(result.state, str)
assert_type(result.ready(), bool)
print(result.get(timeout=30)["status"])
result.revoke()

send_postback.delay("acme", tags, url="http://a.example/")
send_postback.delay(account="acme", event=event)
send_postback.delay(uuid4(), event)
send_postback.delay(17, event)
assert_type(send_postback.apply_async(("acme", event), task_id="order-17", countdown=3), PostbackResult)
send_postback.delay_on_commit("acme", event, using="default")
send_postback.apply_async_on_commit(("acme", event), task_id="order-17", using="default", countdown=3)
send_postback.apply_async(("acme",), {"event": event}, eta=datetime.now(UTC), priority=0, headers={"a": "b"})
group([send_postback.s("acme", event), send_postback.si("acme", tags)]).apply_async()
chain(send_postback.signature(("acme", event), {"url": "http://a.example/"})).apply_async()
assert_type(asyncio.run(asyncio.to_thread(send_postback.delay, "acme", event)), PostbackResult)
assert_type(send_postback.AsyncResult("order-17"), PostbackResult)
assert_type(send_postbacks("acme", [event, tags]), list[str])
send_postbacks(17, [event])
assert_type(resend("order-17"), str)
assert_type(send_postback, PostbackTask)
print(send_postback("acme", event)["outcome"])

try:
    send_postback.delay("acme", event)
except (InvalidAccount, InvalidEvent, InvalidUrl, UnsupportedOption, BadSetting) as error:
    assert_type(str(error), str)
except (BrokerError, BrokerUnreachable, BrokerUnfit, NotReplicated, AccountsUnavailable) as broker_error:
    print(broker_error)
except (PostbackFailed, PostbackDead, PostbackSkipped) as failure:
    assert_type(failure.attempts, int)
except PostbacksError as other:
    print(other)


def test_of_an_application(
    postbacks_outbox: Outbox, postback_receiver: Receiver, postbacks_stack: EmbeddedStack
) -> None:
    with captured_postbacks() as sent:
        send_postback.delay("acme", event)
    assert_type(sent, Outbox)
    assert_type(sent[0], CapturedPostback)
    assert_type(sent[0].account, str)
    assert_type(sent[0].event, Event)
    assert_type(sent[0].url, str | None)
    assert_type(sent[0].countdown, float | None)
    assert_type(sent[0].document, bytes)
    assert_type(sent.only(account=uuid4(), code="N211").id, str)
    assert [postback.code for postback in postbacks_outbox] == []
    with captured_postbacks(raising=BrokerUnreachable("down")):
        send_postbacks("acme", [event])
    postback_receiver.answer = lambda received: Answer(500 if received.attempt == 1 else 200)
    postbacks_stack.set_account("acme", url=postback_receiver.url())
    assert_type(postback_receiver.wait_for(1, timeout_s=20)[0].body, bytes)


# -- wrong ----------------------------------------------------------------------------------------

from postbacks import SmsRecieved  # error
from postbacks import send_postbak  # error

send_postback.delay("acme")  # error
send_postback.delay("acme", event, "http://a.example/")  # error
send_postback.delay("acme", event, ulr="http://a.example/")  # error
send_postback.delay("acme", event, countdown=3)  # error
send_postback.delay(event, "acme")  # error
send_postback.delay("acme", "STOP")  # error
send_postback.delay("acme", [event])  # error
send_postback.delay("acme", event, url=17)  # error
send_postback.s("acme")  # error
send_postback.si("acme", event, uri="http://a.example/")  # error
send_postback.delay_on_commit("acme", event, countdown=3)  # error
send_postback.delay_on_commit(event)  # error
send_postback.apply_async_on_commit(("acme", event), expires=60)  # error
send_postback.apply_async(("acme", event), countdwn=3)  # error
send_postback.apply_async(("acme", event), countdown="soon")  # error
send_postback.apply_async(("acme", event), expires=60)  # error
send_postback.apply_async(("acme", event), link="shop.close")  # error
send_postback.apply_async(("acme", event), url="http://a.example/")  # error
send_postbacks("acme", event)  # error
asyncio.to_thread(send_postback.delay, "acme", event, countdown=3)  # error
SmsReceived(from_="15552312102", to=86717, text="STOP", received=datetime.now(UTC))  # error
SmsReceived(from_="15552312102", to="86717", txet="STOP", received=datetime.now(UTC))  # error
SmsReceived(from_="15552312102", to="86717", text="STOP")  # error
result.get(timeout="30")  # error
print(result.id + 1)  # error
captured_postbacks(errors=BrokerUnreachable("down"))  # error
with captured_postbacks() as captured:
    print(captured[0].adress)  # error
    print(captured.only(accont="acme"))  # error
    captured[0].account = "other"  # error
