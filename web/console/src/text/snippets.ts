// The commands a person pastes into a terminal to make a device speak. Pure.

export interface Endpoint { host: string; mqttPort: number; httpPort: number }

/** Quote for a POSIX shell. Ids and tokens need none, but nothing here relies on that. */
export function quoted(text: string): string {
  return /^[A-Za-z0-9_./:@%+=,-]+$/.test(text) ? text : `'${text.replaceAll("'", `'\\''`)}'`;
}

export function mosquitto(at: Endpoint, id: string, token: string): string {
  return [
    `mosquitto_pub -h ${quoted(at.host)} -p ${at.mqttPort} -i ${quoted(id)} -u ${quoted(id)} -P ${quoted(token)} \\`,
    `  -q 1 -t ${quoted(`devices/${id}/telemetry`)} -m '{"temperature": 21.5}'`,
  ].join("\n");
}

export function curl(at: Endpoint, token: string): string {
  return [
    `curl -X POST http://${at.host}:${at.httpPort}/device/v1/telemetry \\`,
    `  -H ${quoted(`Authorization: Bearer ${token}`)} \\`,
    `  -H 'Content-Type: application/json' -d '{"temperature": 21.5}'`,
  ].join("\n");
}

export function python(at: Endpoint, id: string, token: string): string {
  return [
    "# pip install paho-mqtt",
    "import json, paho.mqtt.publish as publish",
    `publish.single(${JSON.stringify(`devices/${id}/telemetry`)}, json.dumps({"temperature": 21.5}), qos=1,`,
    `    hostname=${JSON.stringify(at.host)}, port=${at.mqttPort}, client_id=${JSON.stringify(id)},`,
    `    auth={"username": ${JSON.stringify(id)}, "password": ${JSON.stringify(token)}})`,
  ].join("\n");
}
