"""The broker's sessions."""

import base64
import binascii

from broker.engine import SessionInfo
from fleet.clock import rfc3339_or_none
from fleet.views import Role
from web.api.layer import Routes
from web.api.problem import Problem
from web.call import Call
from web.parts import Sessions
from web.schemas.base import DeviceId
from web.schemas.system import Kicked, Session, SessionPage, SessionQuery

broker = Routes("Broker", "Sessions of the embedded MQTT broker.")


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
    after = _client_id(query.cursor) if query.cursor else ""
    rest = [session for session in found if session.client_id > after]
    items = [_shape(session) for session in rest[: query.limit]]
    more = len(rest) > query.limit
    return SessionPage(items=items, next_cursor=_cursor(items[-1].client_id) if more else None, total=len(found))


@broker.delete(
    "/api/v1/broker/sessions/{username}", summary="Drop a client's sessions", role=Role.OPERATOR, raises=(404, 409)
)
async def kick_session(call: Call, username: DeviceId) -> Kicked:
    """All connections and kept sessions of a user name. The client may come back: disable the device to keep it out."""
    kicked = await _sessions(call).kick(username)
    if not kicked:
        raise Problem(404, f"there is no session of {username!r}")
    await call.fleet.audit.record(call.actor, "session.kick", "session", username)
    return Kicked(kicked=kicked)


def _sessions(call: Call) -> Sessions:
    sessions = call.parts.sessions
    if sessions is None:
        raise Problem(409, "the broker is not part of this server: ask it for its sessions")
    return sessions


def _cursor(client_id: str) -> str:
    return base64.urlsafe_b64encode(client_id.encode()).decode()


def _client_id(cursor: str) -> str:
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
    )
