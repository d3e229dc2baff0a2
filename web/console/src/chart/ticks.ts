// The y axis: how much room the values get, and labels with just enough digits to tell neighbours apart. Pure.

const units: [size: number, suffix: string][] = [
  [1, ""],
  [1e3, "k"],
  [1e6, "M"],
  [1e9, "G"],
];

/** The lowest and highest value with a little air around them. */
export function padded(low: number | null, high: number | null): [number, number] {
  if (low === null || high === null || !Number.isFinite(low) || !Number.isFinite(high)) return [0, 1];
  if (low === high) {
    const room = Math.abs(low) * 0.1 || 1;
    return [low - room, high + room];
  }
  const room = (high - low) * 0.08;
  return [low - room, high + room];
}

/** One label a mark, all with the same unit and digits; `step` is the distance of two marks. */
export function tickLabels(marks: number[], step: number): string[] {
  const largest = Math.max(0, ...marks.map(Math.abs));
  if (largest === 0 || step <= 0) return marks.map((mark) => String(mark));
  if (largest >= 1e12 || largest < 1e-4) {
    const digits = Math.min(Math.max(Math.floor(Math.log10(largest)) - Math.floor(Math.log10(step)), 0), 12);
    return marks.map((mark) => (mark === 0 ? "0" : mark.toExponential(digits)));
  }
  const ways = units
    .filter(([size]) => size === 1 || largest >= size * 10)
    .map(([size, suffix]) => {
      const digits = decimals(step / size);
      // Sums of steps miss nought by a hair, which would read "-0.0".
      return marks.map((mark) => (Math.abs(mark) < step / 1e6 ? "0" : (mark / size).toFixed(digits) + suffix));
    });
  return ways.reduce((best, way) => (width(way) < width(best) ? way : best));
}

/** How many decimals `step` needs: 2.5 needs one, 0.25 two. */
function decimals(step: number): number {
  for (let digits = 0; digits < 12; digits++) {
    const scaled = step * 10 ** digits;
    if (scaled >= 0.5 && Math.abs(scaled - Math.round(scaled)) < 1e-6) return digits;
  }
  return 12;
}

function width(labels: string[]): number {
  return Math.max(0, ...labels.map(({ length }) => length));
}
