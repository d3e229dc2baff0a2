"""The two ways a simulated device reaches the server: MQTT and the device HTTP API."""
