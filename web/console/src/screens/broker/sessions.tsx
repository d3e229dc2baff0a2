// Who is connected to the broker; one can be dropped.
import { Button } from "@mantine/core";
import { keepPreviousData, useQuery, useQueryClient } from "@tanstack/react-query";
import { useState } from "react";
import { Link } from "react-router";
import { kickSession, listSessions } from "../../api/calls";
import { useMay } from "../../api/session";
import type { BrokerSession } from "../../api/shapes";
import { useAddress } from "../../parts/address";
import { Ago } from "../../parts/ago";
import { Confirm } from "../../parts/confirm";
import { DataTable, type Column } from "../../parts/data-table";
import { Pager } from "../../parts/pager";
import { SearchField } from "../../parts/search-field";
import { Empty, Lines } from "../../parts/states";
import { Status } from "../../parts/status";
import { useSteady } from "../../parts/steady";
import { told } from "../../parts/toast";
import { clip, middle } from "../../text/clip";
import { count, plural } from "../../text/numbers";
import { Connect, isElsewhere, Trouble, unlessElsewhere } from "./trouble";

const protocols: Record<string, string> = { "3": "MQTT 3.1", "4": "MQTT 3.1.1", "5": "MQTT 5" };

export function Sessions() {
  const address = useAddress();
  const queries = useQueryClient();
  const mayAct = useMay("operator");
  const [kicking, setKicking] = useState<BrokerSession | null>(null);
  const q = address.get("q");
  const cursor = address.get("cursor");
  const sessions = useQuery({
    queryKey: ["sessions", q, cursor],
    queryFn: () => listSessions({ q, cursor, limit: 200 }),
    refetchInterval: unlessElsewhere(5_000),
    placeholderData: keepPreviousData,
  });
  const steady = useSteady(
    sessions.isPlaceholderData ? undefined : sessions.data?.items,
    (each) => each.client_id,
    `${q} ${cursor}`,
  );
  const rows = sessions.isPlaceholderData ? (sessions.data?.items ?? []) : steady.rows;
  const columns = sessionColumns(mayAct ? setKicking : null);
  return (
    <>
      {!isElsewhere(sessions.error) && (
        <div className="filters" role="search">
          <SearchField
            value={q}
            onChange={(text) => address.set({ q: text }, { replace: true })}
            placeholder="Client, device, address"
          />
        </div>
      )}
      {sessions.isError && !sessions.data ? (
        <Trouble what="The sessions could not be loaded" error={sessions.error} retry={() => void sessions.refetch()} />
      ) : sessions.isLoading ? (
        <Lines rows={8} />
      ) : rows.length === 0 ? (
        q ? (
          <Empty
            title="No session matches"
            action={
              <Button variant="default" onClick={() => address.set({ q: null })}>
                Clear the search
              </Button>
            }
          />
        ) : (
          <Empty title="No device is connected by MQTT" action={<Connect />}>
            Sessions appear here as devices connect.
          </Empty>
        )
      ) : (
        <>
          {steady.waiting > 0 && (
            <button type="button" className="waiting" onClick={steady.show}>
              {plural(steady.waiting, "session")} came or went. Show
            </button>
          )}
          <DataTable
            label="Broker sessions"
            testid="session-table"
            around={276}
            columns={columns}
            rows={rows}
            rowId={(each) => each.client_id}
            rowData={(each) => ({ "data-testid": "session-row", "data-client": each.client_id })}
          />
          <Pager
            address={address}
            next={sessions.data?.next_cursor}
            total={sessions.data?.total}
            shown={rows.length}
            noun="sessions"
          />
        </>
      )}
      {kicking && (
        <Confirm
          title={kicking.connected ? "Drop this connection?" : "Forget this session?"}
          action={kicking.connected ? "Drop connection" : "Forget session"}
          close={() => setKicking(null)}
          run={async () => {
            await kickSession(kicking.username, kicking.client_id);
            told(kicking.connected ? "The connection was dropped" : "The session was forgotten");
            await queries.invalidateQueries({ queryKey: ["sessions"] });
          }}
        >
          {kicking.connected ? "The connection of " : "The session of "}
          <b className="mono">{clip(kicking.client_id, 64)}</b> ends; its subscriptions and {waits(kicking)} are
          forgotten. The device may connect again at once; to keep it away, disable it.
        </Confirm>
      )}
    </>
  );
}

function waits(session: BrokerSession): string {
  const waiting = session.queued + session.inflight;
  return waiting ? `the ${plural(waiting, "message")} waiting for it` : "what waits for it";
}

const topics = (each: BrokerSession): string[] => (Array.isArray(each.subscriptions) ? each.subscriptions : []);

/** `kick` is null for who may not. */
function sessionColumns(kick: ((session: BrokerSession) => void) | null): Column<BrokerSession>[] {
  return [
    {
      id: "connected",
      header: "State",
      width: 130,
      value: (each) => each.connected,
      cell: (each) => <Status state={each.connected ? "connected" : "disconnected"} testid="session-status" />,
    },
    {
      id: "client_id",
      header: "Client id",
      width: "22%",
      value: (each) => each.client_id,
      cell: (each) => (
        <span className="mono" title={clip(each.client_id, 200)}>
          {middle(each.client_id, 32)}
        </span>
      ),
    },
    {
      id: "username",
      header: "Device",
      value: (each) => each.username,
      cell: (each) => (
        <Link className="plain mono" to={`/devices/${encodeURIComponent(each.username)}`}>
          {middle(each.username, 28)}
        </Link>
      ),
    },
    {
      id: "address",
      header: "Address",
      hide: "md",
      value: (each) => each.address,
      cell: (each) => <span className="mono">{clip(each.address ?? "", 48)}</span>,
    },
    {
      id: "protocol",
      header: "Protocol",
      width: 104,
      hide: "md",
      value: (each) => each.protocol,
      cell: (each) => protocols[String(each.protocol)] ?? clip(String(each.protocol), 12),
    },
    {
      id: "keepalive",
      header: "Keep-alive (s)",
      width: 104,
      align: "right",
      hide: "md",
      value: (each) => each.keepalive_s,
      cell: (each) => count(each.keepalive_s),
    },
    {
      id: "subscriptions",
      header: "Topics",
      width: 66,
      align: "right",
      hide: "sm",
      value: (each) => topics(each).length,
      cell: (each) => (
        <Link
          className="plain"
          to={`/broker?tab=topics&prefix=${encodeURIComponent(`devices/${each.username}/`)}`}
          title={topics(each)
            .slice(0, 30)
            .map((topic) => clip(topic, 120))
            .join("\n")}
        >
          {count(topics(each).length)}
        </Link>
      ),
    },
    {
      id: "queued",
      header: "Queued",
      width: 76,
      align: "right",
      hide: "sm",
      value: (each) => each.queued,
      cell: (each) => (
        <span style={each.queued > 0 ? { color: "var(--wait)", fontWeight: 500 } : undefined}>
          {count(each.queued)}
        </span>
      ),
    },
    {
      id: "inflight",
      header: "In flight",
      width: 76,
      align: "right",
      hide: "md",
      value: (each) => each.inflight,
      cell: (each) => count(each.inflight),
    },
    {
      id: "since",
      header: "Since",
      width: 96,
      align: "right",
      hide: "sm",
      value: (each) => each.connected_at,
      cell: (each) => <Ago at={each.connected_at} never="–" />,
    },
    {
      id: "kick",
      header: "",
      free: true,
      width: kick ? 66 : 1,
      align: "right",
      cell: (each) =>
        kick && (
          <Button variant="subtle" color="gray" size="compact-xs" onClick={() => kick(each)} data-testid="session-kick">
            {each.connected ? "Drop" : "Forget"}
          </Button>
        ),
    },
  ];
}
