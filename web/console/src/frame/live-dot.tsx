// The state of the live connection, in one place: live, reconnecting with a countdown, paused.
// A click pauses and resumes.
import { Button, Tooltip } from "@mantine/core";
import type { LiveState } from "../live/client";
import { live, useLiveState } from "../live/hooks";
import { useTick } from "../parts/ago";

const looks: Record<LiveState["kind"], [word: string, tone: string, hint: string]> = {
  idle: ["Off", "off", "Not connected"],
  connecting: ["Connecting", "wait", "Connecting to the server"],
  live: ["Live", "ok", "What you see follows the server. Click to pause."],
  reconnecting: ["Reconnecting", "wait", "The connection was lost. Click to try now."],
  paused: ["Paused", "off", "What you see stands still. Click to follow again."],
};

export function LiveDot() {
  const state = useLiveState();
  const left = useTick((now) => (state.kind === "reconnecting" ? Math.max(0, Math.ceil((state.at - now) / 1000)) : 0));
  const [word, tone, hint] = looks[state.kind];
  const act = (): void => {
    if (state.kind === "live") live.pause();
    else if (state.kind === "paused") live.resume();
    else live.retryNow();
  };
  return (
    <Tooltip label={hint}>
      <Button
        variant="subtle"
        color="gray"
        px={8}
        onClick={act}
        data-testid="live-state"
        data-state={state.kind}
        data-tone={tone}
        aria-label={`Live connection: ${word}`}
        fw={400}
      >
        <svg
          width="9"
          height="9"
          viewBox="0 0 10 10"
          aria-hidden="true"
          style={{ color: "var(--tone)", marginRight: 6 }}
        >
          {state.kind === "live" ? (
            <circle cx="5" cy="5" r="4.5" fill="currentColor" />
          ) : state.kind === "paused" ? (
            <path d="M2 1v8M8 1v8" stroke="currentColor" strokeWidth="2.4" />
          ) : (
            <circle cx="5" cy="5" r="3.8" fill="none" stroke="currentColor" strokeWidth="2" strokeDasharray="4 2" />
          )}
        </svg>
        <span role="status">
          {word}
          {state.kind === "reconnecting" && left > 0 ? ` in ${left} s` : ""}
        </span>
      </Button>
    </Tooltip>
  );
}
