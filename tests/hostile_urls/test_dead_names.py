"""Names whose name servers never answer hold nobody but themselves."""

from __future__ import annotations

import pycurl

from postbacks.transport.resolver import LOOKUPS_MAX


def test_silent_name_servers_delay_neither_the_loop_nor_other_names(world):
    """1,500 names hang, and again; every 50 ms a POST goes to an address and one to a name that resolves.

    libcurl alone would look all of them up in the same 20 threads, and the healthy name would wait. More of them hang
    than there are threads for look-ups: the healthy one, asked for after them all, does not wait for theirs to end.
    """
    seen = world.ask("stall", dead=1_500, seconds=2, rounds=2)
    dead, address, name = (seen["ended"][owner] for owner in ("dead", "address", "name"))
    outcomes = [outcome for outcome, _ in dead]
    assert set(outcomes) <= {
        "connect_timeout",
        "dns",
    }  # a machine that stands still for 5 s ends a look-up first
    assert outcomes.count("connect_timeout") > 1_500
    assert len(dead) == 2 * 1_500
    # The limit is 1.5 s; the margins are wide, as a busy machine is late with so many at once.
    assert max(elapsed_s for _, elapsed_s in dead) < 10
    assert {outcome for outcome, _ in address + name} == {"delivered"}
    assert len(address) == len(name) >= 2 * 30
    assert max(elapsed_s for _, elapsed_s in address + name) < 5, "they waited for the dead names"
    assert seen["longest_turn_s"] < 5, "the loop stood still"
    assert seen["closing_s"] < 5, "the end waited for the dead names"
    assert seen["threads"] <= LOOKUPS_MAX + 20  # the process's others
    assert seen["waiting"] == 0, "names stay to be asked for though nobody waits for them any more"


def test_the_same_dead_name_is_looked_up_once_for_all_who_ask(world):
    """Ten POSTs to one dead name cost one look-up: its thread, not ten."""
    zone = {"dead.example": ["silent"]}
    seen = world.ask("post", url="http://dead.example/", zone=zone, together=10)
    assert {outcome["name"] for outcome in seen["outcomes"]} == {"connect_timeout"}
    assert len(seen["outcomes"]) == 10
    # Of this name alone: the look-ups of the test before go on, and the resolver asks again for each after 5 s.
    # A and AAAA, and on a slow machine both again; ten look-ups would be twenty questions at least.
    assert 1 <= seen["asked"].count("dead.example") <= 4


def test_a_name_that_does_not_exist_is_told_apart_from_one_whose_server_is_silent(world):
    """``dns`` at once, ``connect_timeout`` at the limit."""
    seen = world.post("http://nobody.example/")
    assert [outcome["name"] for outcome in seen["outcomes"]] == ["dns"]
    assert "could not be resolved" in seen["outcomes"][0]["detail"]


def test_libcurl_looks_up_the_proxys_name_without_blocking():
    """The one name that is left to it is ours; it was built with an asynchronous resolver."""
    assert pycurl.version_info()[4] & pycurl.VERSION_ASYNCHDNS
