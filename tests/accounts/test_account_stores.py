"""Account stores of applications: the examples on Django's ORM and on SQLAlchemy, from the row to the POST."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import django_shop
import pytest
from events import EVENT, MO
from helpers import BASE_ENV, Rig, environment
from standardwebhooks import Webhook

from postbacks import send_postback
from postbacks.accounts import AccountStore, find_accounts, store
from postbacks.accounts.stores import _named_store
from postbacks.devtools.receiver import Receiver

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"

#: Columns of the customers' table, as an application fills them; the receiver's URL comes before a path.
CUSTOMERS = [
    {"account": "acme", "postback_url": "/acme", "mo_url": "/acme/mo", "signing_secret": SECRET, "rate": "50/s"},
    {"account": "globex", "postback_url": "/globex", "origins_off": ["SUB"]},
    {"account": "initech", "postback_url": "/initech", "rate": "as fast as you can"},
]  # fmt: skip


class DjangoShop:
    """The example on Django's ORM, with the database of this process."""

    path = "shop.accounts:DjangoAccounts"

    def __init__(self, tmp_path) -> None:
        django_shop.set_up()
        from shop.models import Customer

        self.customers = Customer.objects
        self.customers.all().delete()

    def add(self, **columns) -> None:
        self.customers.create(**columns)

    def change(self, account, **columns) -> None:
        self.customers.filter(account=account).update(**columns)

    def lose_connection(self) -> None:
        """Close the connection as a database that restarts: the store does not know it."""
        from django.db import connection

        connection.connection.close()
        connection.is_usable = lambda: False  # what Django asks of PostgreSQL; of SQLite it believes anything

    def close(self) -> None:
        from django.db import connections

        vars(connections["default"]).pop("is_usable", None)
        connections.close_all()


class SqlAlchemyShop:
    """The example on SQLAlchemy, with a database of its own."""

    path = "sqlalchemy_accounts:SqlAlchemyAccounts"

    def __init__(self, tmp_path) -> None:
        self.url = f"sqlite:///{tmp_path}/shop.db"
        os.environ["SHOP_DATABASE_URL"] = self.url
        if str(django_shop.EXAMPLES) not in sys.path:
            sys.path.append(str(django_shop.EXAMPLES))
        import sqlalchemy

        from sqlalchemy_accounts import Base, Customer

        self.table = Customer.__table__
        self.engine = sqlalchemy.create_engine(self.url)
        Base.metadata.create_all(self.engine)

    def add(self, **columns) -> None:
        with self.engine.begin() as connection:
            connection.execute(self.table.insert().values({"origins_off": [], **columns}))

    def change(self, account, **columns) -> None:
        with self.engine.begin() as connection:
            connection.execute(self.table.update().filter_by(account=account).values(**columns))

    def lose_connection(self) -> None:
        """Close the connection as a database that restarts: the pool does not know it."""
        engine = store().engine
        with engine.connect() as connection:
            raw = connection.connection.dbapi_connection
        raw.close()

    def close(self) -> None:
        store().engine.dispose()
        self.engine.dispose()
        del os.environ["SHOP_DATABASE_URL"]


@contextmanager
def shop_of(kind, tmp_path) -> Iterator[DjangoShop | SqlAlchemyShop]:
    """A database with the customers, and the setting that names the store on it."""
    shop = kind(tmp_path)
    _named_store.cache_clear()
    with environment(POSTBACKS_ACCOUNTS=shop.path), closing(shop):
        yield shop
    _named_store.cache_clear()


@pytest.mark.parametrize("kind", [DjangoShop, SqlAlchemyShop])
def test_the_rows_of_an_application_decide_where_its_postbacks_go(kind, broker, tmp_path):
    """Signed, by the URL of the group, switched off, unknown; a row that is no account stops its own postbacks alone."""
    with shop_of(kind, tmp_path) as shop, Receiver() as receiver, closing(Rig(broker)) as rig:
        for customer in CUSTOMERS:
            urls = {name: receiver.url(customer[name]) for name in customer if name.endswith("url")}
            shop.add(**customer | urls)
        calls = [
            ("acme", EVENT),
            ("acme", MO),
            ("globex", EVENT),
            ("globex", MO),
            ("initech", EVENT),
            ("hooli", EVENT),
        ]
        results = [send_postback.delay(account, event) for account, event in calls]
        rig.tick()
        rig.deliver()
        records = [rig.record(result.id) for result in results]
        assert [(record.state, record.reason) for record in records] == [
            ("delivered", ""), ("delivered", ""), ("skipped", "origin_off"), ("delivered", ""),
            ("waiting", ""), ("dead", "unknown_account"),
        ]  # fmt: skip
        posts = {post.path: post for post in receiver.received}
        assert posts.keys() == {"/acme", "/acme/mo", "/globex"}
        Webhook(SECRET).verify(posts["/acme"].body, posts["/acme"].headers, json_parse=False)
        shop.change("acme", postback_url=receiver.url("/moved"))
        shop.change("initech", rate="30/min")
        send_postback.delay("acme", EVENT)
        rig.advance(31)  # an account that cannot be sent for is looked at every 30 s
        rig.tick()
        rig.deliver()
        assert {post.path for post in receiver.received[3:]} == {"/moved", "/initech"}


@pytest.mark.parametrize("kind", [DjangoShop, SqlAlchemyShop])
def test_a_connection_that_the_database_has_closed_is_replaced(kind, tmp_path):
    """At once: a look that failed would put off for half a minute what is to be sent."""
    with shop_of(kind, tmp_path) as shop:
        shop.add(account="acme", postback_url="http://a.example/")
        assert isinstance(store(), AccountStore)
        assert find_accounts(store(), ["acme", "hooli"]).keys() == {"acme"}
        shop.lose_connection()
        assert find_accounts(store(), iter(["acme"]))["acme"].url == "http://a.example/"


def test_a_look_inside_a_transaction_of_django_leaves_its_connection_open(tmp_path):
    """As in a ``TestCase``, whose rows nobody has committed."""
    from django.db import transaction

    with shop_of(DjangoShop, tmp_path) as shop, transaction.atomic():
        shop.add(account="acme", postback_url="http://a.example/")
        assert find_accounts(store(), ["acme"])["acme"].url == "http://a.example/"
        assert shop.customers.count() == 1


def test_a_process_that_knows_nothing_of_django_sets_it_up_by_the_settings_that_the_environment_names(
    tmp_path,
):
    """A worker, or the command line: the store calls `django.setup()`."""
    program = """
from postbacks.accounts import find_accounts, store
accounts = store()
from django.db import connection
from shop.models import Customer
with connection.schema_editor() as schema:
    schema.create_model(Customer)
Customer.objects.create(account="acme", postback_url="http://a.example/")
print(find_accounts(accounts, ["acme"])["acme"].url)
"""
    env = os.environ | BASE_ENV | {
        "POSTBACKS_ACCOUNTS": DjangoShop.path,
        "DJANGO_SETTINGS_MODULE": "shop.settings",
        "PYTHONPATH": os.pathsep.join([str(django_shop.EXAMPLES), str(Path.cwd())]),
        "SHOP_DATABASE": str(tmp_path / "shop.db"),
    }  # fmt: skip

    done = subprocess.run(
        [sys.executable, "-c", program], env=env, capture_output=True, text=True, check=False, timeout=60
    )
    assert done.stdout == "http://a.example/\n", done.stderr
