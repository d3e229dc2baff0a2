"""Frames that a browser sends over a live view's WebSocket. No I/O."""

from enum import StrEnum
from typing import Annotated, Literal

from pydantic import Field, TypeAdapter

from web.schemas.base import DeviceId, In

FrameId = Annotated[int, Field(strict=True, ge=0, le=2**53)] | Annotated[str, Field(min_length=1, max_length=64)]


class LiveChannel(StrEnum):
    TELEMETRY = "telemetry"
    PRESENCE = "presence"
    COMMANDS = "commands"
    CAMPAIGNS = "campaigns"
    MESSAGES = "messages"
    OVERVIEW = "overview"


class AuthFrame(In):
    type: Literal["auth"]
    token: str = Field(min_length=1, max_length=4096)


class SubscribeFrame(In):
    type: Literal["subscribe"]
    id: FrameId
    channel: LiveChannel
    device: DeviceId | None = None


class UnsubscribeFrame(In):
    type: Literal["unsubscribe"]
    id: FrameId


Frame = Annotated[AuthFrame | SubscribeFrame | UnsubscribeFrame, Field(discriminator="type")]
FRAME: TypeAdapter[AuthFrame | SubscribeFrame | UnsubscribeFrame] = TypeAdapter(Frame)
