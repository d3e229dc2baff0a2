import { beforeEach, describe, expect, it } from "vitest";
import { backoff, LiveClient, SILENCE_MS, type SocketLike } from "./client";

class FakeSocket implements SocketLike {
  onopen: (() => void) | null = null;
  onclose: ((event: { code: number }) => void) | null = null;
  onmessage: ((event: { data: unknown }) => void) | null = null;
  onerror: (() => void) | null = null;
  sent: { type: string; id?: number; token?: string; channel?: string; device?: string }[] = [];
  closed = false;
  send(text: string): void {
    this.sent.push(JSON.parse(text));
  }
  close(): void {
    this.closed = true;
  }
  says(frame: object): void {
    this.onmessage?.({ data: JSON.stringify(frame) });
  }
}

class World {
  sockets: FakeSocket[] = [];
  time = 0;
  tokens: (string | null)[] = ["t1", "t2", "t3"];
  timers: { at: number; run: () => void }[] = [];
  renewals: boolean[] = [];
  client = new LiveClient({
    connect: () => {
      const socket = new FakeSocket();
      this.sockets.push(socket);
      return socket;
    },
    token: async (renew) => {
      this.renewals.push(renew);
      return this.tokens.shift() ?? null;
    },
    now: () => this.time,
    random: () => 0,
    after: (ms, run) => {
      const timer = { at: this.time + ms, run };
      this.timers.push(timer);
      return () => {
        this.timers = this.timers.filter((other) => other !== timer);
      };
    },
  });
  get socket(): FakeSocket {
    return this.sockets.at(-1)!;
  }
  async settle(): Promise<void> {
    for (let i = 0; i < 5; i++) await Promise.resolve();
  }
  async pass(ms: number): Promise<void> {
    this.time += ms;
    const due = this.timers.filter((timer) => timer.at <= this.time);
    this.timers = this.timers.filter((timer) => timer.at > this.time);
    for (const timer of due) timer.run();
    await this.settle();
  }
  async open(): Promise<void> {
    this.client.start();
    await this.settle();
    this.socket.onopen?.();
  }
}

let world: World;
beforeEach(() => {
  world = new World();
});

describe("live client", () => {
  it("logs in first, then subscribes to all that is wanted", async () => {
    world.client.subscribe({ channel: "telemetry", device: "pump-7" }, { event: () => undefined });
    await world.open();
    expect(world.socket.sent).toEqual([
      { type: "auth", token: "t1" },
      { type: "subscribe", id: 1, channel: "telemetry", device: "pump-7" },
    ]);
    expect(world.client.getState().kind).toBe("live");
  });

  it("gives events to the listeners of their id and to nobody else", async () => {
    const seen: unknown[] = [];
    world.client.subscribe({ channel: "presence" }, { event: (data) => seen.push(["presence", data]) });
    world.client.subscribe({ channel: "overview" }, { event: (data) => seen.push(["overview", data]) });
    await world.open();
    world.socket.says({ type: "event", id: 2, data: 7 });
    world.socket.says({ type: "event", id: 99, data: 8 });
    world.socket.onmessage?.({ data: "not json" });
    expect(seen).toEqual([["overview", 7]]);
  });

  it("comes back with a new token, subscribes again and says that the page may be old", async () => {
    let returns = 0;
    world.client.onReturn(() => {
      returns += 1;
    });
    world.client.subscribe({ channel: "presence" }, { event: () => undefined });
    await world.open();
    expect(returns).toBe(0);
    world.socket.onclose?.({ code: 1006 });
    expect(world.client.getState()).toEqual({ kind: "reconnecting", at: 500, tries: 1 });
    await world.pass(500);
    world.socket.onopen?.();
    expect(world.sockets.length).toBe(2);
    expect(world.socket.sent).toEqual([
      { type: "auth", token: "t2" },
      { type: "subscribe", id: 1, channel: "presence" },
    ]);
    expect(returns).toBe(1);
  });

  it("waits longer after each failure and starts small again once the server spoke", async () => {
    await world.open();
    world.socket.onclose?.({ code: 1006 });
    await world.pass(500);
    world.socket.onclose?.({ code: 1006 });
    expect(world.client.getState()).toMatchObject({ kind: "reconnecting", at: world.time + 1000 });
    await world.pass(1000);
    world.socket.onopen?.();
    world.socket.says({ type: "event", id: 1, data: null });
    world.socket.onclose?.({ code: 1006 });
    expect(world.client.getState()).toMatchObject({ kind: "reconnecting", at: world.time + 500 });
  });

  it("takes a silent connection for a dead one", async () => {
    await world.open();
    await world.pass(SILENCE_MS);
    expect(world.sockets[0]!.closed).toBe(true);
    expect(world.client.getState().kind).toBe("reconnecting");
  });

  it("asks for another token when the server refused the last", async () => {
    await world.open();
    world.socket.onclose?.({ code: 4401 });
    await world.pass(500);
    world.socket.onclose?.({ code: 1006 });
    await world.pass(1000);
    expect(world.renewals).toEqual([false, true, false]);
  });

  it("closes on pause, and is live again on resume", async () => {
    let returns = 0;
    world.client.onReturn(() => {
      returns += 1;
    });
    await world.open();
    world.client.pause();
    expect(world.client.getState().kind).toBe("paused");
    world.sockets[0]!.onclose?.({ code: 1000 });
    expect(world.client.getState().kind).toBe("paused");
    world.client.resume();
    await world.settle();
    world.socket.onopen?.();
    expect(returns).toBe(1);
  });

  it("shares one subscription between two listeners and ends it with the last", async () => {
    await world.open();
    const first = world.client.subscribe({ channel: "presence" }, { event: () => undefined });
    const second = world.client.subscribe({ channel: "presence" }, { event: () => undefined });
    first();
    expect(world.socket.sent.at(-1)).toMatchObject({ type: "subscribe", id: 2 });
    second();
    expect(world.socket.sent.at(-1)).toEqual({ type: "unsubscribe", id: 2 });
  });

  it("stays out when there is no login", async () => {
    world.tokens = [null];
    world.client.start();
    await world.settle();
    expect(world.sockets).toEqual([]);
    expect(world.client.getState().kind).toBe("idle");
  });
});

describe("backoff", () => {
  it("doubles up to half a minute", () => {
    expect([0, 1, 2, 10].map((tries) => backoff(tries, 0))).toEqual([500, 1000, 2000, 15_000]);
    expect(backoff(10, 1)).toBe(30_000);
  });
});
