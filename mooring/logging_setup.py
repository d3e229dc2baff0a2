"""Where log lines go: stdlib loggers through structlog, as text on a terminal and JSON lines elsewhere."""

import logging
import sys

import structlog

from mooring.settings import LogSettings

#: Libraries whose INFO is noise at our level of a day's story.
QUIET = ("aiosqlite", "tortoise", "tortoise.db_client", "aiohttp.access", "transitions", "amqtt", "asyncio")


def configure(settings: LogSettings) -> None:
    """Set up the root logger once, at start. Peer bytes are escaped by the renderers: one event, one line."""
    terminal = sys.stderr.isatty()
    as_text = settings.format == "text" or (settings.format == "auto" and terminal)
    renderer: structlog.typing.Processor = (
        structlog.dev.ConsoleRenderer(colors=terminal, pad_event_to=0)
        if as_text
        else structlog.processors.JSONRenderer()
    )
    shared: list[structlog.typing.Processor] = [
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        _one_line,
    ]
    last: list[structlog.typing.Processor] = [structlog.stdlib.ProcessorFormatter.remove_processors_meta]
    if not as_text:
        last.append(structlog.processors.format_exc_info)
    handler = logging.StreamHandler()
    handler.setFormatter(structlog.stdlib.ProcessorFormatter(foreign_pre_chain=shared, processors=[*last, renderer]))
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(settings.level.upper())
    for name in QUIET:
        logging.getLogger(name).setLevel(max(logging.WARNING, root.level))


def _one_line(_: object, __: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
    """Control characters from peers must not start a second line or move a terminal's cursor."""
    text = str(event.get("event", ""))
    if any(ord(character) < 32 or ord(character) == 127 for character in text):
        event["event"] = text.encode("unicode_escape").decode("ascii")
    return event
