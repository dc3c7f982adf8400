"""Opt-outs on their way: marked as they are accepted, with more room than others, dropped last and sent again first."""

from __future__ import annotations

from events import MO, MT
from helpers import check_places, set_account

from postbacks import keys, send_postback, send_postbacks
from postbacks.devtools.receiver import Answer, Receiver
from postbacks.operate.resend import resend
from postbacks.queue.shares import Shares

SUB = {"ORIGIN": "SUB", "CODE": "N302", "MOBILE": "15552310137", "CAMPAIGNID": "7"}
STOP = MO | {"TEXT": "Stop."}
LARGE = 10**12
NOWHERE = "http://127.0.0.1/"


def marks(rig, ids) -> list[bool]:
    """Tell of each postback if its record is marked."""
    return [rig.client.hexists(keys.record(one), "opt_out") for one in ids]


def left(rig, ids) -> list[bool]:
    """Tell of each postback if the ledger still has it."""
    return [bool(rig.client.exists(keys.record(one))) for one in ids]


def give_up(rig, ids) -> None:
    """Make postbacks dead, one after the other, in their order; the receiver answers 500."""
    while any(rig.record(one).state != "dead" for one in ids):
        rig.deliver()
        rig.advance(301)
        rig.tick()


def test_an_opt_out_is_marked_when_it_is_accepted_and_nothing_else_is(rig):
    set_account("acme", url=NOWHERE)
    ids = send_postbacks("acme", [SUB, STOP, MO | {"TEXT": "please stop"}, MT])
    rig.tick()
    assert marks(rig, ids) == [True, True, False, False]
    assert [rig.record(one).to_public_dict()["opt_out"] for one in ids] == [True, True, False, False]


def test_an_accounts_dead_opt_outs_give_way_after_its_other_dead(rig):
    """The oldest of each kind first, whichever died first."""
    with Receiver(lambda _: Answer(500)) as receiver:
        set_account("acme", url=receiver.url())
        opt_outs = send_postbacks("acme", [SUB, STOP])
        rig.tick()
        give_up(rig, opt_outs)
        others = send_postbacks("acme", [MT, MT | {"TRACKINGID": "2"}])
        rig.tick()
        give_up(rig, others)
    dead_bytes = rig.client.zscore(keys.DEAD_BYTES, "acme")
    for count in (1, 2, 3):
        rig.scripts.retain(1e9, 1e9, 1e9, Shares(LARGE, LARGE, int(dead_bytes) - 1, LARGE, 1, 0), 1)
        dead_bytes = rig.client.zscore(keys.DEAD_BYTES, "acme")
        assert sum(left(rig, [*others, *opt_outs])) == 4 - count
        assert left(rig, opt_outs) == [True, True] if count < 3 else any(left(rig, opt_outs))
    check_places(rig.client)


def test_room_is_made_of_everybodys_other_dead_before_any_opt_out(rig):
    """Though the account with the most dead has opt-outs alone."""
    with Receiver(lambda _: Answer(500)) as receiver:
        for name in ("most", "few"):
            set_account(name, url=receiver.url())
        opt_outs = send_postbacks("most", [SUB | {"CAMPAIGNID": str(number)} for number in range(5)])
        others = send_postbacks("few", [MT])
        unrouted_opt_out = send_postback.delay("nobody", SUB).id
        unrouted = send_postback.delay("nobody", MT).id
        rig.tick()
        give_up(rig, [*opt_outs, *others])
        order = []
        everything = [*opt_outs, *others, unrouted, unrouted_opt_out]
        for _ in everything:
            assert rig.scripts.make_room(0, 1, 0, 1, 0).dead == 1
            order += [
                one
                for one, is_left in zip(everything, left(rig, everything), strict=True)
                if not is_left and one not in order
            ]
    assert order[:2] == [*others, unrouted]
    assert set(order[2:]) == {*opt_outs, unrouted_opt_out}
    check_places(rig.client)


def test_the_share_of_the_unrouted_takes_opt_outs_last_and_their_retention_is_the_same(rig):
    opt_out = send_postback.delay("nobody", SUB).id
    rig.tick()
    other = send_postback.delay("nobody", MT).id
    rig.tick()
    most = int(rig.client.get(keys.UNROUTED_BYTES)) - 1
    rig.scripts.retain(1e9, 1e9, 1e9, Shares(LARGE, most, LARGE, LARGE, 1, 0), 10)
    assert left(rig, [opt_out, other]) == [True, False]
    rig.advance(rig.settings.retention_unrouted_s + 1)
    rig.tick()
    assert left(rig, [opt_out]) == [False]
    assert not rig.client.exists(keys.UNROUTED, keys.DEAD)


def test_opt_outs_may_have_a_tenth_more_open_than_others(rig):
    """Beyond the limit of their group, and no further."""
    set_account("acme", url=NOWHERE)
    row_limit = 20
    rig.settings = rig.settings.model_copy(update={"max_waiting_per_account": row_limit})
    others = send_postbacks("acme", [MO | {"TEXT": str(number)} for number in range(row_limit + 1)])
    opt_outs = send_postbacks("acme", [STOP | {"FROM": str(15552310000 + number)} for number in range(3)])
    rig.tick()
    assert [rig.record(one).state for one in others] == ["waiting"] * row_limit + ["dead"]
    assert [rig.record(one).state for one in opt_outs] == ["waiting", "waiting", "dead"]
    assert rig.record(opt_outs[-1]).reason == "backlog_full"
    check_places(rig.client)


def test_an_opt_out_that_is_sent_again_keeps_its_mark(rig):
    with Receiver(lambda _: Answer(500)) as receiver:
        set_account("acme", url=receiver.url())
        (postback_id,) = send_postbacks("acme", [SUB])
        rig.tick()
        give_up(rig, [postback_id])
        resend(postback_id)
        assert rig.record(postback_id).state == "waiting"
        give_up(rig, [postback_id])
    assert marks(rig, [postback_id]) == [True]
    check_places(rig.client)
