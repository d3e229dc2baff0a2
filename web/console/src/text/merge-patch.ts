// JSON merge patches (RFC 7396). Pure.
import type { Json, JsonObject } from "../api/shapes";

function isObject(value: Json | undefined): value is JsonObject {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

/** The smallest patch that turns `before` into `after`; a key that is gone becomes null. */
export function mergePatch(before: JsonObject, after: JsonObject): JsonObject {
  const patch: JsonObject = {};
  for (const key of Object.keys(before)) if (!Object.hasOwn(after, key)) patch[key] = null;
  for (const [key, value] of Object.entries(after)) {
    const old = Object.hasOwn(before, key) ? before[key] : undefined;
    if (isObject(value) && isObject(old)) {
      const inner = mergePatch(old, value);
      if (Object.keys(inner).length > 0) patch[key] = inner;
    } else if (JSON.stringify(old) !== JSON.stringify(value)) patch[key] = value;
  }
  return patch;
}

/** How many values an object holds, at any depth. */
export function leaves(value: Json): number {
  return isObject(value) ? Object.values(value).reduce<number>((sum, each) => sum + leaves(each), 0) : 1;
}
