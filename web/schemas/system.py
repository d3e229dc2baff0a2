"""The server itself: overview, health, audit, broker sessions. No I/O."""

from enum import StrEnum
from typing import Any

from pydantic import Field

from web.broker_figures import FigureGroup, FigureKind, FigureUnit
from web.schemas.base import In, Out, Page, Paged, Time


class DeviceCounts(Out):
    total: int
    online: int
    offline: int
    stale: int
    never_seen: int
    disabled: int


class JournalState(Out):
    lag_s: float = Field(description="Age of the oldest reading that is not in the store yet.")
    bytes: int
    limit_bytes: int = Field(description="What it may hold; devices are held back when it is full.")
    batches: int


class DeadLetterCounts(Out):
    total: int = Field(description="Refused messages that are kept.")
    reasons: dict[str, int]


class StoreState(Out):
    kind: str
    state: str = Field(description='"ok", or "waiting" while the store does not take readings.')
    detail: str
    points: int | None
    size_bytes: int | None


class PartState(StrEnum):
    OK = "ok"
    WAITING = "waiting"
    """Of the store: readings stay in the journal until it takes them. Of an external broker: it is tried again."""
    FULL = "full"
    FAILING = "failing"
    DOWN = "down"


class Part(Out):
    name: str
    state: PartState
    detail: str


class PendingCommands(Out):
    pending: int


class RunningCampaigns(Out):
    running: int


class Endpoints(Out):
    """Where devices reach the server. 127.0.0.1 and 0.0.0.0 stand for the name by which you reach it."""

    device_http: str = Field(examples=["http://127.0.0.1:8081"])
    mqtt: str | None = Field(examples=["mqtt://127.0.0.1:1883"])
    mqtt_ws: str | None = Field(description="MQTT over WebSocket.")
    mqtt_tls: str | None = Field(description="MQTT over TLS.")


class Overview(Out):
    devices: DeviceCounts
    firmware: dict[str, int] = Field(description="Devices by firmware version.")
    messages_per_s: float
    readings_per_s: float
    refused_per_s: float
    journal: JournalState
    store: StoreState
    dead_letters: DeadLetterCounts
    commands: PendingCommands
    campaigns: RunningCampaigns
    parts: list[Part]
    endpoints: Endpoints
    version: str
    uptime_s: float


class Health(Out):
    status: str


class Readiness(Out):
    status: str = Field(description='"ready" or "not ready".')
    parts: list[Part]


class AuditActor(Out):
    kind: str
    id: str
    address: str


class AuditTarget(Out):
    kind: str
    id: str


class AuditEntry(Out):
    id: str
    at: Time
    actor: AuditActor
    action: str
    target: AuditTarget
    before: Any
    after: Any


class AuditPage(Page[AuditEntry]):
    pass


class AuditQuery(Paged):
    actor: str = Field(default="", max_length=64, description="User name or id.")
    action: str = Field(default="", max_length=64, description='Such as "device.create"; "device." for all of them.')
    target: str = Field(default="", max_length=128, description="Id of what was acted on.")


_HEAD = r"^[0-9]{1,18}:[0-9a-f]{64}$"


class AuditHead(Out):
    head: str = Field(
        description="The newest entry, as number:digest. Keep it elsewhere, and give it to the next check."
    )
    anchor: str = Field(description="The newest entry that was dropped for its age.")


class AuditVerifyQuery(In):
    head: str | None = Field(default=None, pattern=_HEAD, description="A head that was kept elsewhere.")


class AuditFault(Out):
    seq: int | None = Field(description="The entry's number; null where it has none.")
    detail: str


class AuditReport(Out):
    ok: bool
    entries: int
    head: str
    anchor: str
    faults: list[AuditFault] = Field(description="The first 100.")
    faults_total: int


class Session(Out):
    client_id: str
    username: str
    address: str
    protocol: int = Field(description="3, 4 (MQTT 3.1.1) or 5.")
    connected: bool
    connected_at: Time | None
    keepalive_s: int
    clean_start: bool
    subscriptions: list[str]
    queued: int
    inflight: int
    slowed: bool = Field(description="It has sent faster than it may, and is not read from for the moment.")


class SessionPage(Page[Session]):
    pass


class SessionQuery(Paged):
    q: str = Field(default="", max_length=128, description="Part of the client id, user name or address.")


class Kicked(Out):
    kicked: int = Field(description="Sessions dropped, connected or kept.")


class KickQuery(In):
    client_id: str = Field(
        default="", max_length=1024, description="Only the session with this client id; empty: all of the user name."
    )


class TopicLevel(Out):
    """One level of the topic tree; its counts are those of the topic and of all topics below."""

    level: str = Field(examples=["pump-7"])
    topic: str = Field(description="The levels down to here.", examples=["devices/pump-7"])
    children: int = Field(description="Topics further down; 0: nothing to unfold.")
    messages: int = Field(description="Since the topics are remembered; it may begin again at 0.")
    retained: int = Field(description="Retained messages.")
    subscribers: int | None = Field(
        description="Who gets what is published to this very topic; null where nothing is published to it."
    )


class TopicPage(Page[TopicLevel]):
    pass


class TopicQuery(In):
    prefix: str = Field(
        default="",
        max_length=1024,
        description="Which levels: those below `devices/`, or those of `devices/pu`, that begin with pu.",
        examples=["devices/pump-7/"],
    )
    cursor: str | None = Field(default=None, max_length=6000, description="`next_cursor` of the page before.")
    limit: int = Field(default=200, ge=1, le=500, description="Most items on one page.")


class BrokerListener(Out):
    transport: str = Field(description='"tcp", "tls", "ws", "wss" or "unix".')
    address: str = Field(description="Host and port as it listens, or a path.", examples=["127.0.0.1:1883"])


class DiskState(StrEnum):
    OFF = "off"
    """Nothing is kept on disk: sessions and retained messages end with the process."""
    OK = "ok"
    FAILING = "failing"
    """Acknowledgements wait until the disk takes them."""


class BrokerDisk(Out):
    state: DiskState
    detail: str


class BrokerFigure(Out):
    name: str
    metric: str = Field(description="Its name at /metrics.")
    group: FigureGroup
    kind: FigureKind
    unit: FigureUnit
    value: int | float
    bound: int | None = Field(description="The most there may be; null where there is no such bound.")
    about: str


class Broker(Out):
    version: str
    uptime_s: float
    listeners: list[BrokerListener]
    disk: BrokerDisk
    figures: list[BrokerFigure] = Field(description="In the order in which people read them.")
