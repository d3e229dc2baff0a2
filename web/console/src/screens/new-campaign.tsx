// Make an update in three steps: which firmware, which devices, look again and start.
import { Anchor, Button, Collapse, Group, NumberInput, SegmentedControl, Select, Stepper, TextInput } from "@mantine/core";
import { keepPreviousData, useQuery, useQueryClient } from "@tanstack/react-query";
import { useState } from "react";
import { Link, useNavigate, useSearchParams } from "react-router";
import { createCampaign, listArtifacts, listDevices, startCampaign, type DeviceFilter } from "../api/calls";
import { asProblem } from "../api/problem";
import { useMay } from "../api/session";
import type { Artifact, DeviceStatus, Timeouts } from "../api/shapes";
import { Ago } from "../parts/ago";
import { DataTable, type Column } from "../parts/data-table";
import { Empty, Failure, Lines } from "../parts/states";
import { failed, told } from "../parts/toast";
import { clip, middle } from "../text/clip";
import { bytes, count, plural } from "../text/numbers";
import { deviceColumns, SearchField } from "./devices";

const MOST = 10_000;

export default function NewCampaign() {
  const [params] = useSearchParams();
  const navigate = useNavigate();
  const queries = useQueryClient();
  const mayAct = useMay("operator");
  const [artifactId, setArtifactId] = useState(params.get("artifact") ?? "");
  const [picked, setPicked] = useState<ReadonlySet<string>>(new Set(params.getAll("device")));
  const [step, setStep] = useState(artifactId ? 1 : 0);
  const [name, setName] = useState("");
  const [timeouts, setTimeouts] = useState<Partial<Timeouts>>({});
  const [problem, setProblem] = useState<string | null>(null);
  const [busy, setBusy] = useState(false);
  const artifacts = useQuery({ queryKey: ["artifacts", "list", "", "wizard"], queryFn: () => listArtifacts({ limit: 500 }) });
  const artifact = artifacts.data?.items.find(({ id }) => id === artifactId);
  if (!mayAct) return <Empty title="Your role only looks" action={<Button component={Link} to="/campaigns">All updates</Button>}>Updating devices needs the role operator.</Empty>;
  const stem = artifact?.name.replace(/\.[a-z]+$/i, "").slice(0, 60) ?? "";
  const proposed = artifact ? (stem.includes(artifact.version) ? stem : `${stem} ${artifact.version}`).slice(0, 128) : "";
  const submit = async (start: boolean): Promise<void> => {
    setBusy(true);
    setProblem(null);
    try {
      const made = await createCampaign({ name: name.trim() || proposed, artifact: artifactId, devices: [...picked], start: false, ...(Object.keys(timeouts).length ? { timeouts } : {}) });
      await queries.invalidateQueries({ queryKey: ["campaigns"] });
      // Made first, started after: when the start fails, nothing has to be entered again.
      if (start) {
        try { await startCampaign(made.id); told(`The update of ${plural(made.total, "device")} has started`); }
        catch (error) { failed("It was saved, but not started", error); }
      }
      void navigate(`/campaigns/${made.id}`, { replace: true });
    } catch (error) {
      setProblem(asProblem(error).message);
      setBusy(false);
    }
  };
  return (
    <>
      <div className="head"><h1>Update devices</h1></div>
      <Stepper active={step} onStepClick={setStep} size="xs" mb="md" allowNextStepsSelect={false} maw={760} iconSize={26}>
        <Stepper.Step label="Firmware" description={artifact ? clip(artifact.version, 20) : undefined} />
        <Stepper.Step label="Devices" description={picked.size ? `${count(picked.size)} picked` : undefined} />
        <Stepper.Step label="Review" />
      </Stepper>
      {step === 0 && (
        artifacts.isError ? <Failure what="The firmware could not be loaded" error={artifacts.error} retry={() => void artifacts.refetch()} />
          : artifacts.isLoading ? <Lines />
          : artifacts.data!.items.length === 0 ? <Empty title="There is no firmware yet" action={<Button component={Link} to="/firmware?upload=1">Upload firmware</Button>}>An update needs an image to send.</Empty>
          : <PickArtifact items={artifacts.data!.items} pick={(id) => { setArtifactId(id); setStep(1); }} />
      )}
      {step === 1 && <PickDevices picked={picked} onPick={setPicked} back={() => setStep(0)} next={() => setStep(2)} />}
      {step === 2 && artifact && (
        <div style={{ maxWidth: 640 }}>
          {problem && <div className="notice" data-tone="bad" role="alert" style={{ marginBottom: 12 }}>{clip(problem, 400)}</div>}
          <TextInput label="Name of this update" placeholder={proposed} value={name} onChange={(event) => setName(event.currentTarget.value)} maxLength={128} data-testid="campaign-name-input" mb="md" />
          <dl className="facts">
            <dt>Firmware</dt><dd><b className="mono">{clip(artifact.version, 64)}</b> {clip(artifact.name, 80)}, {bytes(artifact.size)}</dd>
            <dt>Digest</dt><dd className="mono">{middle(artifact.sha256, 40)}</dd>
            <dt>Devices</dt><dd><b>{count(picked.size)}</b> <span className="dim mono">{[...picked].slice(0, 5).map((id) => middle(id, 24)).join(", ")}{picked.size > 5 && ` and ${count(picked.size - 5)} more`}</span></dd>
            <dt>Offline ones</dt><dd>get the offer when they connect</dd>
            <dt>It counts as done</dt><dd>when the device reports version <span className="mono">{clip(artifact.version, 40)}</span> after its restart</dd>
          </dl>
          <TimeoutFields timeouts={timeouts} change={setTimeouts} />
          <Group mt="lg" gap="xs">
            <Button variant="default" onClick={() => setStep(1)}>Back</Button>
            <Button variant="default" onClick={() => void submit(false)} disabled={busy} data-testid="campaign-save-draft">Save as draft</Button>
            <Button onClick={() => void submit(true)} loading={busy} data-testid="campaign-submit">Update {plural(picked.size, "device")}</Button>
          </Group>
          <div className="dim" style={{ fontSize: "0.75rem", marginTop: 8 }}>A running update can be aborted at any time.</div>
        </div>
      )}
    </>
  );
}

function PickArtifact({ items, pick }: { items: Artifact[]; pick: (id: string) => void }) {
  const columns: Column<Artifact>[] = [
    { id: "version", header: "Version", width: 160, value: (each) => each.version, cell: (each) => <Anchor component="button" type="button" size="sm" c="inherit" className="mono cut" display="block" underline="hover" fw={600} title={clip(each.version, 64)} onClick={() => pick(each.id)} data-testid="pick-artifact">{clip(each.version, 24)}</Anchor> },
    { id: "name", header: "Name", value: (each) => each.name, cell: (each) => <>{clip(each.name, 64)} <span className="dim">{clip(each.description, 80)}</span></> },
    { id: "size", header: "Size", width: 90, align: "right", value: (each) => each.size, cell: (each) => bytes(each.size) },
    { id: "created", header: "Uploaded", width: 110, align: "right", hide: "sm", value: (each) => each.created_at, cell: (each) => <Ago at={each.created_at} /> },
  ];
  return <DataTable label="Pick a firmware" testid="artifact-picker" columns={columns} rows={items} rowId={({ id }) => id} rowData={({ version }) => ({ "data-testid": "artifact-choice", "data-version": version })} onOpen={({ id }) => pick(id)} />;
}

function PickDevices({ picked, onPick, back, next }: { picked: ReadonlySet<string>; onPick: (picked: ReadonlySet<string>) => void; back: () => void; next: () => void }) {
  const [q, setQ] = useState("");
  const [tag, setTag] = useState("");
  const [status, setStatus] = useState<DeviceStatus | "">("");
  const [sort, setSort] = useState<NonNullable<DeviceFilter["sort"]>>("id");
  const [pages, setPages] = useState<string[]>([""]);
  const [gathering, setGathering] = useState(false);
  const filter = { q, tag, status };
  const cursor = pages.at(-1)!;
  const devices = useQuery({ queryKey: ["devices", "picker", filter, sort, cursor], queryFn: () => listDevices({ ...filter, sort, cursor, limit: 200 }), placeholderData: keepPreviousData });
  const change = (apply: () => void): void => { apply(); setPages([""]); };
  const toggle = (ids: string[], on: boolean): void => {
    const after = new Set(picked);
    for (const id of ids) if (on) after.add(id); else after.delete(id);
    onPick(after);
  };
  const total = devices.data?.total ?? null;
  const pickAll = async (): Promise<void> => {
    setGathering(true);
    try {
      const after = new Set(picked);
      let at = "";
      do {
        const page = await listDevices({ ...filter, cursor: at, limit: 500 });
        for (const { id } of page.items) after.add(id);
        at = page.next_cursor ?? "";
      } while (at && after.size < MOST);
      onPick(new Set([...after].slice(0, MOST)));
    } catch (error) { failed("Not all devices could be picked", error); }
    setGathering(false);
  };
  const rows = devices.data?.items ?? [];
  return (
    <>
      <div className="filters">
        <SearchField value={q} onChange={(text) => change(() => setQ(text))} />
        <TextInput size="xs" w={120} placeholder="Tag" aria-label="Tag" value={tag} onChange={(event) => { const text = event.currentTarget.value; change(() => setTag(text)); }} maxLength={64} />
        <SegmentedControl size="xs" visibleFrom="sm" data={[{ value: "", label: "All" }, { value: "online", label: "Online" }, { value: "offline", label: "Offline" }]} value={status} onChange={(text) => change(() => setStatus(text as DeviceStatus | ""))} />
        <Select size="xs" hiddenFrom="sm" w={110} aria-label="Status" data={[{ value: "", label: "All" }, { value: "online", label: "Online" }, { value: "offline", label: "Offline" }]} value={status} onChange={(text) => change(() => setStatus((text ?? "") as DeviceStatus | ""))} />
        {total !== null && total > rows.length && <Button variant="subtle" color="gray" onClick={() => void pickAll()} loading={gathering} data-testid="pick-all-matching">Pick all {count(Math.min(total, MOST))} {q || tag || status ? "that match" : ""}</Button>}
        {picked.size > 0 && <Button variant="subtle" color="gray" onClick={() => onPick(new Set())}>Pick none</Button>}
      </div>
      {devices.isError && !devices.data ? <Failure what="The devices could not be loaded" error={devices.error} retry={() => void devices.refetch()} />
        : devices.isLoading ? <Lines rows={10} />
        : rows.length === 0 ? <Empty title="No device matches">Change the filter; what you picked stays picked.</Empty>
        : <DataTable label="Pick devices" testid="device-picker" columns={deviceColumns} rows={rows} rowId={({ id }) => id} rowData={({ id }) => ({ "data-testid": "device-choice", "data-device": id })}
            sort={sort} onSort={(next) => change(() => setSort(next as typeof sort))} picked={picked} onPick={toggle} maxHeight="calc(100dvh - 330px)" />}
      <div className="table-foot" style={{ justifyContent: "space-between" }}>
        <span>{total !== null && `${count(rows.length)} of ${count(total)} devices`}</span>
        <Group gap="xs">
          {pages.length > 1 && <Button variant="subtle" color="gray" onClick={() => setPages(pages.slice(0, -1))}>Page back</Button>}
          {devices.data?.next_cursor && <Button variant="subtle" color="gray" onClick={() => setPages([...pages, devices.data!.next_cursor!])}>Next page</Button>}
          <Button variant="default" onClick={back}>Back</Button>
          <Button onClick={next} disabled={picked.size === 0} data-testid="campaign-next">{picked.size === 0 ? "Pick devices" : `Review ${plural(picked.size, "device")}`}</Button>
        </Group>
      </div>
    </>
  );
}

const steps: [keyof Timeouts, string][] = [["offered_s", "Offered"], ["downloading_s", "Downloading"], ["verifying_s", "Verifying"], ["installing_s", "Installing"], ["rebooting_s", "Rebooting"]];

function TimeoutFields({ timeouts, change }: { timeouts: Partial<Timeouts>; change: (next: Partial<Timeouts>) => void }) {
  const [opened, setOpened] = useState(false);
  return (
    <div style={{ marginTop: 12 }}>
      <Anchor component="button" type="button" size="sm" onClick={() => setOpened(!opened)} aria-expanded={opened}>Time limits of the steps</Anchor>
      <Collapse expanded={opened}>
        <Group gap="sm" mt="xs">
          {steps.map(([key, label]) => (
            <NumberInput key={key} label={`${label} (s)`} placeholder="default" w={112} min={1} max={2_592_000} value={timeouts[key] ?? ""} allowDecimal={false}
              onChange={(value) => { const next = { ...timeouts }; if (typeof value === "number") next[key] = value; else delete next[key]; change(next); }} />
          ))}
        </Group>
      </Collapse>
    </div>
  );
}
