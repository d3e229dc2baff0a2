// One's own account: password, second factor, and where one is logged in.
import { Button, Group } from "@mantine/core";
import { useQuery, useQueryClient } from "@tanstack/react-query";
import { useState } from "react";
import { endOtherSessions, endOwnSession, listOwnSessions } from "../api/calls";
import { logout, useSession } from "../api/session";
import type { OwnSession } from "../api/shapes";
import { Ago } from "../parts/ago";
import { DataTable, type Column } from "../parts/data-table";
import { Failure, Lines } from "../parts/states";
import { Status } from "../parts/status";
import { failed, told } from "../parts/toast";
import { clip } from "../text/clip";
import { OwnPassword, RemoveSecondFactor, SetUpSecondFactor } from "./account-forms";

export function Account() {
  const queries = useQueryClient();
  const session = useSession();
  const [dialog, setDialog] = useState<"password" | "set up" | "remove" | null>(null);
  if (session.phase !== "in") return null;
  const { username, role, second_factor: factor } = session.user;
  const close = (): void => {
    setDialog(null);
    void queries.invalidateQueries({ queryKey: ["users"] });
  };
  return (
    <section data-testid="account">
      <div className="section" style={{ alignItems: "center" }}>
        <h2>Your account</h2>
        <Group gap="xs">
          <Button variant="default" onClick={() => setDialog("password")} data-testid="own-password">
            Change password
          </Button>
          {factor ? (
            <Button variant="default" onClick={() => setDialog("remove")} data-testid="factor-remove">
              Remove second factor
            </Button>
          ) : (
            <Button variant="default" onClick={() => setDialog("set up")} data-testid="factor-add">
              Set up a second factor
            </Button>
          )}
        </Group>
      </div>
      <dl className="facts">
        <dt>User</dt>
        <dd>
          {clip(username, 64)}, {role}
        </dd>
        <dt>Second factor</dt>
        <dd>
          <Status state={factor ? "active" : "off"} testid="factor-state" />
        </dd>
      </dl>
      <Sessions />
      {dialog === "password" && <OwnPassword close={close} />}
      {dialog === "set up" && <SetUpSecondFactor close={close} />}
      {dialog === "remove" && <RemoveSecondFactor close={close} />}
    </section>
  );
}

function Sessions() {
  const queries = useQueryClient();
  const sessions = useQuery({ queryKey: ["own-sessions"], queryFn: listOwnSessions });
  const items = sessions.data?.items ?? [];
  const end = (work: Promise<unknown>, what: string): void => {
    work
      .then(() => {
        told(what);
        void queries.invalidateQueries({ queryKey: ["own-sessions"] });
      })
      .catch((error: unknown) => failed("Not ended", error));
  };
  const columns: Column<OwnSession>[] = [
    {
      id: "agent",
      header: "Logged in with",
      cell: (each) => (
        <>
          {each.current && <b>This one: </b>}
          {clip(each.user_agent || "not said", 90)}
        </>
      ),
    },
    {
      id: "address",
      header: "From",
      width: 150,
      cell: (each) => <span className="mono">{clip(each.address, 64)}</span>,
    },
    {
      id: "since",
      header: "Since",
      width: 110,
      align: "right",
      hide: "sm",
      cell: (each) => <Ago at={each.created_at} />,
    },
    { id: "used", header: "Last used", width: 110, align: "right", cell: (each) => <Ago at={each.last_used_at} /> },
    {
      id: "end",
      header: "",
      free: true,
      width: 96,
      align: "right",
      cell: (each) => (
        <Button
          variant="subtle"
          color="gray"
          size="compact-xs"
          onClick={() => (each.current ? void logout() : end(endOwnSession(each.id), "The session was ended"))}
          data-testid="session-end"
        >
          {each.current ? "Log out" : "End"}
        </Button>
      ),
    },
  ];
  if (sessions.isError && !sessions.data)
    return (
      <Failure what="Your sessions could not be loaded" error={sessions.error} retry={() => void sessions.refetch()} />
    );
  if (sessions.isLoading) return <Lines rows={2} />;
  return (
    <>
      <DataTable
        label="Your sessions"
        testid="session-table"
        columns={columns}
        rows={items}
        rowId={({ id }) => id}
        rowData={() => ({ "data-testid": "session-row" })}
      />
      {items.length > 1 && (
        <Group justify="flex-end" mt="xs">
          <Button
            variant="default"
            onClick={() => end(endOtherSessions(), "All other sessions were ended")}
            data-testid="session-end-others"
          >
            End all others
          </Button>
        </Group>
      )}
    </>
  );
}
