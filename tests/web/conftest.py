"""Dashboard in this process, over a system in this process whose history is recorded."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from jobs import World
from recording import no_waiting
from starlette.testclient import TestClient

from postbacks.devtools.receiver import Answer, Receiver
from postbacks.history.engine import reader
from postbacks.operate.links import Link, make_link
from postbacks.settings import Settings
from postbacks.web import facts
from postbacks.web.app import make_app
from postbacks.web.config import Config
from postbacks.web.security import passwords, users

Browse = Callable[..., TestClient]


@pytest.fixture(scope="session", autouse=True)
def _cheap_hashes() -> Iterator[None]:
    """Make hashes that take a sixth of the time."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(passwords, "_N", 2**14)
        patch.setattr(passwords, "_P", 1)
        yield


@pytest.fixture(autouse=True)
def _patience(monkeypatch) -> None:
    """Let pages wait for what they count, however busy the machine is."""
    monkeypatch.setattr(facts, "PATIENCE_S", 30)


@pytest.fixture
def world(rig, tmp_path, monkeypatch) -> Iterator[World]:
    """Accounts whose receiver refuses what is sent to them until a test says otherwise."""
    no_waiting(monkeypatch)
    url = f"sqlite:///{tmp_path}/history.db"
    for name, value in {
        "POSTBACKS_HISTORY_URL": url,
        "POSTBACKS_MAX_RESENDS": "0",
        "POSTBACKS_USER": "ann",
    }.items():
        monkeypatch.setenv(name, value)
    with Receiver(lambda post: Answer(made.answers.get(post.path, 200), made.body)) as receiver:
        made = World(rig, url, receiver)
        yield made
        made.close()
        reader(made.settings).dispose()


@pytest.fixture
def browse() -> Iterator[Browse]:
    """Open the dashboard as a browser on this machine does; ``settings`` differ from the process's by what is given."""
    opened: list[TestClient] = []

    def start(host: str = "127.0.0.1", base_url: str = "http://127.0.0.1", **settings: object) -> TestClient:
        client = TestClient(
            make_app(Config(Settings(**settings), host=host)),
            base_url=base_url,
            headers={"Sec-Fetch-Site": "same-origin"},
            follow_redirects=False,
        )
        client.__enter__()
        opened.append(client)
        return client

    yield start
    for client in opened:
        client.__exit__(None, None, None)


@pytest.fixture
def browse_as(browse, tmp_path) -> Callable[[str], TestClient]:
    """Open the dashboard and log in as ``ann-ROLE``, who has that role."""

    def start(role: str) -> TestClient:
        path = tmp_path / f"users-{role}"
        users.write(path, f"ann-{role}", role, passwords.hashed("correct horse battery"))
        browser = browse(web_users=str(path), web_key="k" * 16)
        browser.post("/login", data={"name": f"ann-{role}", "secret": "correct horse battery"})
        return browser

    return start


Visit = Callable[..., TestClient]


@pytest.fixture
def token() -> Callable[[TestClient, Link], str]:
    """Return the path that opens a link in a browser's process."""
    return lambda browser, link: browser.app.state.links.address(link, "")


@pytest.fixture
def visit(browse, token) -> Visit:
    """Make a link of an account and open it; ``link`` of the browser is the link."""

    def start(account: str, browser: TestClient | None = None, **given: object) -> TestClient:
        browser = browser or browse()
        link = make_link(account, **given)
        reply = browser.get(token(browser, link))
        assert (reply.status_code, reply.headers["Location"]) == (303, "/customer/")
        browser.link = link
        return browser

    return start
