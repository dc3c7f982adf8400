"""Account store on SQLAlchemy: POSTBACKS_ACCOUNTS=sqlalchemy_accounts:SqlAlchemyAccounts, and SHOP_DATABASE_URL."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable

from sqlalchemy import JSON, String, create_engine, select
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

from postbacks.accounts import Account, Secret, build_account
from postbacks.errors import InvalidAccount

log = logging.getLogger(__name__)


class Base(DeclarativeBase):
    """Tables of the application."""


class Customer(Base):
    """A customer, and where their postbacks go."""

    __tablename__ = "customers"

    account: Mapped[str] = mapped_column(String(128), primary_key=True)
    postback_url: Mapped[str | None] = mapped_column(String(2000))
    mo_url: Mapped[str | None] = mapped_column(String(2000))
    origins_off: Mapped[list[str]] = mapped_column(JSON, default=list)
    signing_secret: Mapped[str | None] = mapped_column(String(200))
    rate: Mapped[str | None] = mapped_column(String(20))


class SqlAlchemyAccounts:
    """Accounts of the customers' table; made once a process."""

    def __init__(self) -> None:
        # The pool connects with the first query; `pool_pre_ping` replaces connections that the database has closed.
        self.engine = create_engine(os.environ["SHOP_DATABASE_URL"], pool_pre_ping=True)

    def get_many(self, names: Iterable[str]) -> dict[str, Account]:
        """Return the accounts of these names; leave out those that do not exist."""
        with Session(self.engine) as session:
            rows = session.scalars(select(Customer).where(Customer.account.in_(list(names))))
            return {row.account: _account_of(row) for row in rows}


def _account_of(row: Customer) -> Account:
    """Build an account from a row; a bad row stops its own postbacks alone."""
    try:
        return build_account(
            row.account,
            url=row.postback_url,
            mo_url=row.mo_url,
            off=frozenset(row.origins_off),
            secrets=(Secret(value=row.signing_secret),) if row.signing_secret else (),
            rate=row.rate,
        )
    except InvalidAccount as error:
        log.warning("the row of customer %s is no account: %s", row.account, error)
        return Account(name=row.account, unreadable=True)
