// Profiles as text in an editor, and payloads as people write them. Pure.
import type { Json, JsonObject } from "../api/shapes";

/** What a new profile begins with: one of each, to be changed or taken out. */
export const starter: JsonObject = {
  description: "",
  telemetry: {
    metrics: { temperature: { type: "number", unit: "Cel", min: -40, max: 125 } },
    mapping: [{ from: "/data/temp", metric: "temperature", scale: 0.1 }],
    binary: { byte_order: "big", fields: [{ type: "i16", metric: "temperature", scale: 0.01 }] },
  },
};

const kept = ["description", "retention_days", "expected_interval_s", "telemetry"];
const usual: JsonObject = { scale: 1, offset: 0, required: false, signed: false, count: 1, unknown_metrics: "accept" };
const empty = ["description", "metrics", "mapping", "bits"];

/** A profile as the server gives it, without its name and what the server says of it, and without what goes without
 * saying. A JSON Schema stays as it is: there null means something. */
export function written(profile: object): JsonObject {
  const all = profile as JsonObject;
  return Object.fromEntries(
    kept.flatMap((key) => (key in all && !goesWithoutSaying(key, all[key]!) ? [[key, brief(key, all[key]!)]] : [])),
  );
}

function brief(key: string, value: Json): Json {
  if (key === "schema" || typeof value !== "object" || value === null) return value;
  if (Array.isArray(value)) return value.map((each) => brief("", each));
  // The keys of metrics are names that people give: whatever they are, what they name is said.
  const isNames = key === "metrics";
  return Object.fromEntries(
    Object.entries(value).flatMap(([name, each]) =>
      !isNames && goesWithoutSaying(name, each) ? [] : [[name, brief(isNames ? "" : name, each)]],
    ),
  );
}

function goesWithoutSaying(key: string, value: Json): boolean {
  if (value === null) return true;
  if (empty.includes(key)) return value === "" || (typeof value === "object" && Object.keys(value).length === 0);
  return key in usual && usual[key] === value;
}

/** The object that a text is, or what is wrong with it. */
export function parsed(text: string): JsonObject | string {
  try {
    const value = JSON.parse(text) as Json;
    const isObject = typeof value === "object" && value !== null && !Array.isArray(value);
    return isObject ? value : "A profile is a JSON object: {…}";
  } catch (error) {
    return `Not JSON: ${error instanceof Error ? error.message.slice(0, 140) : ""}`;
  }
}

export type PayloadForm = "text" | "hex" | "base64";

/** A payload as the server takes it, or what is wrong with it. */
export function payloadOf(form: PayloadForm, text: string): { payload: string; encoding: "text" | "base64" } | string {
  if (form !== "hex") return { payload: text, encoding: form };
  const digits = text.replace(/0x|[\s,:]/gi, "");
  if (!/^([0-9a-f]{2})*$/i.test(digits)) return "Hex is two digits a byte, such as 08 69";
  const bytes = digits.match(/../g) ?? [];
  return { payload: btoa(bytes.map((pair) => String.fromCharCode(parseInt(pair, 16))).join("")), encoding: "base64" };
}
