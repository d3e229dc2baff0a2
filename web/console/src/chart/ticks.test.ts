import { describe, expect, it } from "vitest";
import { padded, tickLabels } from "./ticks";

describe("labels of the y axis", () => {
  it("tell neighbours apart in a narrow range of big numbers", () => {
    expect(tickLabels([49_120, 49_140, 49_160], 20)).toEqual(["49120", "49140", "49160"]);
    expect(tickLabels([49_120.5, 49_121, 49_121.5], 0.5)).toEqual(["49120.5", "49121.0", "49121.5"]);
    expect(tickLabels([1_000_000.25, 1_000_000.5], 0.25)).toEqual(["1000000.25", "1000000.50"]);
  });
  it("are short where that is enough", () => {
    expect(tickLabels([0, 20_000, 40_000], 20_000)).toEqual(["0", "20k", "40k"]);
    expect(tickLabels([10_000, 12_500, 15_000], 2_500)).toEqual(["10000", "12500", "15000"]);
    expect(tickLabels([0, 2_500_000, 5_000_000, 10_000_000], 2_500_000)).toEqual(["0", "2.5M", "5.0M", "10.0M"]);
    expect(tickLabels([0, 500, 1000], 500)).toEqual(["0", "500", "1000"]);
  });
  it("have the same digits on the whole axis, and no nought with a sign", () => {
    expect(tickLabels([-0.1, -1e-17, 0.1], 0.1)).toEqual(["-0.1", "0", "0.1"]);
    expect(tickLabels([20.25, 20.5, 20.75, 21], 0.25)).toEqual(["20.25", "20.50", "20.75", "21.00"]);
  });
  it("use powers of ten at both ends of the scale", () => {
    expect(tickLabels([1e13, 1.5e13], 5e12)).toEqual(["1.0e+13", "1.5e+13"]);
    expect(tickLabels([0, 2e-6, 4e-6], 2e-6)).toEqual(["0", "2e-6", "4e-6"]);
  });
  it("are all different, whatever the range", () => {
    for (let magnitude = -8; magnitude < 14; magnitude++)
      for (const step of [1, 2, 2.5, 5].map((n) => n * 10 ** (magnitude - 3))) {
        const from = Math.round((3 * 10 ** magnitude) / step) * step;
        const labels = tickLabels(
          [0, 1, 2, 3, 4].map((n) => from + n * step),
          step,
        );
        expect(new Set(labels).size, `${step} from ${from}: ${labels.join(" ")}`).toBe(5);
      }
  });
});

describe("the room for values", () => {
  it("is never nothing", () => {
    expect(padded(null, null)).toEqual([0, 1]);
    expect(padded(0, 0)).toEqual([-1, 1]);
    expect(padded(50, 50)).toEqual([45, 55]);
    expect(padded(0, 100)).toEqual([-8, 108]);
  });
});
