"""Tools for the tests of a program that sends postbacks; ``docs/testing.md`` shows each.

::

    from postbacks.testing import captured_postbacks

    with captured_postbacks() as sent:
        close_the_order()
    assert sent.only(account="acme", code="N211").url is None
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from postbacks.devtools.receiver import Answer, Received, Receiver, fail_first
    from postbacks.testing.outbox import CapturedPostback, Outbox, captured_postbacks
    from postbacks.testing.stack import EmbeddedStack
else:
    _MODULES = {
        "Answer": "postbacks.devtools.receiver",
        "CapturedPostback": "postbacks.testing.outbox",
        "EmbeddedStack": "postbacks.testing.stack",
        "Outbox": "postbacks.testing.outbox",
        "Received": "postbacks.devtools.receiver",
        "Receiver": "postbacks.devtools.receiver",
        "captured_postbacks": "postbacks.testing.outbox",
        "fail_first": "postbacks.devtools.receiver",
    }

    # Hidden from type checkers, to which every misspelt name would be Any.
    def __getattr__(name: str) -> Any:
        """Load a name's module when it is first used: pytest loads this one in every project of the environment."""
        from importlib import import_module  # noqa: PLC0415 - that is the point

        if name in _MODULES:
            return getattr(import_module(_MODULES[name]), name)
        raise AttributeError(f"module 'postbacks.testing' has no attribute {name!r}")


__all__ = [
    "Answer",
    "CapturedPostback",
    "EmbeddedStack",
    "Outbox",
    "Received",
    "Receiver",
    "captured_postbacks",
    "fail_first",
]
