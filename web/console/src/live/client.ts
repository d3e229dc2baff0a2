// One WebSocket for the page, carrying all its subscriptions. It logs in, comes back after a loss with growing
// pauses, and subscribes again by itself. No React, no globals: the socket, the clock and the token are passed in.

export type LiveState =
  | { kind: "idle" }
  | { kind: "connecting" }
  | { kind: "live" }
  | { kind: "reconnecting"; at: number; tries: number }
  | { kind: "paused" };

export interface Topic {
  channel: string;
  device?: string;
}
export interface Listener {
  event(data: unknown): void;
  dropped?(count: number): void;
  failed?(detail: string): void;
}

export interface SocketLike {
  onopen: (() => void) | null;
  onclose: ((event: { code: number }) => void) | null;
  onmessage: ((event: { data: unknown }) => void) | null;
  onerror: (() => void) | null;
  send(text: string): void;
  close(): void;
}

export interface LiveParts {
  connect(): SocketLike;
  /** `renew`: the server refused the one it was given. */
  token(renew: boolean): Promise<string | null>;
  now(): number;
  random(): number;
  after(ms: number, run: () => void): () => void;
}

/** Silence this long means a dead connection, whatever the browser believes: the server speaks each 20 s. */
export const SILENCE_MS = 50_000;

/** The close code of a server that does not take the token, or no longer. */
const UNAUTHORIZED = 4401;

/** 0.5 s to 1 s at first, doubling to at most 15 s to 30 s. */
export function backoff(tries: number, random: number): number {
  const top = Math.min(1000 * 2 ** tries, 30_000);
  return top / 2 + (top / 2) * random;
}

interface Subscription {
  id: number;
  topic: Topic;
  listeners: Set<Listener>;
}

export class LiveClient {
  private state: LiveState = { kind: "idle" };
  private socket: SocketLike | null = null;
  private open = false;
  private tries = 0;
  private lastId = 0;
  private lost = false;
  private paused = false;
  private refused = false;
  private cancelTimer: (() => void) | null = null;
  private cancelSilence: (() => void) | null = null;
  private readonly subscriptions = new Map<string, Subscription>();
  private readonly watchers = new Set<() => void>();
  private readonly returnWatchers = new Set<() => void>();

  constructor(private readonly parts: LiveParts) {}

  getState = (): LiveState => this.state;

  watch = (watcher: () => void): (() => void) => {
    this.watchers.add(watcher);
    return () => this.watchers.delete(watcher);
  };

  /** Called each time the connection is back after a loss or a pause: what was loaded before may be old. */
  onReturn(watcher: () => void): () => void {
    this.returnWatchers.add(watcher);
    return () => this.returnWatchers.delete(watcher);
  }

  start(): void {
    if (this.socket || this.paused || this.cancelTimer) return;
    void this.dial();
  }

  /** Log out: close, and forget that anything was lost. */
  stop(): void {
    this.drop();
    this.tries = 0;
    this.lost = false;
    this.become({ kind: "idle" });
  }

  pause(): void {
    this.paused = true;
    this.lost = true;
    this.drop();
    this.become({ kind: "paused" });
  }

  resume(): void {
    this.paused = false;
    this.tries = 0;
    this.start();
  }

  /** Do not wait for the countdown (the browser is online again, the user clicked). */
  retryNow(): void {
    if (this.state.kind !== "reconnecting") return;
    this.cancelTimer?.();
    this.cancelTimer = null;
    void this.dial();
  }

  /** The token was renewed: tell the server before the old one runs out. */
  renewed(token: string): void {
    if (this.open) this.send({ type: "auth", token });
  }

  subscribe(topic: Topic, listener: Listener): () => void {
    const key = `${topic.channel} ${topic.device ?? ""}`;
    let subscription = this.subscriptions.get(key);
    if (subscription && subscription.listeners.size > 0 && this.open) {
      // The newcomer needs a snapshot too: ask again under a new id.
      this.send({ type: "unsubscribe", id: subscription.id });
      subscription.id = ++this.lastId;
      this.send({ type: "subscribe", id: subscription.id, ...topic });
    } else if (!subscription) {
      subscription = { id: ++this.lastId, topic, listeners: new Set() };
      this.subscriptions.set(key, subscription);
      if (this.open) this.send({ type: "subscribe", id: subscription.id, ...topic });
    }
    const own = subscription;
    own.listeners.add(listener);
    return () => {
      if (!own.listeners.delete(listener) || own.listeners.size > 0) return;
      this.subscriptions.delete(key);
      if (this.open) this.send({ type: "unsubscribe", id: own.id });
    };
  }

  private async dial(): Promise<void> {
    this.become({ kind: "connecting" });
    let token: string | null;
    try {
      token = await this.parts.token(this.refused);
      this.refused = false;
    } catch {
      this.retryLater();
      return;
    }
    // While the token was fetched, somebody may have paused or logged out.
    if (this.state.kind !== "connecting" || this.socket) return;
    if (token === null) {
      this.become({ kind: "idle" });
      return;
    }
    const socket = this.parts.connect();
    this.socket = socket;
    const mine = (): boolean => this.socket === socket;
    socket.onopen = () => {
      if (!mine()) return;
      this.open = true;
      this.send({ type: "auth", token });
      for (const { id, topic } of this.subscriptions.values()) this.send({ type: "subscribe", id, ...topic });
      this.heard();
      this.become({ kind: "live" });
      if (this.lost) for (const watcher of this.returnWatchers) watcher();
      this.lost = false;
    };
    socket.onmessage = ({ data }) => {
      if (!mine()) return;
      this.heard();
      this.receive(data);
    };
    socket.onerror = () => undefined;
    socket.onclose = ({ code }) => {
      if (!mine()) return;
      this.refused = code === UNAUTHORIZED;
      this.drop();
      this.retryLater();
    };
  }

  private receive(data: unknown): void {
    if (typeof data !== "string") return;
    let frame: { type?: unknown; id?: unknown; data?: unknown; count?: unknown; detail?: unknown };
    try {
      frame = JSON.parse(data) as typeof frame;
    } catch {
      return;
    }
    // A frame that is more than a greeting shows that this server works: the next loss starts with short pauses again.
    this.tries = 0;
    const subscription = [...this.subscriptions.values()].find(({ id }) => id === frame.id);
    if (!subscription) return;
    for (const listener of [...subscription.listeners]) {
      if (frame.type === "event") listener.event(frame.data);
      else if (frame.type === "dropped") listener.dropped?.(Number(frame.count) || 1);
      else if (frame.type === "error") listener.failed?.(String(frame.detail ?? "refused"));
    }
  }

  private heard(): void {
    this.cancelSilence?.();
    this.cancelSilence = this.parts.after(SILENCE_MS, () => {
      this.drop();
      this.retryLater();
    });
  }

  private drop(): void {
    this.cancelTimer?.();
    this.cancelSilence?.();
    this.cancelTimer = this.cancelSilence = null;
    const socket = this.socket;
    this.socket = null;
    this.open = false;
    socket?.close();
  }

  private retryLater(): void {
    this.lost = true;
    const wait = backoff(this.tries, this.parts.random());
    this.tries += 1;
    this.become({ kind: "reconnecting", at: this.parts.now() + wait, tries: this.tries });
    this.cancelTimer = this.parts.after(wait, () => {
      this.cancelTimer = null;
      void this.dial();
    });
  }

  private send(frame: object): void {
    this.socket?.send(JSON.stringify(frame));
  }

  private become(state: LiveState): void {
    this.state = state;
    for (const watcher of this.watchers) watcher();
  }
}
