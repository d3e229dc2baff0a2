import { expect, test } from "vitest";
import { hex } from "./hex";

test("bytes are shown sixteen a line, with what is printable beside them", () => {
  expect(hex(btoa("\x00\x1b[31mA"))).toBe(`0000  ${"00 1b 5b 33 31 6d 41".padEnd(47)}  ..[31mA`);
  expect(hex(btoa("x".repeat(17))).split("\n")[1]).toBe(`0010  ${"78".padEnd(47)}  x`);
  expect(hex("")).toBe("");
});
