"""Our own engine: MQTT 3.1, 3.1.1 and 5 in plain Python on asyncio, uvloop where it is installed.

From the wire inwards: `listeners` and `websocket` make a `connection` of each client, if the `gate` has room. What it
sends goes through `reading`, the hot path; what is rare is in `admission` (CONNECT), `publishing` (PUBLISH that is not
plain) and `requests` (the other packets). All share the `hub`. Pure, without I/O or clock: `message`, `session`,
`queue`, `router`, `shared`, `retained`, `owed`, `wheel`, `allowance`. `keeping` and `store` are what survives a crash.
"""

from broker.native.auth import AuthExchange, AuthMethod, AuthStep
from broker.native.broker import Broker, TopicInfo
from broker.native.options import BrokerOptions

__all__ = ["AuthExchange", "AuthMethod", "AuthStep", "Broker", "BrokerOptions", "TopicInfo"]
