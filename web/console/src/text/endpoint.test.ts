import { describe, expect, it } from "vitest";
import { endpointOf } from "./endpoint";

function at(device_http: string, mqtt: string | null, host = "gw.local") {
  return endpointOf({ device_http, mqtt }, host);
}

describe("where devices reach the server", () => {
  it("is the browser's host for addresses that say no more than this machine", () => {
    for (const host of ["127.0.0.1", "0.0.0.0", "[::]", "[::1]", "localhost"])
      expect(at(`http://${host}:8081`, `mqtt://${host}:1884`)).toEqual({
        http: "http://gw.local:8081",
        mqtt: { host: "gw.local", port: 1884, tls: false },
      });
  });
  it("is what the server says where that is a name", () => {
    expect(at("https://d.example/gate/", "mqtts://broker.example")).toEqual({
      http: "https://d.example/gate",
      mqtt: { host: "broker.example", port: 8883, tls: true },
    });
    expect(at("http://192.0.2.7:81", null)).toEqual({ http: "http://192.0.2.7:81", mqtt: null });
  });
  it("takes a browser's IPv6 address with brackets in URLs and without elsewhere", () => {
    expect(at("http://0.0.0.0:81", "mqtt://0.0.0.0:1883", "[2001:db8::1]")).toEqual({
      http: "http://[2001:db8::1]:81",
      mqtt: { host: "2001:db8::1", port: 1883, tls: false },
    });
  });
});
