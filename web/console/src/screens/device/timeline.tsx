// Everything that happened to a device, in one list, newest first; refused messages with their reason and payload.
import { Anchor, Button, Chip, Group } from "@mantine/core";
import { useQuery, useQueryClient } from "@tanstack/react-query";
import { useState } from "react";
import { listTimeline } from "../../api/calls";
import type { TimelineEntry } from "../../api/shapes";
import { useLive } from "../../live/hooks";
import { useAddress } from "../../parts/address";
import { At } from "../../parts/ago";
import { Pager } from "../../parts/pager";
import { Payload } from "../../parts/payload";
import { Empty, Failure, Lines } from "../../parts/states";
import { Status } from "../../parts/status";
import { useSteady } from "../../parts/steady";
import { clip } from "../../text/clip";

const kinds = [
  ["connected,disconnected", "Connections"],
  ["message_refused", "Refused messages"],
  ["command", "Commands"],
  ["update", "Updates"],
  ["change", "Changes"],
  ["event", "Device log"],
] as const;
const words: Record<TimelineEntry["kind"], string> = {
  connected: "Connected",
  disconnected: "Disconnected",
  message_refused: "Refused",
  command: "Command",
  update: "Update",
  change: "Change",
  event: "Log",
};

export function Timeline({ id }: { id: string }) {
  const address = useAddress();
  const queries = useQueryClient();
  const cursor = address.get("cursor");
  const named = address.get("kinds").split(";");
  const chosen = kinds.map(([kind]) => kind).filter((kind) => named.includes(kind));
  const asked = chosen.join(",");
  const timeline = useQuery({
    queryKey: ["timeline", id, asked, cursor],
    queryFn: () => listTimeline(id, { kinds: asked, cursor, limit: 100 }),
    refetchInterval: cursor ? false : 10_000,
  });
  const refresh = (): void => {
    if (!cursor) void queries.invalidateQueries({ queryKey: ["timeline", id] });
  };
  useLive("messages", id, refresh);
  const steady = useSteady(timeline.data?.items, (entry) => entry.id, `${asked} ${cursor}`);
  return (
    <>
      <Group gap={6} mb={12}>
        <Chip.Group multiple value={chosen} onChange={(next) => address.set({ kinds: next.join(";") })}>
          {kinds.map(([kind, label]) => (
            <Chip key={kind} value={kind} size="xs" variant="outline">
              {label}
            </Chip>
          ))}
        </Chip.Group>
      </Group>
      {timeline.isError && !timeline.data ? (
        <Failure what="The timeline could not be loaded" error={timeline.error} retry={() => void timeline.refetch()} />
      ) : timeline.isLoading ? (
        <Lines rows={10} />
      ) : steady.rows.length === 0 ? (
        <Empty
          title={chosen.length ? "Nothing of this kind" : "Nothing has happened yet"}
          action={
            chosen.length > 0 && (
              <Button variant="default" onClick={() => address.set({ kinds: null })}>
                Show everything
              </Button>
            )
          }
        >
          Connections, refused messages, commands, updates and changes appear here.
        </Empty>
      ) : (
        <>
          {steady.waiting > 0 && (
            <button type="button" className="waiting" onClick={steady.show}>
              {steady.waiting} new
            </button>
          )}
          <ul className="entries" data-testid="timeline" style={{ borderTop: "1px solid var(--line)" }}>
            {steady.rows.map((entry) => (
              <Entry key={entry.id} entry={entry} />
            ))}
          </ul>
          <Pager
            address={address}
            next={timeline.data?.next_cursor}
            total={timeline.data?.total}
            shown={steady.rows.length}
            noun="entries"
          />
        </>
      )}
    </>
  );
}

function Entry({ entry }: { entry: TimelineEntry }) {
  const [opened, setOpened] = useState(false);
  const state = entry.kind === "connected" || entry.kind === "disconnected" ? entry.kind : entry.level;
  const data = entry.data;
  const refused = entry.kind === "message_refused";
  const hasMore = Object.keys(data).length > 0;
  return (
    <li
      data-testid="timeline-entry"
      data-kind={entry.kind}
      data-reason={refused ? String(data.reason ?? "") : undefined}
    >
      <At at={entry.at} />
      <Status
        state={state}
        word={words[entry.kind] ?? clip(entry.kind, 20)}
        quiet={entry.level === "info"}
        testid="timeline-kind"
      />
      <div className="what">
        {clip(entry.summary, 300)}
        {refused && (
          <span className="dim">
            {" "}
            <span className="mono">{clip(String(data.reason ?? ""), 60)}</span>
            {data.channel ? (
              <>
                {" "}
                on <span className="mono">{clip(String(data.channel), 80)}</span>
              </>
            ) : null}
          </span>
        )}
        {hasMore && (
          <>
            {" "}
            <Anchor
              component="button"
              type="button"
              size="xs"
              onClick={() => setOpened(!opened)}
              aria-expanded={opened}
            >
              {opened ? "Less" : refused ? "Payload" : "Details"}
            </Anchor>
          </>
        )}
        {opened && (
          <div style={{ marginTop: 6 }}>
            {refused && data.detail ? <div style={{ marginBottom: 4 }}>{clip(String(data.detail), 500)}</div> : null}
            {refused && data.payload !== undefined ? (
              <>
                <span className="dim">{data.encoding === "base64" ? "Payload (base64)" : "Payload"}</span>
                <Payload value={data.payload} />
              </>
            ) : (
              <Payload value={data} />
            )}
          </div>
        )}
      </div>
    </li>
  );
}
