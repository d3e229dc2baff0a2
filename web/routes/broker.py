"""The broker: its sessions, its topics, how it does."""

import base64
import binascii

from broker.engine import SessionInfo
from fleet.clock import rfc3339_or_none
from fleet.views import Role
from web.api.layer import Routes
from web.api.problem import Problem
from web.broker_figures import MEANINGS, prometheus_name
from web.call import Call
from web.parts import BrokerOperations, Sessions
from web.schemas.base import DeviceId
from web.schemas.system import (
    Broker,
    BrokerDisk,
    BrokerFigure,
    BrokerListener,
    DiskState,
    Kicked,
    KickQuery,
    Session,
    SessionPage,
    SessionQuery,
    TopicLevel,
    TopicPage,
    TopicQuery,
)

broker = Routes("Broker", "The embedded MQTT broker. Of an external one nothing is known here: 409.")


@broker.get("/api/v1/broker", summary="How the broker does", role=Role.VIEWER, raises=(409,))
async def get_broker(call: Call) -> Broker:
    """Its listeners, its disk, and every figure with what it means. 409 with an engine that does not tell."""
    found = _operations(call)
    metrics, bounds = found.metrics(), found.bounds()
    if found.disk_trouble is not None:
        disk = BrokerDisk(state=DiskState.FAILING, detail=found.disk_trouble)
    else:
        disk = BrokerDisk(state=DiskState.OK if "persistence_commits" in metrics else DiskState.OFF, detail="")
    figures = [
        BrokerFigure(
            name=name,
            metric=prometheus_name(name),
            group=meaning.group,
            kind=meaning.kind,
            unit=meaning.unit,
            value=metrics[name],
            bound=bounds.get(name),
            about=meaning.about,
        )
        for name, meaning in MEANINGS.items()
        if name in metrics
    ]
    return Broker(
        version=call.parts.version,
        uptime_s=round(metrics["uptime_s"], 1),
        listeners=[BrokerListener(transport=name, address=address) for name, address in found.listeners().items()],
        disk=disk,
        figures=figures,
    )


@broker.get("/api/v1/broker/topics", summary="One level of the topic tree", role=Role.VIEWER, raises=(409,))
async def list_topics(call: Call, query: TopicQuery) -> TopicPage:
    """Topics that were published to lately or have a retained message, as the levels that continue a prefix.

    409 with an engine that does not tell.
    """
    # A level may be empty, a cursor may not: hence the slash before it.
    after = None if query.cursor is None else _text(query.cursor)[1:]
    levels = await _operations(call).topic_levels(query.prefix, after=after, limit=query.limit)
    items = [
        TopicLevel(
            level=found.level,
            topic=found.topic,
            children=found.below,
            messages=found.messages,
            retained=found.retained,
            subscribers=found.subscribers,
        )
        for found in levels.items
    ]
    next_cursor = _cursor(f"/{items[-1].level}") if levels.more else None
    return TopicPage(items=items, next_cursor=next_cursor, total=levels.total)


@broker.get("/api/v1/broker/sessions", summary="MQTT sessions", role=Role.VIEWER, raises=(409,))
async def list_sessions(call: Call, query: SessionQuery) -> SessionPage:
    """Connected ones, and those kept for clients that will be back, by client id. 409 with an external broker."""
    needle = query.q.lower()
    found = sorted(
        (
            session
            for session in _sessions(call).sessions()
            if not needle
            or needle in session.client_id.lower()
            or needle in session.username.lower()
            or needle in session.address
        ),
        key=lambda session: session.client_id,
    )
    after = _text(query.cursor) if query.cursor else ""
    rest = [session for session in found if session.client_id > after]
    items = [_shape(session) for session in rest[: query.limit]]
    more = len(rest) > query.limit
    return SessionPage(items=items, next_cursor=_cursor(items[-1].client_id) if more else None, total=len(found))


@broker.delete(
    "/api/v1/broker/sessions/{username}", summary="Drop a client's sessions", role=Role.OPERATOR, raises=(404, 409)
)
async def kick_session(call: Call, username: DeviceId, query: KickQuery) -> Kicked:
    """All connections and kept sessions of a user name, or one of them; what waits for it is forgotten.

    The client may come back: disable the device to keep it out.
    """
    kicked = await _kick(_sessions(call), username, query.client_id)
    if not kicked:
        raise Problem(404, f"there is no such session of {username!r}")
    dropped = {"client_id": query.client_id} if query.client_id else None
    await call.fleet.audit.record(call.actor, "session.kick", "session", username, before=dropped)
    return Kicked(kicked=kicked)


async def _kick(sessions: Sessions, username: str, client_id: str) -> int:
    if not client_id:
        return await sessions.kick(username)
    if isinstance(sessions, BrokerOperations):
        return int(await sessions.kick_client(username, client_id))
    client_ids = {session.client_id for session in sessions.sessions() if session.username == username}
    if client_id not in client_ids:
        return 0
    if len(client_ids) > 1:
        raise Problem(409, "this broker engine drops all sessions of a user name together, and there are more")
    return await sessions.kick(username)


def _operations(call: Call) -> BrokerOperations:
    sessions = _sessions(call)
    if not isinstance(sessions, BrokerOperations):
        raise Problem(409, "this broker engine tells of its sessions only")
    return sessions


def _sessions(call: Call) -> Sessions:
    sessions = call.parts.sessions
    if sessions is None:
        raise Problem(409, "the broker is not part of this server: its own tools show it")
    return sessions


def _cursor(text: str) -> str:
    return base64.urlsafe_b64encode(text.encode()).decode()


def _text(cursor: str) -> str:
    try:
        return base64.b64decode(cursor, altchars=b"-_", validate=True).decode()
    except (ValueError, binascii.Error) as error:
        raise Problem(422, "cursor: not one of ours", errors=[("cursor", "not one of ours")]) from error


def _shape(session: SessionInfo) -> Session:
    return Session(
        client_id=session.client_id,
        username=session.username,
        address=session.address,
        protocol=session.protocol,
        connected=session.connected,
        connected_at=rfc3339_or_none(session.connected_at),
        keepalive_s=session.keepalive_s,
        clean_start=session.clean_start,
        subscriptions=list(session.subscriptions),
        queued=session.queued,
        inflight=session.inflight,
        slowed=session.slowed,
    )
