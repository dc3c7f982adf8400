"""Forgetting, while a recorder is late, a process dies, or a resend comes between."""

from __future__ import annotations

from typing import Any

from forget_world import MINE, NUMBER
from recording import both, settle
from traces import database_texts, found_in, texts_of

from postbacks.accounts import find_accounts, store
from postbacks.history import copies_of
from postbacks.operate.forget import forget
from postbacks.operate.forget.erasure import Erasure
from postbacks.operate.forget.person import Person
from postbacks.operate.forget.request import Requests
from postbacks.operate.forget.rows import HistoryPart
from postbacks.operate.resend import put_back_row
from postbacks.settings import load


@both
def test_a_record_that_was_read_before_and_is_written_after_leaves_nothing(world, monkeypatch):
    """The recorder is late: it has the document in its hands while the broker's part is done."""
    world.send("acme", MINE)
    world.rig.tick()
    world.rig.deliver()
    request = forget(number=NUMBER)
    read = world.recorder._records.read
    erased = []

    def read_late(postback_ids: Any) -> Any:
        records = read(postback_ids)
        if not erased:
            for _ in range(3):  # the whole of the broker's part, and as far into the history's as it comes
                world.duty.turn()
            erased.append(Requests(world.client).read(request).phase)
        return records

    monkeypatch.setattr(world.recorder._records, "read", read_late)
    receipt = world.end(request)
    settle(world.recorder, world.client)
    assert erased == ["history"]
    assert (receipt.records, receipt.rows, receipt.documents) == (1, 1, 1)
    assert found_in(database_texts(world.recorder.engine)) == []


def test_a_request_goes_on_after_the_death_of_whoever_did_it(world):
    """After any step: another process does what is left, and the counts are those of one."""
    for steps in (3, 7, 9, 12):
        dead = world.send("sour", MINE)
        world.send("acme", MINE)
        world.deliver()
        world.rig.scripts.drop(2**53, "", [dead])
        settle(world.recorder, world.client)
        request = forget(number=NUMBER, now=True)
        history = HistoryPart(world.recorder, world.client)
        for _ in zip(range(steps), Erasure(world.client, load(), request, history).steps(), strict=False):
            world.recorder.turn()
        receipt = world.end(request)
        assert (receipt.records, receipt.rows, receipt.documents, receipt.values) == (1, 2, 2, 4), steps
        assert found_in(texts_of(world.client)) == []
        assert found_in(database_texts(world.recorder.engine)) == []


def test_what_comes_back_from_the_history_meanwhile_is_found_as_well(world, monkeypatch):
    """A resend has read its document just before that was erased."""
    postback_id = world.send("sour", MINE)
    world.deliver()
    world.rig.scripts.drop(2**53, "", [postback_id])
    settle(world.recorder, world.client)
    steps = HistoryPart.steps

    def steps_after_resend(self: HistoryPart, person: Person, request: str) -> Any:
        copy = copies_of(postback_id).copies[0]
        yield from steps(self, person, request)
        if copy.record.xml:
            row = put_back_row(copy, find_accounts(store(), ["sour"])["sour"])
            world.rig.scripts.put_back(1, row, copy.record.attempts)

    monkeypatch.setattr(HistoryPart, "steps", steps_after_resend)
    receipt = world.end(forget(number=NUMBER, now=True))
    assert (receipt.records, receipt.cancelled) == (1, 1)
    assert world.state(postback_id) == "cancelled"
    assert found_in(texts_of(world.client)) == []
    assert found_in(database_texts(world.recorder.engine)) == []
