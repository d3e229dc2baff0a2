import { describe, expect, it } from "vitest";
import { append, banded, firstWindow, joined, numeric, usualStep, withGaps } from "./series";

describe("numeric", () => {
  it("keeps what can be drawn and turns truth into steps of 0 and 1", () => {
    expect(numeric({ t: [1, 3, 4, 5], v: [1.5, true, "open", false] })).toEqual({ t: [1, 3, 5], v: [1.5, 1, 0] });
  });
  it("has nothing to draw for a metric without points", () => {
    expect(numeric(undefined)).toEqual({ t: [], v: [] });
  });
});

describe("banded", () => {
  it("puts the smallest and largest beside the mean, by time", () => {
    expect(banded({ t: [10, 20], v: [2, 3] }, { t: [10, 20], v: [1, 2] }, { t: [20], v: [9] })).toEqual({
      t: [10, 20],
      v: [2, 3],
      low: [1, 2],
      high: [2, 9],
    });
  });
});

describe("append", () => {
  it("adds newer points, corrects the newest, drops older ones and keeps its bound", () => {
    const column = { t: [1, 2], v: [1, 2] as (number | null)[] };
    expect(append(column, 3, 3, 3)).toBe(true);
    expect(append(column, 3, 3, 3)).toBe(false);
    expect(append(column, 3, 4, 3)).toBe(true);
    expect(append(column, 2, 9, 3)).toBe(false);
    expect(append(column, 5, 5, 3)).toBe(true);
    expect(column).toEqual({ t: [2, 3, 5], v: [2, 4, 5] });
  });
});

describe("joined", () => {
  it("adds only live points that the stored ones do not hold yet", () => {
    expect(joined({ t: [1, 2, 3], v: [1, 2, 3] }, { t: [2, 3, 4], v: [2, 3, 4] })).toEqual({
      t: [1, 2, 3, 4],
      v: [1, 2, 3, 4],
    });
  });
  it("does not draw a live point into the bucket that already counts it", () => {
    expect(joined({ t: [0, 60], v: [1, 2], low: [0, 1], high: [2, 3] }, { t: [90, 130], v: [5, 6] }, 60)).toEqual({
      t: [0, 60, 130],
      v: [1, 2, 6],
      low: [0, 1, 6],
      high: [2, 3, 6],
    });
  });
});

describe("withGaps", () => {
  it("breaks the line where a device was silent", () => {
    const data = withGaps({ t: [0, 10, 20, 30, 200, 210], v: [1, 1, 1, 1, 2, 2] }, 15);
    expect(data.t).toEqual([0, 10, 20, 30, 31, 200, 210]);
    expect(data.v[4]).toBeNull();
  });
  it("does not break a line for small delays", () => {
    expect(withGaps({ t: [0, 10, 25, 30], v: [1, 1, 1, 1] }, 20).v).toEqual([1, 1, 1, 1]);
  });
  it("knows the usual distance of points", () => {
    expect(usualStep([0, 10, 20, 500, 510])).toBe(10);
    expect(usualStep([0])).toBe(0);
  });
});

describe("the window at first", () => {
  it("is five minutes of a device that has just come to life", () => {
    const now = 1_800_000_000_000;
    expect(firstWindow(now - 60_000, now).id).toBe("5m");
    expect(firstWindow(now - 599_000, now).id).toBe("5m");
    expect(firstWindow(now - 600_000, now).id).toBe("15m");
    expect(firstWindow(null, now).id).toBe("15m");
  });
});
