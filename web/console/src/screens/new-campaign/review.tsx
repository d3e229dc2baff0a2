// Last step of an update: look again, name it, start it.
import { Button, Group, TextInput } from "@mantine/core";
import { useQueryClient } from "@tanstack/react-query";
import { useState } from "react";
import { useNavigate } from "react-router";
import { createCampaign, startCampaign } from "../../api/calls";
import { asProblem } from "../../api/problem";
import type { Artifact, Timeouts } from "../../api/shapes";
import { failed, told } from "../../parts/toast";
import { clip, middle } from "../../text/clip";
import { bytes, count, plural } from "../../text/numbers";
import { TimeLimits } from "./time-limits";

interface Props {
  artifact: Artifact;
  picked: ReadonlySet<string>;
  name: string;
  setName: (name: string) => void;
  timeouts: Partial<Timeouts>;
  setTimeouts: (timeouts: Partial<Timeouts>) => void;
  back: () => void;
}

export function Review({ artifact, picked, name, setName, timeouts, setTimeouts, back }: Props) {
  const navigate = useNavigate();
  const queries = useQueryClient();
  const [problem, setProblem] = useState<string | null>(null);
  const [busy, setBusy] = useState(false);
  const proposed = proposedName(artifact);
  const submit = async (start: boolean): Promise<void> => {
    setBusy(true);
    setProblem(null);
    try {
      const made = await createCampaign({
        name: name.trim() || proposed,
        artifact: artifact.id,
        devices: [...picked],
        start: false,
        ...(Object.keys(timeouts).length ? { timeouts } : {}),
      });
      await queries.invalidateQueries({ queryKey: ["campaigns"] });
      // Made first, started after: when the start fails, nothing has to be entered again.
      if (start) {
        try {
          await startCampaign(made.id);
          told(`The update of ${plural(made.total, "device")} has started`);
        } catch (error) {
          failed("It was saved, but not started", error);
        }
      }
      void navigate(`/campaigns/${made.id}`, { replace: true });
    } catch (error) {
      setProblem(asProblem(error).message);
      setBusy(false);
    }
  };
  return (
    <div style={{ maxWidth: 640 }}>
      {problem && (
        <div className="notice" data-tone="bad" role="alert" style={{ marginBottom: 12 }}>
          {clip(problem, 400)}
        </div>
      )}
      <TextInput
        label="Name of this update"
        placeholder={proposed}
        value={name}
        onChange={(event) => setName(event.currentTarget.value)}
        maxLength={128}
        data-testid="campaign-name-input"
        mb="md"
      />
      <Summary artifact={artifact} picked={picked} />
      <TimeLimits timeouts={timeouts} change={setTimeouts} />
      <Group mt="lg" gap="xs">
        <Button variant="default" onClick={back}>
          Back
        </Button>
        <Button variant="default" onClick={() => void submit(false)} disabled={busy} data-testid="campaign-save-draft">
          Save as draft
        </Button>
        <Button onClick={() => void submit(true)} loading={busy} data-testid="campaign-submit">
          Update {plural(picked.size, "device")}
        </Button>
      </Group>
      <div className="dim" style={{ fontSize: "0.75rem", marginTop: 8 }}>
        A running update can be aborted at any time.
      </div>
    </div>
  );
}

function Summary({ artifact, picked }: { artifact: Artifact; picked: ReadonlySet<string> }) {
  return (
    <dl className="facts">
      <dt>Firmware</dt>
      <dd>
        <b className="mono">{clip(artifact.version, 64)}</b> {clip(artifact.name, 80)}, {bytes(artifact.size)}
      </dd>
      <dt>Digest</dt>
      <dd className="mono">{middle(artifact.sha256, 40)}</dd>
      <dt>Devices</dt>
      <dd>
        <b>{count(picked.size)}</b>{" "}
        <span className="dim mono">
          {[...picked]
            .slice(0, 5)
            .map((id) => middle(id, 24))
            .join(", ")}
          {picked.size > 5 && ` and ${count(picked.size - 5)} more`}
        </span>
      </dd>
      <dt>Offline ones</dt>
      <dd>get the offer when they connect</dd>
      <dt>It counts as done</dt>
      <dd>
        when the device reports version <span className="mono">{clip(artifact.version, 40)}</span> after its restart
      </dd>
    </dl>
  );
}

function proposedName({ name, version }: Artifact): string {
  const stem = name.replace(/\.[a-z]+$/i, "").slice(0, 60);
  return (stem.includes(version) ? stem : `${stem} ${version}`).slice(0, 128);
}
