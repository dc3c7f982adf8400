"""Login by a name and a password, or by a token, and the file of users."""

from __future__ import annotations

import logging
import stat

import pytest

from postbacks.errors import BadSetting
from postbacks.web.security import passwords, users

TOKEN = "a-token-of-32-characters-in-all."
PASSWORD = "correct horse battery"


@pytest.fixture(scope="module")
def of_file() -> str:
    """Hash of the password."""
    return passwords.hashed(PASSWORD)


@pytest.fixture
def file(tmp_path, of_file):
    """File with one user of each role."""
    path = tmp_path / "users"
    for role in ("viewer", "support", "operator", "admin"):
        users.write(path, f"{role}-ann", role, of_file)
    return path


def log_in(browser, name="", secret=PASSWORD):
    """Send the form of the login."""
    return browser.post("/login", data={"name": name, "secret": secret})


def test_nothing_is_shown_before_the_login(browse, file):
    browser = browse(web_users=str(file))
    for path in ("/", "/postbacks?q=state:dead", "/accounts", "/no-such-page"):
        reply = browser.get(path)
        assert reply.status_code == 303
        assert reply.headers["Location"].startswith("/login?next=%2F")
    assert browser.get("/", headers={"HX-Request": "true"}).status_code == 401
    assert browser.post("/logout").status_code == 401
    assert browser.get("/static/style.css").status_code == 200
    assert "Accounts" not in browser.get("/login").text


def test_a_password_logs_in_and_leads_back(browse, file):
    browser = browse(web_users=str(file))
    reply = browser.post(
        "/login", data={"name": "support-ann", "secret": PASSWORD, "next": "/zone?back=/jobs"}
    )
    assert (reply.status_code, reply.headers["Location"]) == (303, "/zone?back=/jobs")
    page = browser.get("/zone")
    assert page.status_code == 200
    assert "support-ann (support)" in page.text


def test_the_token_logs_in_with_all_rights(browse):
    browser = browse(web_token=TOKEN)
    assert log_in(browser, secret=TOKEN).status_code == 303
    assert "token (admin)" in browser.get("/zone").text


@pytest.mark.parametrize(
    ("name", "secret"),
    [("support-ann", "wrong"), ("nobody", PASSWORD), ("", PASSWORD), ("", ""), ("support-ann", ""),
     ("support-ann", TOKEN), ("token", TOKEN), ("Support-Ann", PASSWORD), ("", TOKEN + "x")],
)  # fmt: skip
def test_a_wrong_one_does_not(browse, file, name, secret):
    browser = browse(web_users=str(file), web_token=TOKEN)
    reply = log_in(browser, name, secret)
    assert reply.status_code == 401
    assert "set-cookie" not in reply.headers
    assert browser.get("/zone").status_code == 303


def test_a_wrong_one_is_logged_without_the_password(browse, file, caplog):
    with caplog.at_level(logging.INFO):
        log_in(browse(web_users=str(file)), "support-ann", "wr0ng-secret")
    assert "web.login_refused" in caplog.text
    assert "support-ann" in caplog.text
    assert "wr0ng-secret" not in caplog.text


def test_an_unknown_name_costs_as_much_as_a_known_one(browse, file, monkeypatch):
    derived = []
    real = passwords._derive
    monkeypatch.setattr(passwords, "_derive", lambda *given: derived.append(given) or real(*given))
    browser = browse(web_users=str(file))
    log_in(browser, "support-ann", "wrong")
    log_in(browser, "nobody", "wrong")
    (_, known), (_, unknown) = derived
    assert (known.n, known.r, known.p) == (unknown.n, unknown.r, unknown.p)


def test_who_is_named_by_a_proxy_alone_has_no_password(browse, tmp_path):
    path = tmp_path / "users"
    path.write_text("bob:admin:\n")
    browser = browse(web_users=str(path))
    assert log_in(browser, "bob", "").status_code == 401


def test_a_hostile_name_is_shown_harmlessly(browse, file):
    reply = log_in(browse(web_users=str(file)), '"><script>alert(1)</script>\u202e')
    assert "<script>alert" not in reply.text
    assert "\u202e" not in reply.text


# -- the file --------------------------------------------------------------------------------------


def test_the_file_is_for_its_owner_and_keeps_no_password(file):
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert PASSWORD not in file.read_text()
    line = file.read_text().splitlines()[0].split(":")
    assert line[:2] == ["viewer-ann", "viewer"]
    assert passwords.matches(PASSWORD, line[2])
    assert not passwords.matches(PASSWORD + "x", line[2])


def test_the_same_password_has_another_hash_each_time():
    assert passwords.hashed(PASSWORD) != passwords.hashed(PASSWORD)


def test_a_changed_user_keeps_the_other_lines(file):
    file.write_text(f"# our people\n{file.read_text()}")
    assert users.write(file, "viewer-ann", "admin", passwords.hashed("another password")) is False
    assert file.read_text().startswith("# our people\nviewer-ann:admin:scrypt$")
    assert users.remove(file, "viewer-ann") is True
    assert set(users.read(file)) == {"support-ann", "operator-ann", "admin-ann"}
    assert "# our people" in file.read_text()


@pytest.mark.parametrize(
    "line",
    ["ann", "ann:boss:", ":viewer:", "ann:viewer:plain-password", "ann:viewer:scrypt$2$8$1$AA==$AA==",
     "ann:viewer:\nann:admin:", "a\u202enn:viewer:", f"{'a' * 101}:viewer:", "ann:viewer:scrypt$1073741824$8$1$AAAAAAAAAAA=$AAAA"],
)  # fmt: skip
def test_a_line_that_cannot_be_is_named(tmp_path, line):
    path = tmp_path / "users"
    path.write_text(f"# begin\n{line}\n")
    with pytest.raises(BadSetting, match=r"POSTBACKS_WEB_USERS: line [23] "):
        users.read(path)


def test_nobody_gets_in_while_the_file_cannot_be_read(browse, file, caplog):
    browser = browse(web_users=str(file))
    assert log_in(browser, "support-ann").status_code == 303
    good = file.read_text()
    file.write_text("ann:boss\n")
    assert browser.get("/zone").status_code == 303
    assert "line 1" in caplog.text
    file.write_text(good)
    assert browser.get("/zone").status_code == 200
