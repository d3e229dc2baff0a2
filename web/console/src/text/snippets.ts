// The commands a person pastes into a terminal to make a device speak. Pure.
import type { MqttPlace } from "./endpoint";

/** Quote for a POSIX shell. Ids and tokens need none, but nothing here relies on that. */
export function quoted(text: string): string {
  return /^[A-Za-z0-9_./:@%+=,-]+$/.test(text) ? text : `'${text.replaceAll("'", `'\\''`)}'`;
}

export function mosquitto(at: MqttPlace, id: string, token: string): string {
  const tls = at.tls ? "--tls-use-os-certs " : "";
  return [
    `mosquitto_pub -h ${quoted(at.host)} -p ${at.port} ${tls}-i ${quoted(id)} \\`,
    `  -u ${quoted(id)} -P ${quoted(token)} \\`,
    `  -q 1 -t ${quoted(`devices/${id}/telemetry`)} -m '{"temperature": 21.5}'`,
  ].join("\n");
}

/** `http`: the device API's URL. */
export function curl(http: string, token: string): string {
  return [
    `curl -X POST ${quoted(`${http}/device/v1/telemetry`)} \\`,
    `  -H ${quoted(`Authorization: Bearer ${token}`)} \\`,
    `  -H 'Content-Type: application/json' -d '{"temperature": 21.5}'`,
  ].join("\n");
}

export function python(at: MqttPlace, id: string, token: string): string {
  return [
    "# pip install paho-mqtt",
    "import json, paho.mqtt.publish as publish",
    `publish.single(${JSON.stringify(`devices/${id}/telemetry`)}, json.dumps({"temperature": 21.5}), qos=1,`,
    `    hostname=${JSON.stringify(at.host)}, port=${at.port},${at.tls ? " tls={}," : ""} client_id=${JSON.stringify(id)},`,
    `    auth={"username": ${JSON.stringify(id)}, "password": ${JSON.stringify(token)}})`,
  ].join("\n");
}
