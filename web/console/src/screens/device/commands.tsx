// Send a command and watch what becomes of it.
import { Anchor, Autocomplete, Button, Group, Select, Textarea, Tooltip } from "@mantine/core";
import { useQuery, useQueryClient } from "@tanstack/react-query";
import { useState } from "react";
import { cancelCommand, listCommands, sendCommand } from "../../api/calls";
import { asProblem } from "../../api/problem";
import { useMay } from "../../api/session";
import type { Command, Json, Page } from "../../api/shapes";
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

const open = new Set(["queued", "sent", "accepted", "running"]);
const lifetimes = [["60", "1 minute"], ["3600", "1 hour"], ["86400", "1 day"], ["604800", "7 days"], ["2592000", "30 days"]].map(([value, label]) => ({ value: value!, label: label! }));

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
      {mayAct && <SendForm id={id} online={online} names={[...new Set(items.map(({ name }) => name))]}
        onSent={(command) => queries.setQueryData<Page<Command>>(key, (page) => page && upsert(page, command, cursor === ""))} />}
      {commands.isError && !commands.data ? <Failure what="The commands could not be loaded" error={commands.error} retry={() => void commands.refetch()} />
        : commands.isLoading ? <Lines />
        : items.length === 0 ? <Empty title="No command was sent to this device">A command waits for an offline device until it expires. Its whole course is shown here: sent, accepted, done.</Empty>
        : (
          <>
            <div style={{ borderTop: "1px solid var(--line)" }}>{items.map((command) => <CommandRow key={command.id} command={command} mayAct={mayAct} />)}</div>
            <Pager address={address} next={commands.data?.next_cursor} total={commands.data?.total} shown={items.length} noun="commands" />
          </>
        )}
    </>
  );
}

function upsert(page: Page<Command>, command: Command, first: boolean): Page<Command> {
  if (page.items.some(({ id }) => id === command.id)) return { ...page, items: page.items.map((each) => (each.id === command.id ? newer(each, command) : each)) };
  return first ? { ...page, items: [command, ...page.items] } : page;
}

/** The answer to the request may come after the event that followed it. */
function newer(a: Command, b: Command): Command {
  return Date.parse(b.updated_at) >= Date.parse(a.updated_at) ? b : a;
}

function CommandRow({ command, mayAct }: { command: Command; mayAct: boolean }) {
  const [opened, setOpened] = useState(false);
  const isOpen = open.has(command.status);
  const took = command.finished_at ? duration(Date.parse(command.finished_at) - Date.parse(command.created_at)) : null;
  const cancel = (): void => { cancelCommand(command.id).catch((error: unknown) => failed("Not cancelled", error)); };
  return (
    <div style={{ borderBottom: "1px solid var(--line)", fontSize: "0.8125rem" }} data-testid="command-row" data-command={command.id}>
      <div style={{ display: "flex", flexWrap: "wrap", gap: "2px 14px", alignItems: "center", minHeight: 36 }}>
        <span style={{ width: 118 }}><Status state={command.status} testid="command-status" />{isOpen && command.progress !== null && <span className="dim"> {command.progress} %</span>}</span>
        <Anchor component="button" type="button" size="sm" c="inherit" fw={500} underline="hover" ta="left" className="mono cut" style={{ minWidth: 130 }} onClick={() => setOpened(!opened)} aria-expanded={opened} data-testid="command-open">
          {clip(command.name, 60)}
        </Anchor>
        <span className="dim cut" style={{ flex: "1 1 120px", minWidth: 0 }}>{command.error ? <span style={{ color: "var(--bad)" }}>{clip(command.error, 160)}</span> : command.result !== null && command.result !== undefined ? clip(JSON.stringify(command.result), 160) : clip(JSON.stringify(command.params ?? {}), 160)}</span>
        {command.attempts > 1 && <Tooltip label="Sent again after a reconnect"><span className="dim">{command.attempts} attempts</span></Tooltip>}
        {took && <span className="dim hide-sm">{took}</span>}
        <Ago at={command.created_at} />
        {isOpen && mayAct && <Button variant="subtle" color="gray" size="compact-xs" onClick={cancel} data-testid="command-cancel">Cancel</Button>}
      </div>
      {opened && (
        <div style={{ padding: "4px 0 14px" }} className="two">
          <dl className="facts">
            <dt>Id</dt><dd><LongId id={command.id} limit={30} /></dd>
            <dt>By</dt><dd>{clip(command.created_by ?? "the server", 64)}</dd>
            <dt>Sent</dt><dd><Ago at={command.sent_at} never="not yet" /></dd>
            <dt>Finished</dt><dd><Ago at={command.finished_at} never="not yet" /></dd>
            <dt>{isOpen ? "Expires" : "Would expire"}</dt><dd><Ago at={command.expires_at} /></dd>
            {command.error && <><dt>Error</dt><dd>{clip(command.error, 1000)}</dd></>}
          </dl>
          <div style={{ display: "grid", gap: 8 }}>
            <div><span className="dim">Parameters</span><Payload value={command.params ?? {}} /></div>
            {command.result !== null && command.result !== undefined && <div><span className="dim">Result</span><Payload value={command.result} testid="command-result" /></div>}
          </div>
        </div>
      )}
    </div>
  );
}

function SendForm({ id, online, names, onSent }: { id: string; online: boolean; names: string[]; onSent: (command: Command) => void }) {
  const [name, setName] = useState("");
  const [params, setParams] = useState("");
  const [ttl, setTtl] = useState("3600");
  const [busy, setBusy] = useState(false);
  const [problem, setProblem] = useState<string | null>(null);
  const bad = jsonProblem(params);
  const send = async (): Promise<void> => {
    setBusy(true);
    setProblem(null);
    try {
      onSent(await sendCommand(id, { name: name.trim(), ttl: Number(ttl), ...(params.trim() ? { params: JSON.parse(params) as Json } : {}) }));
    } catch (error) {
      setProblem(asProblem(error).message);
    }
    setBusy(false);
  };
  return (
    <form onSubmit={(event) => { event.preventDefault(); if (!bad && name.trim()) void send(); }} data-testid="command-form" style={{ marginBottom: 18 }}>
      <Group align="flex-start" gap="sm">
        <Autocomplete label="Command" placeholder="reboot" value={name} onChange={setName} data={names.slice(0, 20)} maxLength={128} w={200} data-testid="command-name" size="sm" classNames={{ input: "mono" }} autoComplete="off" spellCheck={false} />
        <Textarea label="Parameters (JSON, optional)" placeholder='{"delay_s": 5}' value={params} onChange={(event) => setParams(event.currentTarget.value)} autosize minRows={1} maxRows={12} style={{ flex: "1 1 260px" }}
          data-testid="command-params" error={bad} classNames={{ input: "mono" }} spellCheck={false} />
        <Select label="Expires after" data={lifetimes} value={ttl} onChange={(value) => setTtl(value ?? "3600")} w={120} data-testid="command-ttl" />
        <Button type="submit" size="sm" mt={23} loading={busy} disabled={!name.trim() || bad !== null} data-testid="command-send">{online ? "Send command" : "Queue command"}</Button>
      </Group>
      {problem && <div className="notice" data-tone="bad" role="alert" style={{ marginTop: 8 }}>{clip(problem, 300)}</div>}
      {!online && <div className="dim" style={{ marginTop: 6, fontSize: "0.75rem" }}>The device is not connected: the command waits until it is, or expires.</div>}
    </form>
  );
}

export function jsonProblem(text: string): string | null {
  if (text.trim() === "") return null;
  try {
    JSON.parse(text);
    return null;
  } catch (error) {
    return `Not JSON: ${error instanceof Error ? error.message.slice(0, 120) : "cannot be read"}`;
  }
}
