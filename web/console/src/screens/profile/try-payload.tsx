// What the profile in the editor, saved or not, makes of a payload. Nothing is stored.
import { Button, Group, SegmentedControl, Select, Stack, Textarea } from "@mantine/core";
import { useState } from "react";
import { testProfile } from "../../api/calls";
import { asProblem, Problem } from "../../api/problem";
import type { PayloadTest, PayloadTested, ProfileBody } from "../../api/shapes";
import { DataTable, type Column } from "../../parts/data-table";
import { pretty } from "../../parts/payload";
import { clip } from "../../text/clip";
import { reading } from "../../text/numbers";
import { payloadOf, type PayloadForm } from "../../text/profile";
import { absolute } from "../../text/time";

type Channel = NonNullable<PayloadTest["channel"]>;
type Reading = PayloadTested["readings"][number];

const channels: { value: Channel; label: string }[] = [
  { value: "telemetry", label: "telemetry (JSON)" },
  { value: "telemetry/binary", label: "telemetry/binary" },
  { value: "telemetry/cbor", label: "telemetry/cbor" },
  { value: "telemetry/senml", label: "telemetry/senml" },
  { value: "telemetry/senml-cbor", label: "telemetry/senml-cbor" },
];

export function TryPayload({ profile, onWrong }: { profile: ProfileBody | null; onWrong: (problem: Problem) => void }) {
  const [text, setText] = useState("");
  const [form, setForm] = useState<PayloadForm>("text");
  const [channel, setChannel] = useState<Channel>("telemetry");
  const [result, setResult] = useState<PayloadTested | null>(null);
  const [problem, setProblem] = useState<string | null>(null);
  const [busy, setBusy] = useState(false);
  const payload = payloadOf(form, text);
  const ready = profile !== null && typeof payload !== "string" && !busy;
  const run = async (): Promise<void> => {
    if (!ready) return;
    setBusy(true);
    setProblem(null);
    setResult(null);
    try {
      setResult(await testProfile({ ...payload, channel, profile }));
    } catch (error) {
      const found = asProblem(error);
      if (found.errors.some(({ field }) => field.startsWith("profile"))) {
        setProblem("The profile itself has errors: see there.");
        onWrong(ofDraft(found));
      } else setProblem(found.message);
    }
    setBusy(false);
  };
  const pick = (next: Channel): void => {
    setChannel(next);
    if (next === "telemetry" || next === "telemetry/senml") setForm("text");
    else if (form === "text") setForm("hex");
  };
  return (
    <Stack gap="xs">
      <Group gap="xs">
        <Select
          data={channels}
          value={channel}
          onChange={(next) => next && pick(next as Channel)}
          allowDeselect={false}
          aria-label="Channel"
          data-testid="try-channel"
          style={{ flex: "1 1 190px" }}
        />
        <SegmentedControl
          size="xs"
          data={[
            { value: "text", label: "Text" },
            { value: "hex", label: "Hex" },
            { value: "base64", label: "Base64" },
          ]}
          value={form}
          onChange={(next) => setForm(next as PayloadForm)}
          aria-label="How the payload is written"
        />
      </Group>
      <Textarea
        value={text}
        onChange={(event) => setText(event.currentTarget.value)}
        onKeyDown={(event) => {
          if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) void run();
        }}
        autosize
        minRows={4}
        maxRows={16}
        classNames={{ input: "mono" }}
        spellCheck={false}
        placeholder={form === "text" ? '{"data": {"temp": 215}}' : form === "hex" ? "08 69" : "CGk="}
        aria-label="Payload"
        data-testid="try-payload"
        error={typeof payload === "string" ? payload : undefined}
      />
      <Group justify="flex-end">
        <Button variant="default" onClick={() => void run()} loading={busy} disabled={!ready} data-testid="try-run">
          Try
        </Button>
      </Group>
      {problem && (
        <div className="notice" data-tone="bad" role="alert" data-testid="try-problem">
          {clip(problem, 300)}
        </div>
      )}
      {result && <Result result={result} />}
    </Stack>
  );
}

/** The draft is a part of what was asked: its paths begin with it. */
function ofDraft({ status, message, errors }: Problem): Problem {
  return new Problem(
    status,
    message,
    errors.map(({ field, detail }) => ({ field: field.replace(/^profile\.?/, ""), detail })),
  );
}

const readingColumns: Column<Reading>[] = [
  {
    id: "metric",
    header: "Metric",
    width: "36%",
    cell: (each) => <span title={clip(each.metric, 128)}>{clip(each.metric, 64)}</span>,
  },
  {
    id: "value",
    header: "Value",
    align: "right",
    cell: (each) => (
      <span title={clip(pretty(each.value), 500)}>
        <span data-testid="try-value" data-metric={each.metric}>
          {clip(reading(each.value), 80)}
        </span>
        {each.unit && <span className="dim"> {clip(each.unit, 32)}</span>}
      </span>
    ),
  },
  {
    id: "ts",
    header: "Time",
    width: 250,
    align: "right",
    hide: "sm",
    cell: (each) => <span title={absolute(each.ts)}>{absolute(each.ts)}</span>,
  },
];

function Result({ result: { readings, refused, refusal } }: { result: PayloadTested }) {
  if (refusal)
    return (
      <div className="notice" data-tone="bad" role="status" data-testid="try-refusal">
        <b>The message would be refused: </b>
        <span className="mono">{clip(refusal.reason, 40)}</span>
        <div style={{ overflowWrap: "anywhere" }}>{clip(refusal.detail, 300)}</div>
      </div>
    );
  return (
    <div role="status">
      {readings.length > 0 ? (
        <DataTable
          label="Readings"
          testid="try-readings"
          columns={readingColumns}
          rows={readings}
          rowId={(each) => `${each.ts} ${each.metric}`}
          maxHeight={420}
        />
      ) : (
        <div className="notice">The message holds no reading.</div>
      )}
      {refused.length > 0 && (
        <div className="notice" data-tone="wait" data-testid="try-refused">
          <b>Refused, while the others are stored:</b>
          <ul className="problems">
            {refused.map(({ metric, reason, detail }, i) => (
              <li key={i}>
                {clip(metric, 64)}: <span className="mono">{clip(reason, 40)}</span>, {clip(detail, 200)}
              </li>
            ))}
          </ul>
        </div>
      )}
    </div>
  );
}
