// Who is logged in. The access token lives in this module's memory and nowhere else; the refresh token is an
// HttpOnly cookie this code never sees. Refresh tokens are rotated and a used one ends the login, so only one
// tab may refresh at a time: that is what the lock is for.
import { useSyncExternalStore } from "react";
import { Problem, problemFrom, unreachable } from "./problem";
import type { Me, Role, Tokens } from "./shapes";

export type Session =
  { phase: "starting" } | { phase: "out"; setupNeeded: boolean; why?: string } | { phase: "in"; user: Me };

let session: Session = { phase: "starting" };
let token: string | null = null;
let staleAt = 0;
let timer: ReturnType<typeof setTimeout> | undefined;
let refreshing: Promise<string | null> | null = null;
const watchers = new Set<() => void>();
const tokenWatchers = new Set<(token: string) => void>();

function become(next: Session): void {
  session = next;
  for (const watcher of watchers) watcher();
}

async function post(path: string, body: object): Promise<unknown> {
  const headers: Record<string, string> = { "Content-Type": "application/json" };
  if (token) headers.Authorization = `Bearer ${token}`;
  const response = await fetch(`/api/v1/${path}`, {
    method: "POST",
    headers,
    credentials: "same-origin",
    body: JSON.stringify(body),
  }).catch(() => {
    throw unreachable();
  });
  const data: unknown = await response.json().catch(() => null);
  if (!response.ok) throw problemFrom(response.status, data, response.headers.get("Retry-After"));
  return data;
}

function keep(tokens: Tokens): void {
  token = tokens.access_token;
  staleAt = Date.now() + tokens.expires_in * 1000 - 30_000;
  clearTimeout(timer);
  timer = setTimeout(() => void refresh().catch(() => undefined), Math.max(tokens.expires_in * 800, 5_000));
  for (const watcher of tokenWatchers) watcher(token);
}

async function enter(tokens: Tokens): Promise<void> {
  keep(tokens);
  const response = await fetch("/api/v1/auth/me", { headers: { Authorization: `Bearer ${token}` } }).catch(() => {
    throw unreachable();
  });
  if (!response.ok) throw problemFrom(response.status, await response.json().catch(() => null));
  become({ phase: "in", user: (await response.json()) as Me });
}

function leave(why?: string): void {
  token = null;
  clearTimeout(timer);
  if (session.phase !== "out") become({ phase: "out", setupNeeded: false, ...(why ? { why } : {}) });
}

/** Web locks need a secure context; over plain http on a LAN, tabs go one by one by a short claim in storage. */
async function alone<T>(work: () => Promise<T>): Promise<T> {
  if (navigator.locks) return navigator.locks.request("mooring-refresh", work) as Promise<T>;
  const claim = "mooring-refresh-until";
  for (let turn = 0; turn < 20; turn++) {
    if (Number(localStorage.getItem(claim) ?? 0) < Date.now()) break;
    await new Promise((resolve) => setTimeout(resolve, 100 + Math.random() * 200));
  }
  localStorage.setItem(claim, String(Date.now() + 3000));
  try {
    return await work();
  } finally {
    localStorage.removeItem(claim);
  }
}

/** A new access token by the cookie; null when the login is over. Throws when the server cannot be reached. */
export function refresh(): Promise<string | null> {
  refreshing ??= alone(async () => {
    try {
      keep((await post("auth/refresh", {})) as Tokens);
      return token;
    } catch (error) {
      if (error instanceof Problem && error.status >= 400 && error.status < 500 && error.status !== 429) {
        leave("Your login has ended. Log in again to go on.");
        return null;
      }
      // The network is down or the server restarts: keep the login, try again soon.
      clearTimeout(timer);
      timer = setTimeout(() => void refresh().catch(() => undefined), 5_000);
      throw error;
    }
  }).finally(() => {
    refreshing = null;
  });
  return refreshing;
}

export async function accessToken(): Promise<string | null> {
  if (token && Date.now() < staleAt) return token;
  if (session.phase === "out") return null;
  return refresh();
}

/** Find out at load who is there: a cookie, nobody, or a server that was never set up. */
export async function begin(): Promise<void> {
  try {
    const tokens = (await alone(() => post("auth/refresh", {}))) as Tokens;
    await enter(tokens);
  } catch (error) {
    if (error instanceof Problem && (error.status === 0 || error.status >= 500)) throw error;
    let setupNeeded = false;
    const answer = await fetch("/api/v1/setup").catch(() => {
      throw unreachable();
    });
    if (answer.ok) setupNeeded = ((await answer.json()) as { needed?: boolean }).needed === true;
    become({ phase: "out", setupNeeded });
  }
}

export async function login(username: string, password: string, otp = ""): Promise<void> {
  await enter((await post("auth/login", { username, password, otp })) as Tokens);
}

/** A new password ends every login of this user's; the answer begins the one that goes on here. */
export async function changePassword(password: string, newPassword: string): Promise<void> {
  await accessToken();
  await enter((await post("users/me/password", { password, new_password: newPassword })) as Tokens);
}

/** Look again at who is logged in, after a change of their account. */
export async function lookAgain(): Promise<void> {
  const response = await fetch("/api/v1/auth/me", { headers: { Authorization: `Bearer ${await accessToken()}` } });
  if (response.ok) become({ phase: "in", user: (await response.json()) as Me });
}

export async function setUp(setupToken: string, username: string, password: string): Promise<void> {
  await enter((await post("setup", { token: setupToken, username, password })) as Tokens);
}

const exchanges = new Map<string, Promise<void>>();

/** A one-time code works once, whatever React does with effects: the same code gives the same promise. */
export function exchange(code: string): Promise<void> {
  const running = exchanges.get(code) ?? post("auth/exchange", { code }).then((tokens) => enter(tokens as Tokens));
  exchanges.set(code, running);
  return running;
}

export async function logout(): Promise<void> {
  await post("auth/logout", {}).catch(() => undefined);
  leave();
}

export function onNewToken(watcher: (token: string) => void): () => void {
  tokenWatchers.add(watcher);
  return () => tokenWatchers.delete(watcher);
}

export function useSession(): Session {
  return useSyncExternalStore(
    (watcher) => {
      watchers.add(watcher);
      return () => watchers.delete(watcher);
    },
    () => session,
  );
}

const rank: Record<Role, number> = { viewer: 0, operator: 1, admin: 2 };

/** Whether this user may do what needs `role`; the server decides again. */
export function useMay(role: Role): boolean {
  const now = useSession();
  return now.phase === "in" && rank[now.user.role] >= rank[role];
}
