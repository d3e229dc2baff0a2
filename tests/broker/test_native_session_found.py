"""What the model of sessions has found, each as the shortest run of the model that shows it."""

from typing import Any

import pytest

from tests.broker.subscribing import BIG
from tests.broker.test_native_session_model import SessionModel


class History:
    """A run of the model by hand, with one client of interest."""

    def __init__(self, *, protocol: int = 4, journaled: bool = True, **options: Any) -> None:
        self.model = SessionModel()
        defaults = {"max_inflight": 4, "max_queued": 5, "queue_full": "drop_oldest"}
        self.model.begin(protocol=protocol, journaled=journaled, group_qos=2, options=defaults | options)

    def do(self, name: str, **arguments: Any) -> "History":
        getattr(self.model, name)(**arguments)
        self.model.holds()
        return self

    def come(self, *, small: bool = False) -> "History":
        return self.do("come", place=0, window=4, aliases=0, small=small)

    def publish(self, *, qos: int = 2, topic: str = "t/0", size: int = 5) -> "History":
        return self.do("publish", place=0, qos=qos, granted=qos, topic=topic, size=size, lives_s=None, rich=False)

    def commit(self) -> "History":
        return self.do("commit", turns=99)

    def read(self) -> "History":
        return self.do("read", place=0, many=9)

    def acknowledge(self) -> "History":
        return self.do("acknowledge", place=0, which=0, refuse=0)

    def go(self) -> "History":
        return self.do("go", place=0)

    def end(self) -> None:
        self.model.teardown()


def test_a_pubrel_waits_until_a_crash_cannot_bring_its_message_back() -> None:
    waiting = History().come().publish().commit().read().acknowledge()
    waiting.go().come()
    if waiting.model.subscribers[0].inbox:
        waiting.read()
    waiting.do("crash").end()


def test_a_pubrel_goes_once_on_each_connection() -> None:
    History().come().publish().commit().read().acknowledge().go().come().commit().end()


@pytest.mark.parametrize("journaled", [False, True])
def test_what_was_sent_at_qos_2_and_is_not_wanted_any_more_is_released(journaled: bool) -> None:
    sent = History(journaled=journaled).come().publish()
    if journaled:
        sent.commit()
    sent.read().go().do("lose_the_right", place=0, topic="t/0").do("many_later", place=0)
    sent.come().publish(topic="t/1")
    sent.end()


def test_what_was_sent_at_qos_2_and_is_too_large_now_is_released() -> None:
    sent = History(protocol=5, journaled=False).come().publish(size=BIG).read()
    sent.go().come(small=True).do("many_later", place=0).publish().read().end()


def test_what_can_never_fit_makes_nothing_give_way() -> None:
    History(journaled=False, max_queued_bytes=60).publish(qos=1).publish(qos=1, size=BIG).end()


def test_an_acknowledgement_of_the_wrong_kind_changes_no_order() -> None:
    flying = History(journaled=False).come().publish(qos=2).publish(qos=2)
    flying.do("acknowledge_needlessly", place=0, kind="puback", packet_id=1).end()
