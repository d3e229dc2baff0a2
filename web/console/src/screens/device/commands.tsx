// Send a command and watch what becomes of it.
import { Anchor, Button, Tooltip } from "@mantine/core";
import { useQuery, useQueryClient } from "@tanstack/react-query";
import { useState } from "react";
import { cancelCommand, listCommands } from "../../api/calls";
import { upsert } from "../../api/pages";
import { useMay } from "../../api/session";
import type { Command, Page } from "../../api/shapes";
import { useLive } from "../../live/hooks";
import { useAddress } from "../../parts/address";
import { Ago } from "../../parts/ago";
import { LongId } from "../../parts/copy";
import { Pager } from "../../parts/pager";
import { Payload } from "../../parts/payload";
import { Empty, Failure, Lines } from "../../parts/states";
import { Status } from "../../parts/status";
import { failed } from "../../parts/toast";
import { clip } from "../../text/clip";
import { duration } from "../../text/time";
import { SendCommand } from "./send-command";

const open = new Set(["queued", "sent", "accepted", "running"]);
export function Commands({ id, online }: { id: string; online: boolean }) {
  const address = useAddress();
  const cursor = address.get("cursor");
  const queries = useQueryClient();
  const key = ["commands", id, cursor];
  const commands = useQuery({ queryKey: key, queryFn: () => listCommands(id, { cursor, limit: 50 }) });
  useLive("commands", id, (data) => {
    const command = data as Command;
    if (typeof command?.id !== "string") return void queries.invalidateQueries({ queryKey: ["commands", id] });
    queries.setQueryData<Page<Command>>(key, (page) => page && upsert(page, command, cursor === ""));
  });
  const mayAct = useMay("operator");
  const items = commands.data?.items ?? [];
  return (
    <>
      {mayAct && (
        <SendCommand
          id={id}
          online={online}
          names={[...new Set(items.map(({ name }) => name))]}
          onSent={(command) =>
            queries.setQueryData<Page<Command>>(key, (page) => page && upsert(page, command, cursor === ""))
          }
        />
      )}
      {commands.isError && !commands.data ? (
        <Failure what="The commands could not be loaded" error={commands.error} retry={() => void commands.refetch()} />
      ) : commands.isLoading ? (
        <Lines />
      ) : items.length === 0 ? (
        <Empty title="No command was sent to this device">
          A command waits for an offline device until it expires. Its whole course is shown here: sent, accepted, done.
        </Empty>
      ) : (
        <>
          <div style={{ borderTop: "1px solid var(--line)" }}>
            {items.map((command) => (
              <CommandRow key={command.id} command={command} mayAct={mayAct} />
            ))}
          </div>
          <Pager
            address={address}
            next={commands.data?.next_cursor}
            total={commands.data?.total}
            shown={items.length}
            noun="commands"
          />
        </>
      )}
    </>
  );
}

function CommandRow({ command, mayAct }: { command: Command; mayAct: boolean }) {
  const [opened, setOpened] = useState(false);
  const isOpen = open.has(command.status);
  const took = command.finished_at ? duration(Date.parse(command.finished_at) - Date.parse(command.created_at)) : null;
  const cancel = (): void => {
    cancelCommand(command.id).catch((error: unknown) => failed("Not cancelled", error));
  };
  return (
    <div
      style={{ borderBottom: "1px solid var(--line)", fontSize: "0.8125rem" }}
      data-testid="command-row"
      data-command={command.id}
    >
      <div style={{ display: "flex", flexWrap: "wrap", gap: "2px 14px", alignItems: "center", minHeight: 36 }}>
        <span style={{ width: 118 }}>
          <Status state={command.status} testid="command-status" />
          {isOpen && command.progress !== null && <span className="dim"> {command.progress} %</span>}
        </span>
        <Anchor
          component="button"
          type="button"
          size="sm"
          c="inherit"
          fw={500}
          underline="hover"
          ta="left"
          className="mono cut"
          style={{ minWidth: 130 }}
          onClick={() => setOpened(!opened)}
          aria-expanded={opened}
          data-testid="command-open"
        >
          {clip(command.name, 60)}
        </Anchor>
        {command.waiting_for && (
          <span className="dim" data-testid="command-waits">
            waits for {command.waiting_for}
          </span>
        )}
        <span className="dim cut" style={{ flex: "1 1 120px", minWidth: 0 }}>
          {command.error ? (
            <span style={{ color: "var(--bad)" }}>{clip(command.error, 160)}</span>
          ) : command.result !== null && command.result !== undefined ? (
            clip(JSON.stringify(command.result), 160)
          ) : (
            clip(JSON.stringify(command.params ?? {}), 160)
          )}
        </span>
        {command.attempts > 1 && (
          <Tooltip label="Sent again after a reconnect">
            <span className="dim">{command.attempts} attempts</span>
          </Tooltip>
        )}
        {took && <span className="dim hide-sm">{took}</span>}
        <Ago at={command.created_at} />
        {isOpen && mayAct && (
          <Button variant="subtle" color="gray" size="compact-xs" onClick={cancel} data-testid="command-cancel">
            Cancel
          </Button>
        )}
      </div>
      {opened && (
        <div style={{ padding: "4px 0 14px" }} className="two">
          <dl className="facts">
            <dt>Id</dt>
            <dd>
              <LongId id={command.id} limit={30} />
            </dd>
            <dt>By</dt>
            <dd>{clip(command.created_by ?? "the server", 64)}</dd>
            <dt>Sent</dt>
            <dd>
              <Ago at={command.sent_at} never="not yet" />
            </dd>
            <dt>Finished</dt>
            <dd>
              <Ago at={command.finished_at} never="not yet" />
            </dd>
            <dt>{isOpen ? "Expires" : "Would expire"}</dt>
            <dd>
              <Ago at={command.expires_at} />
            </dd>
            {command.error && (
              <>
                <dt>Error</dt>
                <dd>{clip(command.error, 1000)}</dd>
              </>
            )}
          </dl>
          <div style={{ display: "grid", gap: 8 }}>
            <div>
              <span className="dim">Parameters</span>
              <Payload value={command.params ?? {}} />
            </div>
            {command.result !== null && command.result !== undefined && (
              <div>
                <span className="dim">Result</span>
                <Payload value={command.result} testid="command-result" />
              </div>
            )}
          </div>
        </div>
      )}
    </div>
  );
}
