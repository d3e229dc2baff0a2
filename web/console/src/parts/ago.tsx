// Relative times that count on by themselves. One ticker for the page; a component renders only when its text changes.
import { useSyncExternalStore } from "react";
import { absolute, relative, stamp } from "../text/time";

const watchers = new Set<() => void>();
let now = Date.now();
let ticker: ReturnType<typeof setInterval> | undefined;

function watch(watcher: () => void): () => void {
  watchers.add(watcher);
  ticker ??= setInterval(() => {
    now = Date.now();
    for (const each of watchers) each();
  }, 1000);
  return () => {
    watchers.delete(watcher);
    if (watchers.size === 0) {
      clearInterval(ticker);
      ticker = undefined;
    }
  };
}

/** Follow a value that is made of the clock, each second. */
export function useTick<T extends string | number>(make: (now: number) => T): T {
  return useSyncExternalStore(watch, () => make(ticker ? now : (now = Date.now())));
}

export function Ago({ at, never = "never" }: { at: string | number | null | undefined; never?: string }) {
  const time = at === null || at === undefined ? NaN : typeof at === "number" ? at : Date.parse(at);
  const text = useTick((now) => (Number.isNaN(time) ? never : relative(time, now)));
  if (Number.isNaN(time)) return <span className="dim">{never}</span>;
  return (
    <time dateTime={new Date(time).toISOString()} title={absolute(time)} className="nowrap">
      {text}
    </time>
  );
}

export function At({ at }: { at: string }) {
  const time = Date.parse(at);
  const text = useTick((now) => (Number.isNaN(time) ? at.slice(0, 30) : stamp(time, now)));
  return (
    <time dateTime={at} title={absolute(time)}>
      {text}
    </time>
  );
}
