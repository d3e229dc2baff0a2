"""Acknowledgements: in order, each with what became of its message."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from broker.native.owed import Batch, refusal
from broker.native.session import Receipt
from broker.packets import MQTT_5, Puback, Pubrec
from broker.reason import TRANSIENT, ReasonCode
from tests.broker.paper import packets_in

OK, BUSY, NO = ReasonCode.SUCCESS, ReasonCode.SERVER_BUSY, ReasonCode.NOT_AUTHORIZED


def puback(packet_id: int) -> bytes:
    return b"\x40\x02" + packet_id.to_bytes(2, "big")


def pubrec(packet_id: int) -> bytes:
    return b"\x50\x02" + packet_id.to_bytes(2, "big")


def batch(*entries: bytes, codes: tuple[ReasonCode, ...] = (), fixed: tuple[int, ...] = ()) -> Batch:
    """One the sink has been asked about, and has answered."""
    owed = Batch(list(entries), frozenset(fixed) if codes else None, 0, 0, 0.0)
    owed.codes = codes
    return owed


def sent(owed: Batch, *, mqtt5: bool = False) -> tuple[bytes, ReasonCode | None]:
    return owed.acknowledgements(mqtt5=mqtt5, tell_why=True, limit=0)


def test_without_a_sink_all_is_acknowledged() -> None:
    assert sent(batch(puback(1), b"", pubrec(2))) == (puback(1) + pubrec(2), None)


def test_mqtt_5_clients_are_told_what_was_refused() -> None:
    data, why = sent(batch(puback(1), b"", puback(2), pubrec(3), codes=(OK, NO, NO, BUSY)), mqtt5=True)
    assert why is None
    first, second, third = packets_in(data, MQTT_5)
    assert first == Puback(packet_id=1)
    assert second == Puback(packet_id=2, reason=NO, properties={"reason_string": "not authorized"})
    assert isinstance(third, Pubrec)
    assert (third.packet_id, third.reason) == (3, ReasonCode.QUOTA_EXCEEDED)


def test_before_mqtt_5_what_is_refused_for_good_is_acknowledged_like_the_rest() -> None:
    assert sent(batch(puback(1), pubrec(2), codes=(NO, NO))) == (puback(1) + pubrec(2), None)


def test_before_mqtt_5_what_may_be_taken_later_ends_the_connection_without_an_acknowledgement() -> None:
    assert sent(batch(puback(1), puback(2), puback(3), codes=(OK, BUSY, OK))) == (puback(1), BUSY)


@pytest.mark.parametrize("mqtt5", [False, True])
def test_nobody_is_told_of_qos_0(mqtt5: bool) -> None:
    assert sent(batch(b"", b"", codes=(BUSY, NO)), mqtt5=mqtt5) == (b"", None)


def test_what_the_sink_is_not_asked_about_has_its_answer_already() -> None:
    already = refusal(puback(2), NO, tell_why=False, limit=0)
    data, _ = sent(batch(puback(1), already, puback(3), codes=(OK, NO), fixed=(1,)), mqtt5=True)
    assert [(each.packet_id, each.reason) for each in packets_in(data, MQTT_5)] == [(1, OK), (2, NO), (3, NO)]  # type: ignore[union-attr]


def test_what_came_again_has_the_answer_of_the_first_one() -> None:
    owed = batch(puback(1), pubrec(2), codes=(OK,), fixed=(1,))
    owed.awaited[1] = NO
    data, _ = sent(owed, mqtt5=True)
    assert [each.reason for each in packets_in(data, MQTT_5)] == [OK, NO]  # type: ignore[union-attr]
    alone = batch(pubrec(2))
    alone.awaited[0] = BUSY
    assert sent(alone) == (b"", BUSY)


def test_receipts_are_settled_and_refused_identifiers_are_free_again() -> None:
    owed = batch(b"", pubrec(7), puback(8), pubrec(9), codes=(OK, NO, NO, OK))
    refused, taken = Receipt(), Receipt()
    owed.receipts = [(1, refused), (3, taken)]
    told: list[ReasonCode] = []
    refused.when_settled(told.append)
    assert owed.settle() == [7]
    assert (refused.code, taken.code) == (NO, OK)
    refused.when_settled(told.append)
    assert told == [NO, NO]


def test_without_a_sink_receipts_are_settled_as_taken() -> None:
    owed, receipt = batch(pubrec(7)), Receipt()
    owed.receipts = [(0, receipt)]
    assert owed.settle() == []
    assert receipt.code is OK


CODES = st.sampled_from([OK, OK, OK, BUSY, NO, ReasonCode.QUOTA_EXCEEDED, ReasonCode.PAYLOAD_FORMAT_INVALID])


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, 2), CODES), max_size=20), st.booleans())
def test_any_batch_is_answered_in_order(messages: list[tuple[int, ReasonCode]], mqtt5: bool) -> None:
    entries = [[b"", puback(place + 1), pubrec(place + 1)][qos] for place, (qos, _) in enumerate(messages)]
    data, why = sent(batch(*entries, codes=tuple(code for _, code in messages)), mqtt5=mqtt5)
    expected: list[tuple[type, int, bool]] = []
    ending = None
    for place, (qos, code) in enumerate(messages):
        if qos and not mqtt5 and code in TRANSIENT:
            ending = code
            break
        if qos:
            expected.append((Puback if qos == 1 else Pubrec, place + 1, mqtt5 and code.is_error))
    packets = list(packets_in(data, MQTT_5 if mqtt5 else 4))
    assert [(type(each), each.packet_id, each.reason >= 0x80) for each in packets] == expected  # type: ignore[union-attr]
    assert why is ending


@given(st.sampled_from([code for code in ReasonCode if code.is_error]), st.booleans(), st.booleans())
def test_a_refusal_can_always_be_said(code: ReasonCode, exactly_once: bool, tell_why: bool) -> None:
    data = refusal((pubrec if exactly_once else puback)(5), code, tell_why=tell_why, limit=0)
    (packet,) = packets_in(data, MQTT_5)
    assert isinstance(packet, Pubrec if exactly_once else Puback)
    assert packet.packet_id == 5
    assert packet.reason >= 0x80
    assert bool(packet.properties) == tell_why


def test_a_refusal_that_is_too_large_goes_without_its_reason_string() -> None:
    assert len(refusal(puback(5), NO, tell_why=True, limit=8)) <= 8
