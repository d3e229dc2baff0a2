import { describe, expect, it } from "vitest";
import { clip, middle, visible } from "./clip";
import { bytes, percent, rate, reading, tally } from "./numbers";
import { curl, mosquitto, python, quoted } from "./snippets";
import { duration, relative, span } from "./time";

describe("time", () => {
  it("says how long ago in one unit", () => {
    const now = 1_800_000_000_000;
    expect([0, 1_499, 12_000, 240_000, 3 * 3_600_000, 5 * 86_400_000].map((age) => relative(now - age, now))).toEqual([
      "now",
      "now",
      "12 s ago",
      "4 min ago",
      "3 h ago",
      "5 d ago",
    ]);
    expect(relative(now + 240_000, now)).toBe("in 4 min");
  });
  it("keeps counting for years", () => {
    expect(span(86_400_000 * 800)).toBe("2 y");
    expect(span(86_400_000 * 90)).toBe("2 mo");
  });
  it("gives durations in the two units that matter", () => {
    expect([850, 4_200, 200_000, 187_200_000].map(duration)).toEqual(["850 ms", "4.2 s", "3 min 20 s", "2 d 4 h"]);
  });
});

describe("numbers", () => {
  it("shows readings without a tail of digits", () => {
    expect([21.5, 0.1 + 0.2, 1349.81, 49_123.26, 1_234_567.08, 1_234_567, 1e-7, true, "open"].map(reading)).toEqual([
      "21.5",
      "0.3",
      "1,349.81",
      "49,123.3",
      "1,234,567.1",
      "1,234,567",
      "1.000e-7",
      "true",
      "open",
    ]);
  });
  it("never rounds something to nothing or almost all to all", () => {
    expect([percent(1, 1000), percent(999, 1000), percent(0, 5), percent(5, 5), percent(0, 0)]).toEqual([
      "<1 %",
      ">99 %",
      "0 %",
      "100 %",
      "0 %",
    ]);
  });
  it("keeps counts of years short", () => {
    expect([0, 999_999_999, 1e9, 1.2345e12].map(tally)).toEqual(["0", "999,999,999", "1,000 M", "1,234,500 M"]);
  });
  it("keeps rates and sizes short", () => {
    expect([0, 0.42, 12.6, 1234, 54_321].map(rate)).toEqual(["0", "0.4", "13", "1,234", "54.3 k"]);
    expect([999, 1500, 999_600, 12_000_000].map(bytes)).toEqual(["999 B", "1.5 kB", "1.0 MB", "12 MB"]);
  });
});

describe("hostile text", () => {
  it("shows characters that would turn or hide what follows", () => {
    expect(visible("ab\u202ecd\u0007\u200b")).toBe("ab\\u202ecd\\u0007\\u200b");
  });
  it("cuts at the end and in the middle", () => {
    expect(clip("x".repeat(1_000_000), 5)).toBe("xxxx…");
    expect(middle("0123456789", 5)).toBe("01…89");
    expect(middle("pump-7", 10)).toBe("pump-7");
  });
});

describe("snippets", () => {
  it("quotes what a shell would read", () => {
    expect(quoted("a'b $(x)")).toBe(`'a'\\''b $(x)'`);
    expect(mosquitto({ host: "gw.local", port: 1884, tls: false }, "pump-7", "tok")).toContain(
      "-h gw.local -p 1884 -i pump-7 \\\n  -u pump-7 -P tok \\\n",
    );
    expect(curl("http://[::1]:81", "tok")).toContain("'http://[::1]:81/device/v1/telemetry'");
  });
  it("uses TLS where the broker does", () => {
    const at = { host: "b.example", port: 8883, tls: true };
    expect(mosquitto(at, "pump-7", "tok")).toContain("-p 8883 --tls-use-os-certs -i pump-7");
    expect(python(at, "pump-7", "tok")).toContain('port=8883, tls={}, client_id="pump-7"');
  });
});
