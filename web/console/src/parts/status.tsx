// State is always three things: a shape, a word and a colour. All states of the product, in one table.
import type { ReactNode } from "react";

export type Tone = "ok" | "wait" | "bad" | "busy" | "off";
type Shape = "disc" | "ring" | "dashed" | "slash" | "check" | "cross" | "triangle" | "half" | "arrow" | "clock";

const states: Record<string, [word: string, tone: Tone, shape: Shape]> = {
  online: ["Online", "ok", "disc"],
  offline: ["Offline", "off", "ring"],
  stale: ["Stale", "wait", "half"],
  never_seen: ["Never seen", "off", "dashed"],
  disabled: ["Disabled", "wait", "slash"],
  queued: ["Queued", "off", "clock"],
  sent: ["Sent", "busy", "arrow"],
  accepted: ["Accepted", "busy", "arrow"],
  running: ["Running", "busy", "half"],
  succeeded: ["Succeeded", "ok", "check"],
  failed: ["Failed", "bad", "cross"],
  rejected: ["Rejected", "bad", "slash"],
  expired: ["Expired", "wait", "triangle"],
  cancelled: ["Cancelled", "off", "slash"],
  offered: ["Offered", "busy", "arrow"],
  downloading: ["Downloading", "busy", "half"],
  verifying: ["Verifying", "busy", "half"],
  installing: ["Installing", "busy", "half"],
  rebooting: ["Rebooting", "busy", "half"],
  timed_out: ["Timed out", "bad", "triangle"],
  draft: ["Draft", "off", "dashed"],
  finished: ["Finished", "ok", "check"],
  aborted: ["Aborted", "bad", "slash"],
  ok: ["OK", "ok", "disc"],
  waiting: ["Waiting", "wait", "triangle"],
  off: ["Off", "off", "slash"],
  down: ["Down", "bad", "cross"],
  full: ["Full", "bad", "triangle"],
  info: ["Info", "off", "ring"],
  warning: ["Warning", "wait", "triangle"],
  error: ["Error", "bad", "cross"],
  active: ["Active", "ok", "disc"],
  revoked: ["Revoked", "off", "slash"],
  connected: ["Connected", "ok", "disc"],
  disconnected: ["Disconnected", "off", "ring"],
};

const shapes: Record<Shape, ReactNode> = {
  disc: <circle cx="5" cy="5" r="4" fill="currentColor" />,
  ring: <circle cx="5" cy="5" r="3.4" fill="none" stroke="currentColor" strokeWidth="1.4" />,
  dashed: <circle cx="5" cy="5" r="3.4" fill="none" stroke="currentColor" strokeWidth="1.4" strokeDasharray="2 1.6" />,
  slash: (
    <g fill="none" stroke="currentColor" strokeWidth="1.4">
      <circle cx="5" cy="5" r="3.8" />
      <path d="m2.4 7.6 5.2-5.2" />
    </g>
  ),
  check: <path d="m1 5.5 2.8 2.800L9 2" fill="none" stroke="currentColor" strokeWidth="1.8" />,
  cross: <path d="m1.5 1.5 7 7M8.5 1.500l-7 7" fill="none" stroke="currentColor" strokeWidth="1.8" />,
  triangle: <path d="M5 .8 9.6 9.200H.4Z" fill="currentColor" />,
  half: (
    <g>
      <circle cx="5" cy="5" r="3.8" fill="none" stroke="currentColor" strokeWidth="1.4" />
      <path d="M5 1.200a3.8 3.8 0 0 1 0 7.600Z" fill="currentColor" />
    </g>
  ),
  arrow: <path d="M.8 5h7M5 1.8 8.4 5 5 8.2" fill="none" stroke="currentColor" strokeWidth="1.6" />,
  clock: (
    <g fill="none" stroke="currentColor" strokeWidth="1.4">
      <circle cx="5" cy="5" r="3.8" />
      <path d="M5 2.800V5l1.6 1" />
    </g>
  ),
};

export function toneOf(state: string): Tone {
  return states[state]?.[1] ?? "off";
}

export function wordOf(state: string): string {
  return states[state]?.[0] ?? state;
}

/** `quiet` keeps the word in the text's colour: for states that are as they should be. */
export function Status({
  state,
  word,
  quiet,
  testid = "status",
}: {
  state: string;
  word?: string;
  quiet?: boolean;
  testid?: string;
}) {
  const [name, tone, shape] = states[state] ?? [state.slice(0, 24), "off" as const, "ring" as const];
  return (
    <span
      className="status"
      data-testid={testid}
      data-status={state}
      data-tone={tone}
      data-quiet={(quiet ?? (tone === "ok" || tone === "off")) || undefined}
    >
      <svg width="10" height="10" viewBox="0 0 10 10" aria-hidden="true">
        {shapes[shape]}
      </svg>
      {word ?? name}
    </span>
  );
}
