// How fast counts grow, from the last few times they were asked for. Pure.

export interface Sample {
  at: number;
  counts: ReadonlyMap<string, number>;
}

/** Enough for ten seconds at one every two: a device that reports every five does not flicker. */
const KEPT = 6;

export function withSample(before: readonly Sample[], sample: Sample): Sample[] {
  return [...before.slice(1 - KEPT), sample];
}

/** Per second since the oldest sample; null while there is only one, or when the count began again. */
export function rateOf(samples: readonly Sample[], name: string): number | null {
  const last = samples.at(-1);
  const now = last?.counts.get(name);
  const first = samples.find(({ counts }) => counts.has(name));
  const then = first?.counts.get(name);
  if (!last || !first || now === undefined || then === undefined || now < then) return null;
  const seconds = (last.at - first.at) / 1000;
  return seconds < 0.5 ? null : (now - then) / seconds;
}
