"""Tools for the tests of a program that sends postbacks; ``docs/testing.md`` shows each.

::

    from postbacks.testing import captured_postbacks

    with captured_postbacks() as sent:
        close_the_order()
    assert sent.only(account="acme", code="N211").url is None

pytest loads ``postbacks.testing.plugin`` in every project of the environment, and this module with it: so nothing is
imported here that is not needed at once.
"""

from typing import TYPE_CHECKING, Any

from postbacks.testing.outbox import CapturedPostback, Outbox, captured_postbacks

if TYPE_CHECKING:
    from postbacks.devtools.receiver import Answer, Received, Receiver, fail_first
else:
    # Hidden from type checkers, to which every misspelt name would be Any.
    def __getattr__(name: str) -> Any:
        """Load the receiver when a name of its module is first used."""
        from importlib import import_module  # noqa: PLC0415 - that is the point

        if name in __all__:
            return getattr(import_module("postbacks.devtools.receiver"), name)
        raise AttributeError(f"module 'postbacks.testing' has no attribute {name!r}")


__all__ = [
    "Answer",
    "CapturedPostback",
    "Outbox",
    "Received",
    "Receiver",
    "captured_postbacks",
    "fail_first",
]
