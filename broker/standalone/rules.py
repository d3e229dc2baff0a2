"""What a user may do: topic filters in which %u and %c stand for user name and client id. No I/O, no clock."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

from broker.topics import is_filter, matches

_VARIABLE = re.compile(r"%(.?)", re.DOTALL)
_SHARE = "$share/"


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """Filters as they are written; nothing is allowed but what they cover."""

    publish: tuple[str, ...] = ()
    subscribe: tuple[str, ...] = ()
    needs_client_id: bool = field(init=False)
    """Whether what a client may do depends on the id it gives itself."""

    def __post_init__(self) -> None:
        needs = any("c" in _VARIABLE.findall(text) for text in (*self.publish, *self.subscribe))
        object.__setattr__(self, "needs_client_id", needs)

    def bind(self, *, username: str, client_id: str) -> "Rules":
        """The rules of one client. A rule with a name that could widen it is left out [CVE-2017-7650]."""
        publish = (_substitute(text, username, client_id) for text in self.publish)
        subscribe = (_substitute(text, username, client_id) for text in self.subscribe)
        return Rules(
            publish=tuple(text for text in publish if text is not None),
            subscribe=tuple(text for text in subscribe if text is not None),
        )

    def may_publish(self, topic: str) -> bool:
        """Of bound rules."""
        return not topic.startswith("$") and any(matches(text, topic) for text in self.publish)

    def may_subscribe(self, topic_filter: str) -> bool:
        """Of bound rules: whether one covers all that the filter can match. Shared subscriptions are no different."""
        if topic_filter.startswith(_SHARE):
            topic_filter = topic_filter.removeprefix(_SHARE).partition("/")[2]
        return is_filter(topic_filter) and any(covers(text, topic_filter) for text in self.subscribe)


NOTHING = Rules()
EVERYTHING = Rules(publish=("#",), subscribe=("#", "$SYS/#"))


def covers(allowed: str, wanted: str) -> bool:
    """Whether each topic that the filter `wanted` matches is matched by the filter `allowed` too.

    Only "+/#" is not taken for "#", though the two match the same.
    """
    mine, theirs = allowed.split("/"), wanted.split("/")
    if theirs[0].startswith("$") and mine[0] in ("+", "#"):  # [MQTT-4.7.2-1]
        return False
    for place, level in enumerate(mine):
        if level == "#":
            return True
        if place >= len(theirs) or theirs[place] == "#" or level not in ("+", theirs[place]):
            return False
    return len(mine) == len(theirs)


def is_plain(name: str) -> bool:
    """Whether a user name or client id may stand in a rule: nothing in it means anything in a topic filter."""
    return bool(name) and not any(mark in name for mark in "+#/$\0")


def fault_of(rule: str, *, publishing: bool, variables: Sequence[str] = ("u", "c")) -> str | None:
    """What is wrong with a rule, in words; None when nothing is."""
    for variable in _VARIABLE.findall(rule):
        if variable not in (*variables, "%"):
            known = ", ".join(f"%{one}" for one in variables)
            return f"has %{variable}; there is {known} here, and %% for a percent sign"
    if rule.startswith(_SHARE):
        return "names a shared subscription; write the filter alone, it holds for shared ones too"
    if publishing and rule.startswith("$"):
        return "begins with $: no client may publish there"
    if not is_filter(_substitute(rule, "x", "x") or ""):
        return "is no topic filter: + and # fill a whole level, # only the last one"
    return None


def _substitute(rule: str, username: str, client_id: str) -> str | None:
    """In one pass, so that a name holding %c stays what it is."""
    names = {"u": username, "c": client_id, "%": "%"}
    if any(variable != "%" and not is_plain(names[variable]) for variable in _VARIABLE.findall(rule)):
        return None
    return _VARIABLE.sub(lambda found: names[found[1]], rule)
