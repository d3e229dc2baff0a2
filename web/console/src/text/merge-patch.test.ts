import { describe, expect, it } from "vitest";
import { leaves, mergePatch } from "./merge-patch";

describe("merge patch", () => {
  it("holds only what changed, and null for what is gone", () => {
    expect(mergePatch({ a: 1, b: { c: 2, d: 3 }, e: 4, f: [1] }, { a: 1, b: { c: 5, d: 3 }, f: [1, 2] })).toEqual({
      b: { c: 5 },
      e: null,
      f: [1, 2],
    });
  });
  it("is empty when nothing changed", () => {
    expect(mergePatch({ a: { b: [1, { c: null }] } }, { a: { b: [1, { c: null }] } })).toEqual({});
  });
  it("is not fooled by names that every object has", () => {
    expect(mergePatch({}, { toString: "x" })).toEqual({ toString: "x" });
  });
  it("counts values at any depth", () => {
    expect(leaves({ a: 1, b: { c: 2, d: {} }, e: [1, 2] })).toBe(3);
  });
});
