// The form that sends a command, or queues it for a device that is away.
import { Autocomplete, Button, Group, Select, Textarea } from "@mantine/core";
import { useState } from "react";
import { sendCommand } from "../../api/calls";
import { asProblem } from "../../api/problem";
import type { Command, Json } from "../../api/shapes";
import { clip } from "../../text/clip";

const lifetimes = [
  ["", "Default"],
  ["60", "1 minute"],
  ["3600", "1 hour"],
  ["86400", "1 day"],
  ["604800", "7 days"],
  ["2592000", "30 days"],
].map(([value, label]) => ({ value: value!, label: label! }));

export function SendCommand({
  id,
  online,
  names,
  onSent,
}: {
  id: string;
  online: boolean;
  names: string[];
  onSent: (command: Command) => void;
}) {
  const [name, setName] = useState("");
  const [params, setParams] = useState("");
  const [ttl, setTtl] = useState("");
  const [busy, setBusy] = useState(false);
  const [problem, setProblem] = useState<string | null>(null);
  const bad = jsonProblem(params);
  const send = async (): Promise<void> => {
    setBusy(true);
    setProblem(null);
    try {
      onSent(
        await sendCommand(id, {
          name: name.trim(),
          ...(ttl ? { ttl: Number(ttl) } : {}),
          ...(params.trim() ? { params: JSON.parse(params) as Json } : {}),
        }),
      );
    } catch (error) {
      setProblem(asProblem(error).message);
    }
    setBusy(false);
  };
  return (
    <form
      onSubmit={(event) => {
        event.preventDefault();
        if (!bad && name.trim()) void send();
      }}
      data-testid="command-form"
      style={{ marginBottom: 18 }}
    >
      <Group align="flex-start" gap="sm">
        <Autocomplete
          label="Command"
          placeholder="reboot"
          value={name}
          onChange={setName}
          data={names.slice(0, 20)}
          maxLength={128}
          w={200}
          data-testid="command-name"
          size="sm"
          classNames={{ input: "mono" }}
          autoComplete="off"
          spellCheck={false}
        />
        <Textarea
          label="Parameters (JSON, optional)"
          placeholder='{"delay_s": 5}'
          value={params}
          onChange={(event) => setParams(event.currentTarget.value)}
          autosize
          minRows={1}
          maxRows={12}
          style={{ flex: "1 1 260px" }}
          data-testid="command-params"
          error={bad}
          classNames={{ input: "mono" }}
          spellCheck={false}
        />
        <Select
          label="Expires after"
          data={lifetimes}
          value={ttl}
          onChange={(value) => setTtl(value ?? "")}
          w={120}
          data-testid="command-ttl"
        />
        <Button
          type="submit"
          size="sm"
          mt={23}
          loading={busy}
          disabled={!name.trim() || bad !== null}
          data-testid="command-send"
        >
          {online ? "Send command" : "Queue command"}
        </Button>
      </Group>
      {problem && (
        <div className="notice" data-tone="bad" role="alert" style={{ marginTop: 8 }}>
          {clip(problem, 300)}
        </div>
      )}
      {!online && (
        <div className="dim" style={{ marginTop: 6, fontSize: "0.75rem" }}>
          The device is not connected: the command waits until it is, or expires.
        </div>
      )}
    </form>
  );
}

function jsonProblem(text: string): string | null {
  if (text.trim() === "") return null;
  try {
    JSON.parse(text);
    return null;
  } catch (error) {
    return `Not JSON: ${error instanceof Error ? error.message.slice(0, 120) : "cannot be read"}`;
  }
}
