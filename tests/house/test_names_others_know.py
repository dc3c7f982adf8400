"""Names that other programs know by heart: workers of other versions, access lists, applications' own tasks."""

from __future__ import annotations

from postbacks.app import app


def test_the_exchanges_of_control_and_events_are_named_as_ever():
    """Access lists and the workers of 0.1.0 name them; a move of a module must not rename them."""
    assert app.conf.control_exchange == "postbacks.control"
    assert app.conf.event_exchange == "postbacks.events"


def test_the_three_tasks_are_named_as_ever():
    """`app.send_task("postbacks.send_postback")`, and the ticks of beats of another version."""
    import postbacks.tasks  # noqa: F401 - registers them

    names = {name for name in app.tasks if name.startswith("postbacks.")}
    assert names == {"postbacks.send_postback", "postbacks.dispatch", "postbacks.deliver"}
