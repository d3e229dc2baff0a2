import { describe, expect, it } from "vitest";
import { parsed, payloadOf, starter, written } from "./profile";

const stored = {
  name: "pump",
  version: 3,
  devices: 2,
  created_at: "2026-11-20T12:00:00.000Z",
  updated_at: "2026-11-20T12:00:00.000Z",
  description: "",
  retention_days: null,
  expected_interval_s: 60,
  telemetry: {
    metrics: { t: { type: "number", unit: null, min: null, max: 5 }, scale: { type: null }, description: {} },
    unknown_metrics: "accept",
    schema: { properties: { a: { const: null, description: "" } }, required: [] },
    each: null,
    mapping: [{ from: "/a", metric: "t", scale: 1, offset: 0, type: null, required: true }],
    time: null,
    binary: {
      byte_order: "little",
      fields: [{ type: "u8", bits: [], metric: "t", scale: 0.5, offset: 0 }, { skip: 1 }],
    },
  },
};

describe("a profile in the editor", () => {
  it("says what was written, and not what goes without saying", () => {
    expect(written(stored)).toEqual({
      expected_interval_s: 60,
      telemetry: {
        metrics: { t: { type: "number", max: 5 }, scale: {}, description: {} },
        schema: { properties: { a: { const: null, description: "" } }, required: [] },
        mapping: [{ from: "/a", metric: "t", required: true }],
        binary: { byte_order: "little", fields: [{ type: "u8", metric: "t", scale: 0.5 }, { skip: 1 }] },
      },
    });
  });
  it("keeps what a metric is called, whatever that is", () => {
    const names = { metrics: { schema: { unit: null, min: 1 }, metrics: { max: 2, unit: null } } };
    expect(written({ telemetry: names })).toEqual({
      telemetry: { metrics: { schema: { min: 1 }, metrics: { max: 2 } } },
    });
  });
  it("is an object, or told what is wrong", () => {
    expect(parsed(JSON.stringify(starter))).toEqual(starter);
    expect(parsed("[]")).toBe("A profile is a JSON object: {…}");
    expect(parsed("null")).toBe("A profile is a JSON object: {…}");
    expect(parsed("{")).toMatch(/^Not JSON: /);
  });
});

describe("a payload to try", () => {
  it("may be written in hex", () => {
    expect(payloadOf("hex", "08 69")).toEqual({ payload: "CGk=", encoding: "base64" });
    expect(payloadOf("hex", "0x08,0xFF\n00:80")).toEqual({ payload: "CP8AgA==", encoding: "base64" });
    expect(payloadOf("hex", "")).toEqual({ payload: "", encoding: "base64" });
  });
  it("is said to be no hex", () => {
    for (const text of ["0", "xy", "08 6"]) expect(payloadOf("hex", text)).toMatch(/two digits/);
  });
  it("goes as it is otherwise", () => {
    expect(payloadOf("text", " {} ")).toEqual({ payload: " {} ", encoding: "text" });
    expect(payloadOf("base64", "CGk=")).toEqual({ payload: "CGk=", encoding: "base64" });
  });
});
