"""Plugin of pytest: three fixtures and a guard. Whoever has postbacks installed loads it with every test run.

So it imports nothing that is not needed at once, nothing in it is automatic but the guard, and the guard reads one
variable.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

    from postbacks.devtools.receiver import Receiver
    from postbacks.testing.outbox import Outbox
    from postbacks.testing.stack import EmbeddedStack

#: Option of pytest's ini file, and its values.
_OPTION = "postbacks_broker"
_VALUES = ("loopback", "allow")


def pytest_addoption(parser: pytest.Parser) -> None:
    """Declare the option of the guard."""
    parser.addini(
        _OPTION,
        "Brokers that POSTBACKS_BROKER_URL may name in a test run: loopback (the default), or allow for any.",
        default=_VALUES[0],
    )


@pytest.hookimpl(trylast=True)  # after every conftest and plugin that sets variables
def pytest_configure(config: pytest.Config) -> None:
    """Refuse to run with a broker that is not on loopback."""
    if (value := config.getini(_OPTION)) not in _VALUES:
        raise pytest.UsageError(f"{_OPTION} = {value} is neither {' nor '.join(_VALUES)}.")
    if sentence := _refusal(config):
        raise pytest.UsageError(sentence)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Refuse each test where a module, or a fixture of a test before, has named such a broker since."""
    _fail_if_refused(item)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_call(item: pytest.Item) -> None:
    """Refuse a test where a fixture of its own has named such a broker."""
    _fail_if_refused(item)


def _fail_if_refused(item: pytest.Item) -> None:
    if sentence := _refusal(item.config):
        pytest.fail(sentence, pytrace=False)


def _refusal(config: pytest.Config) -> str:
    from postbacks.testing.loopback import why_refused  # noqa: PLC0415 - what is imported above costs every test run

    return "" if config.getini(_OPTION) == "allow" else why_refused()


@pytest.fixture
def postbacks_outbox() -> Iterator[Outbox]:
    """Postbacks that the test sends: recorded, and not sent. See ``captured_postbacks``."""
    from postbacks.testing.outbox import captured_postbacks  # noqa: PLC0415

    with captured_postbacks() as outbox:
        yield outbox


@pytest.fixture
def postback_receiver() -> Iterator[Receiver]:
    """Receiver of postbacks, a real HTTP server of 127.0.0.1 that answers 200, or what its ``answer`` says."""
    from postbacks.devtools.receiver import Receiver  # noqa: PLC0415

    with Receiver() as receiver:
        yield receiver


@pytest.fixture(scope="session")
def postbacks_stack_environment() -> dict[str, str]:
    """Variables of the stack's processes; a project names its own in a fixture of this name."""
    return {}


@pytest.fixture(scope="session")
def _postbacks_stack(
    tmp_path_factory: pytest.TempPathFactory, postbacks_stack_environment: dict[str, str]
) -> Iterator[EmbeddedStack]:
    from postbacks.errors import PostbacksError  # noqa: PLC0415
    from postbacks.testing.stack import EmbeddedStack  # noqa: PLC0415

    stack = EmbeddedStack(tmp_path_factory.mktemp("postbacks-stack"), postbacks_stack_environment)
    try:
        stack.start()
    except PostbacksError as error:
        pytest.fail(f"The fixture postbacks_stack cannot start. {error}", pytrace=False)
    yield stack
    stack.stop()


@pytest.fixture
def postbacks_stack(_postbacks_stack: EmbeddedStack) -> Iterator[EmbeddedStack]:
    """Broker, worker and beat, real ones: started by the first test that asks, emptied for each."""
    with _postbacks_stack.in_use() as stack:
        yield stack
