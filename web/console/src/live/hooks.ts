// The page's one live connection, as hooks. Events change what TanStack Query holds, in place; after a reconnect
// everything on the page is asked for again.
import { useEffect, useRef, useState, useSyncExternalStore } from "react";
import { queryClient } from "../api/queries";
import { accessToken, onNewToken, refresh } from "../api/session";
import { LiveClient, type LiveState, type SocketLike } from "./client";

export const live = new LiveClient({
  connect: () =>
    new WebSocket(`${location.protocol === "https:" ? "wss" : "ws"}://${location.host}/api/v1/live`) as SocketLike,
  token: (renew) => (renew ? refresh() : accessToken()),
  now: () => Date.now(),
  random: () => Math.random(),
  after: (ms, run) => {
    const timer = setTimeout(run, ms);
    return () => clearTimeout(timer);
  },
});

onNewToken((token) => live.renewed(token));
live.onReturn(() => void queryClient.invalidateQueries());
addEventListener("online", () => live.retryNow());

export function useLiveState(): LiveState {
  return useSyncExternalStore(live.watch, live.getState);
}

/** Follow one channel while the component is there. `channel: null` follows nothing. */
export function useLive(
  channel: string | null,
  device: string | undefined,
  onEvent: (data: unknown) => void,
): { dropped: number } {
  const latest = useRef(onEvent);
  latest.current = onEvent;
  const [dropped, setDropped] = useState(0);
  useEffect(() => {
    if (channel === null) return;
    setDropped(0);
    return live.subscribe(device === undefined ? { channel } : { channel, device }, {
      event: (data) => latest.current(data),
      dropped: (count) => setDropped((before) => before + count),
    });
  }, [channel, device]);
  return { dropped };
}
