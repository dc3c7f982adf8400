"""Roles: each may what those before it may, and every page asks for one."""

from __future__ import annotations

import pytest
from starlette.responses import PlainTextResponse
from starlette.routing import Mount, Route

from postbacks.web.pages import all_routes
from postbacks.web.security import passwords, users
from postbacks.web.security.roles import ROLES, Viewer, needs

PASSWORD = "correct horse battery"


@pytest.mark.parametrize("place", range(4), ids=ROLES)
def test_a_role_may_what_those_before_it_may(place):
    assert [Viewer("ann", ROLES[place]).may(role) for role in ROLES] == [other <= place for other in range(4)]


@pytest.mark.parametrize("place", range(4), ids=ROLES)
def test_a_page_is_for_those_who_have_its_role(browse, tmp_path, place):
    path = tmp_path / "users"
    users.write(path, "ann", ROLES[place], passwords.hashed(PASSWORD))
    browser = browse(web_users=str(path), web_key="k" * 16)
    for role in ROLES:

        async def page(_request):
            return PlainTextResponse("here")

        browser.app.router.routes.insert(0, Route(f"/for-{role}", needs(role)(page)))
    browser.post("/login", data={"name": "ann", "secret": PASSWORD})
    statuses = [browser.get(f"/for-{role}").status_code for role in ROLES]
    assert statuses == [200 if other <= place else 403 for other in range(4)]


def test_every_handler_asks_for_a_role_or_a_link_or_says_that_it_is_for_all():
    routes = [route for route in all_routes() if not isinstance(route, Mount)]
    marks = [
        (
            route.path,
            [mark for mark in ("needs", "for_customers", "is_public") if hasattr(route.endpoint, mark)],
        )
        for route in routes
    ]
    assert routes
    assert [path for path, found in marks if len(found) != 1] == []
    open_ones = {path for path, found in marks if found == ["is_public"]}
    assert open_ones == {"/login", "/logout", "/healthz", "/c/{token}", "/customer"}


def test_a_refusal_says_which_role_it_takes(browse, tmp_path):
    path = tmp_path / "users"
    users.write(path, "ann", "viewer", passwords.hashed(PASSWORD))
    browser = browse(web_users=str(path), web_key="k" * 16)

    async def page(_request):
        return PlainTextResponse("here")

    browser.app.router.routes.insert(0, Route("/for-admins", needs("admin")(page)))
    browser.post("/login", data={"name": "ann", "secret": PASSWORD})
    reply = browser.get("/for-admins")
    assert reply.status_code == 403
    assert "needs the role admin" in reply.text
