// Times as people read them. Pure: the clock is passed in.

const steps: [limit_s: number, unit_s: number, name: string][] = [
  [60, 1, "s"],
  [3600, 60, "min"],
  [86_400, 3600, "h"],
  [86_400 * 60, 86_400, "d"],
  [86_400 * 730, 86_400 * 30.44, "mo"],
];

/** "12 s", "4 min", "3 h", "5 d", "2 y": one unit, rounded down. */
export function span(ms: number): string {
  const seconds = Math.max(0, ms) / 1000;
  for (const [limit, unit, name] of steps) if (seconds < limit) return `${Math.floor(seconds / unit)} ${name}`;
  return `${Math.floor(seconds / (86_400 * 365.25))} y`;
}

/** "12 s ago", "in 4 min", "now". */
export function relative(at: number, now: number): string {
  const age = now - at;
  if (Math.abs(age) < 1500) return "now";
  return age > 0 ? `${span(age)} ago` : `in ${span(-age)}`;
}

const absoluteFormat = new Intl.DateTimeFormat("en-GB", {
  year: "numeric",
  month: "short",
  day: "2-digit",
  hour: "2-digit",
  minute: "2-digit",
  second: "2-digit",
  timeZoneName: "short",
  hour12: false,
});

/** Local time with its zone, then UTC: what the hover shows. */
export function absolute(at: number): string {
  if (!Number.isFinite(at)) return "unknown time";
  return `${absoluteFormat.format(at)}  ·  ${new Date(at).toISOString()}`;
}

const clockFormat = new Intl.DateTimeFormat("en-GB", {
  hour: "2-digit",
  minute: "2-digit",
  second: "2-digit",
  hour12: false,
});

export function clock(at: number): string {
  return clockFormat.format(at);
}

const dayFormat = new Intl.DateTimeFormat("en-GB", {
  day: "2-digit",
  month: "short",
  hour: "2-digit",
  minute: "2-digit",
  hour12: false,
});

/** The time of an entry in a list: the clock for today, the day before it otherwise. */
export function stamp(at: number, now: number): string {
  return Math.abs(now - at) < 43_200_000 ? clock(at) : dayFormat.format(at);
}

const hourFormat = new Intl.DateTimeFormat("en-GB", { hour: "2-digit", minute: "2-digit", hour12: false });
const dateFormat = new Intl.DateTimeFormat("en-GB", { day: "numeric", month: "short" });

/** A mark on a time axis whose marks are `stepMs` apart: no more of the time than tells them apart. */
export function tickText(at: number, stepMs: number): string {
  const time = new Date(at);
  if (stepMs < 60_000) return clock(at);
  const isMidnight = time.getHours() === 0 && time.getMinutes() === 0;
  return stepMs >= 86_400_000 || isMidnight ? dateFormat.format(at) : hourFormat.format(at);
}

/** How long something ran: "850 ms", "4.2 s", "3 min 20 s", "2 d 4 h". */
export function duration(ms: number): string {
  if (ms < 1000) return `${Math.round(ms)} ms`;
  const s = ms / 1000;
  if (s < 60) return `${s < 10 ? s.toFixed(1) : Math.floor(s)} s`;
  if (s < 3600) return `${Math.floor(s / 60)} min ${Math.floor(s % 60)} s`;
  if (s < 86_400) return `${Math.floor(s / 3600)} h ${Math.floor((s % 3600) / 60)} min`;
  return `${Math.floor(s / 86_400)} d ${Math.floor((s % 86_400) / 3600)} h`;
}
