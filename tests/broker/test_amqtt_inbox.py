"""Acknowledgements: in order, each only when its message is settled, never for what may be taken later."""

from broker.amqtt_engine.inbox import Inbox, Slot
from broker.engine import Publish
from broker.reason import ReasonCode


def inbox(limit: int = 10, limit_bytes: int = 1000) -> Inbox:
    return Inbox(limit=limit, limit_bytes=limit_bytes)


def message(size: int = 1) -> Publish:
    return Publish(topic="a", payload=b"x" * size)


def test_a_later_message_waits_for_an_earlier_one() -> None:
    box = inbox()
    first, second = box.take(message(), b"1"), box.take(message(), b"2")
    second.code = ReasonCode.SUCCESS
    assert box.due() == (b"", None)
    first.code = ReasonCode.SUCCESS
    assert box.due() == (b"12", None)
    assert box.due() == (b"", None)


def test_a_final_refusal_is_acknowledged() -> None:
    box = inbox()
    box.take(message(), b"1").code = ReasonCode.PAYLOAD_FORMAT_INVALID
    assert box.due() == (b"1", None)


def test_a_transient_refusal_is_not_acknowledged_nor_is_anything_behind_it() -> None:
    box = inbox()
    for ack, code in ((b"1", ReasonCode.SUCCESS), (b"2", ReasonCode.SERVER_BUSY), (b"3", ReasonCode.SUCCESS)):
        box.take(message(), ack).code = code
    assert box.due() == (b"1", ReasonCode.SERVER_BUSY)


def test_a_message_of_qos_0_has_no_acknowledgement_and_no_say() -> None:
    box = inbox()
    box.take(message(), None).code = ReasonCode.SERVER_BUSY
    assert box.due() == (b"", None)


def test_it_is_full_by_number_and_by_bytes_until_something_is_settled() -> None:
    box = inbox(limit=2)
    slot = box.take(message(), b"1")
    assert not box.full
    box.take(message(), b"2")
    assert box.full
    slot.code = ReasonCode.SUCCESS
    box.due()
    assert not box.full
    box = inbox(limit_bytes=100)
    box.take(message(100), b"1")
    assert box.full


def test_a_batch_is_what_came_since_the_last_one() -> None:
    box = inbox()
    box.take(message(), b"1")
    box.owe(Slot(b"2", code=ReasonCode.NOT_AUTHORIZED))
    batch, slots = box.batch()
    assert (len(batch), len(slots)) == (1, 1)
    assert box.batch() == ([], [])
