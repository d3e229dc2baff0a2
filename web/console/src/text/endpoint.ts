// Where a device reaches this server, made of what the server says of itself and of the name the browser knows it by.
// Pure.

/** As in the overview: URLs, without credentials. */
export interface Endpoints {
  device_http: string;
  mqtt: string | null;
}

export interface MqttPlace {
  host: string;
  port: number;
  tls: boolean;
}

export interface Endpoint {
  /** Without a slash at its end. */
  http: string;
  /** null: devices cannot come by MQTT. */
  mqtt: MqttPlace | null;
}

const anyone = /^(0\.0\.0\.0|127(\.\d+){3}|\[::1?\]|localhost)$/;

/** `browserHost` (location.hostname) stands in for addresses that mean "this machine" or "all of its addresses". */
export function endpointOf(endpoints: Endpoints, browserHost: string): Endpoint {
  return { http: httpPlace(endpoints.device_http, browserHost), mqtt: mqttPlace(endpoints.mqtt, browserHost) };
}

function httpPlace(url: string, browserHost: string): string {
  const place = new URL(url);
  if (anyone.test(place.hostname)) place.hostname = browserHost;
  return place.href.replace(/\/+$/, "");
}

function mqttPlace(url: string | null, browserHost: string): MqttPlace | null {
  const found = url && /^(mqtts?|ssl|tls|tcp):\/\/(\[[^\]]*\]|[^:/]+)(?::(\d+))?/.exec(url);
  if (!found) return null;
  const tls = found[1] !== "mqtt" && found[1] !== "tcp";
  const host = anyone.test(found[2]!) ? browserHost : found[2]!;
  return { host: host.replace(/^\[|\]$/g, ""), port: Number(found[3] ?? (tls ? 8883 : 1883)), tls };
}
