// The newest events of the whole fleet, as they come. While the pointer is over the list it stands still and counts.
import { useRef, useState } from "react";
import { Link } from "react-router";
import type { TimelineEntry } from "../api/shapes";
import { useLive } from "../live/hooks";
import { At } from "../parts/ago";
import { Status } from "../parts/status";
import { clip, middle } from "../text/clip";
import { plural } from "../text/numbers";

const LIMIT = 200;
const SHOWN = 30;

interface Line {
  key: string;
  device: string | null;
  at: string;
  state: string;
  text: string;
}

export function Tail() {
  const [lines, setLines] = useState<Line[]>([]);
  const [held, setHeld] = useState(0);
  const waiting = useRef<Line[]>([]);
  const holding = useRef(false);
  const number = useRef(0);

  const add = (line: Omit<Line, "key">): void => {
    const keyed = { ...line, key: String(++number.current) };
    if (holding.current) {
      waiting.current = [keyed, ...waiting.current].slice(0, LIMIT);
      setHeld(waiting.current.length);
    } else {
      setLines((before) => [keyed, ...before].slice(0, LIMIT));
    }
  };
  const release = (): void => {
    holding.current = false;
    const came = waiting.current;
    waiting.current = [];
    setHeld(0);
    if (came.length) setLines((before) => [...came, ...before].slice(0, LIMIT));
  };

  const messages = useLive("messages", undefined, (data) => {
    for (const entry of entriesOf(data).reverse()) {
      add({
        device: entry.device,
        at: entry.at,
        state: entry.kind === "connected" || entry.kind === "disconnected" ? entry.kind : entry.level,
        text: entry.summary,
      });
    }
  });
  useLive("presence", undefined, (data) => {
    const change = data as { device?: string; status?: string; at?: string; reason?: string | null };
    if (!change.device || !change.status) return;
    add({
      device: change.device,
      at: change.at ?? new Date().toISOString(),
      state: change.status,
      text: change.reason ?? (change.status === "online" ? "connected" : "gone"),
    });
  });

  return (
    <section
      data-testid="live-tail"
      onMouseEnter={() => {
        holding.current = true;
      }}
      onMouseLeave={release}
    >
      <div className="section">
        <h2>Live events</h2>
        <span className="dim" style={{ fontSize: "0.75rem" }}>
          {messages.dropped > 0 && `${plural(messages.dropped, "event")} left out · `}
          {held > 0 ? (
            <button
              type="button"
              className="waiting"
              style={{ display: "inline", width: "auto", padding: "1px 8px" }}
              onClick={release}
            >
              {held} new
            </button>
          ) : (
            "since this page was opened"
          )}
        </span>
      </div>
      {lines.length === 0 ? (
        <div className="empty" style={{ padding: "28px 0", borderTop: "1px solid var(--line)" }}>
          Nothing yet. Connections, refused messages, commands and updates appear here as they happen.
        </div>
      ) : (
        <ul className="entries tail" style={{ borderTop: "1px solid var(--line)" }}>
          {lines.slice(0, SHOWN).map((line) => (
            <li key={line.key} data-testid="live-event">
              <At at={line.at} />
              <Status state={line.state} quiet={line.state === "info"} />
              <span className="what cut" title={clip(line.text, 400)}>
                {line.device && (
                  <Link
                    className="plain mono"
                    style={{ fontWeight: 500 }}
                    to={`/devices/${encodeURIComponent(line.device)}?tab=timeline`}
                  >
                    {middle(line.device, 28)}
                  </Link>
                )}{" "}
                {clip(line.text, 140)}
              </span>
            </li>
          ))}
        </ul>
      )}
    </section>
  );
}

/** A snapshot comes as a list, a change as one entry. */
function entriesOf(data: unknown): TimelineEntry[] {
  if (Array.isArray(data)) return data as TimelineEntry[];
  const holder = data as { items?: TimelineEntry[]; device?: unknown; summary?: unknown } | null;
  if (Array.isArray(holder?.items)) return [...holder.items];
  return typeof holder?.summary === "string" ? [holder as unknown as TimelineEntry] : [];
}
