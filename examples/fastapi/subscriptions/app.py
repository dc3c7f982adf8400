"""The API: ``uvicorn --factory subscriptions.app:create_app``."""

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Annotated

from fastapi import Depends, FastAPI, Path, Request
from fastapi.responses import JSONResponse
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker, create_async_engine

from postbacks import BrokerError, InvalidEvent, send_postback
from subscriptions.models import Subscription, create_missing_tables

#: Seconds after which a caller is asked to try again while the broker is away.
RETRY_AFTER_S = 5


async def open_session(request: Request) -> AsyncIterator[AsyncSession]:
    """Open a session for a request."""
    async with request.app.state.sessions() as session:
        yield session


#: In real life the caller's credentials say which account is meant.
AccountName = Annotated[str, Path(pattern=r"^[A-Za-z0-9][A-Za-z0-9._@:+-]{0,127}$")]
OpenSession = Annotated[AsyncSession, Depends(open_session)]


def create_app(database_url: str | None = None) -> FastAPI:
    """Make the application on a database: the one given, or ``DATABASE_URL``."""
    engine = create_async_engine(
        database_url or os.environ.get("DATABASE_URL", "sqlite+aiosqlite:///subscriptions.db")
    )

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        async with engine.begin() as connection:
            await connection.run_sync(create_missing_tables)
        try:
            yield
        finally:
            await engine.dispose()

    app = FastAPI(title="Subscriptions", lifespan=lifespan)
    app.state.sessions = async_sessionmaker(engine, expire_on_commit=False)

    @app.exception_handler(InvalidEvent)
    async def refuse(_: Request, error: InvalidEvent) -> JSONResponse:
        """Answer 422 with each tag at fault; nothing was stored."""
        problems = [{"tag": tag, "msg": why} for tag, why in error.problems]
        return JSONResponse({"detail": problems}, status_code=422)

    @app.exception_handler(BrokerError)
    async def ask_to_repeat(_: Request, error: BrokerError) -> JSONResponse:
        """Answer 503: the subscription is stored, and the same call again sends its postback."""
        return JSONResponse(
            {"detail": f"Stored, but its postback is not sent yet: {error}"},
            status_code=503,
            headers={"Retry-After": str(RETRY_AFTER_S)},
        )

    @app.get("/health")
    async def health() -> dict[str, bool]:
        return {"ok": True}

    @app.put("/accounts/{account}/campaigns/{campaign_id}/subscribers/{mobile}")
    async def subscribe(
        account: AccountName,
        campaign_id: str,
        mobile: str,
        session: OpenSession,
    ) -> dict[str, str]:
        """Store a subscription, and send its postback once it is committed.

        Whoever calls repeats the call until it is answered with 200. The repeated call finds the subscription, and sends
        the same postback if none is known to be sent: no crash between commit and call loses it.
        """
        subscription = await stored(session, Subscription.begun_now(account, campaign_id, mobile))
        if subscription.postback_sent_at is None:
            await send(subscription)
            subscription.postback_sent_at = datetime.now(UTC)
            await session.commit()
        return {"postback_id": str(subscription.postback_id)}

    return app


async def stored(session: AsyncSession, new: Subscription) -> Subscription:
    """Commit a subscription; return the one that is there if the number is subscribed already."""
    key = (new.account, new.campaign_id, new.mobile)
    if (known := await session.get(Subscription, key)) is not None:
        return known
    session.add(new)
    try:
        await session.commit()
    except IntegrityError:  # another request was quicker
        await session.rollback()
        return await session.get_one(Subscription, key)
    return new


async def send(subscription: Subscription) -> None:
    """Send the postback in a thread: a call waits for the broker, and the event loop must not."""
    await asyncio.to_thread(
        send_postback.apply_async,
        (subscription.account, subscription.event),
        task_id=subscription.postback_id,
    )
