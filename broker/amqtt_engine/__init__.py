"""An engine on the library amqtt (MQTT 3.1.1).

What is amqtt's: the packet codec, the session record, the table of sessions with their expiry, the broker's life
cycle. What is ours, because amqtt 0.12.1 leaves it unbounded, undecided or lossy (all read in its source):

* listeners and reading: amqtt waits for ever for a CONNECT and believes any declared length;
* who may connect and do what: amqtt throws an old session away before it asks for the password;
* acknowledgements: amqtt sends PUBACK as soon as a message is in an unbounded queue;
* deliveries: amqtt makes a task for each, gives up after 5 s without PUBACK, and tests every filter for every message;
* the session's state machine: amqtt takes a general one, which costs 20 KB and a millisecond a connection.
"""

from broker.amqtt_engine.engine import AmqttEngine
from broker.amqtt_engine.options import AmqttOptions

__all__ = ["AmqttEngine", "AmqttOptions"]
