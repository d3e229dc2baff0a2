// One device: what it is, and a tab for each thing one does with it.
import { ActionIcon, Button, Group, Menu, Modal, Stack, Tabs, TagsInput, TextInput } from "@mantine/core";
import { useQuery, useQueryClient } from "@tanstack/react-query";
import { lazy, Suspense, useState } from "react";
import { Link, useNavigate, useParams } from "react-router";
import { deleteDevice, getDevice, kickSession, updateDevice } from "../../api/calls";
import { asProblem } from "../../api/problem";
import { useMay } from "../../api/session";
import type { Device as DeviceData, DeviceStatus } from "../../api/shapes";
import { useLive } from "../../live/hooks";
import { useAddress } from "../../parts/address";
import { Ago } from "../../parts/ago";
import { Confirm } from "../../parts/confirm";
import { CopyButton } from "../../parts/copy";
import { Icon } from "../../parts/icons";
import { Failure, Lines } from "../../parts/states";
import { Status } from "../../parts/status";
import { failed, told } from "../../parts/toast";
import { clip } from "../../text/clip";
import { Commands } from "./commands";
import { Credentials } from "./credentials";
import { Timeline } from "./timeline";
import { Twin } from "./twin";

const Telemetry = lazy(() => import("./telemetry"));

const tabs = [["summary", "Telemetry"], ["twin", "Twin"], ["commands", "Commands"], ["timeline", "Timeline"], ["credentials", "Credentials"]] as const;

export default function Device() {
  const id = useParams().id!;
  const address = useAddress();
  const queries = useQueryClient();
  const mayAct = useMay("operator");
  const [dialog, setDialog] = useState<"edit" | "disable" | "delete" | "kick" | null>(null);
  const navigate = useNavigate();
  const device = useQuery({ queryKey: ["devices", "one", id], queryFn: () => getDevice(id), refetchInterval: 15_000 });
  useLive("presence", id, (data) => {
    const change = data as { status?: DeviceStatus; at?: string };
    if (!change.status) return;
    queries.setQueryData<DeviceData>(["devices", "one", id], (before) => before && { ...before, status: change.status!, since: change.at ?? before.since });
    void queries.invalidateQueries({ queryKey: ["devices", "one", id] });
  });
  if (device.isError && !device.data) {
    return asProblem(device.error).status === 404
      ? <div className="empty"><h2>There is no device “{clip(id, 64)}”</h2><p>It may have been deleted.</p><Button component={Link} to="/devices">All devices</Button></div>
      : <Failure what="The device could not be loaded" error={device.error} retry={() => void device.refetch()} />;
  }
  if (!device.data) return <><div className="head"><h1 className="mono">{clip(id, 64)}</h1></div><Lines rows={10} /></>;
  const data = device.data;
  const tab = address.get("tab") || "summary";
  const isDisabled = data.status === "disabled";
  const act = (what: string, run: () => Promise<unknown>) => async (): Promise<void> => {
    await run();
    told(what);
    await queries.invalidateQueries({ queryKey: ["devices"] });
  };
  return (
    <>
      <div className="head" style={{ marginBottom: 8 }}>
        <div>
          <h1><span className="mono">{id}</span> <CopyButton text={id} label="Copy the id" /></h1>
          {data.name && <div className="dim" style={{ overflowWrap: "anywhere" }}>{clip(data.name, 128)}</div>}
        </div>
        <Group gap="sm">
          <Status state={data.status} testid="device-status" quiet={false} />
          <span className="dim" style={{ fontSize: "0.8125rem" }}>{data.status === "never_seen" ? "" : <>since <Ago at={data.since} /></>}</span>
          {mayAct && (
            <Menu position="bottom-end" width={190}>
              <Menu.Target><ActionIcon variant="default" size="md" aria-label="Actions" data-testid="device-actions"><Icon name="more" /></ActionIcon></Menu.Target>
              <Menu.Dropdown>
                <Menu.Item onClick={() => setDialog("edit")} data-testid="device-edit">Edit name and tags</Menu.Item>
                <Menu.Item onClick={() => setDialog("kick")} disabled={data.status !== "online"} data-testid="device-kick">Drop the connection</Menu.Item>
                {isDisabled
                  ? <Menu.Item data-testid="device-enable" onClick={() => void act("Enabled", () => updateDevice(id, { disabled: false }))().catch((error: unknown) => failed("Not enabled", error))}>Enable</Menu.Item>
                  : <Menu.Item onClick={() => setDialog("disable")} data-testid="device-disable">Disable</Menu.Item>}
                <Menu.Divider />
                <Menu.Item c="var(--bad)" onClick={() => setDialog("delete")} data-testid="device-delete">Delete</Menu.Item>
              </Menu.Dropdown>
            </Menu>
          )}
        </Group>
      </div>
      <Facts device={data} />
      <Tabs value={tab} onChange={(next) => address.set({ tab: next === "summary" ? null : next, cursor: null })} keepMounted={false} mt={14}>
        <Tabs.List className="tabs-scroll" mb={16}>
          {tabs.map(([name, label]) => <Tabs.Tab key={name} value={name} data-testid={`tab-${name}`}>{label}</Tabs.Tab>)}
        </Tabs.List>
        <Tabs.Panel value="summary"><Suspense fallback={<Lines rows={8} />}><Telemetry id={id} /></Suspense></Tabs.Panel>
        <Tabs.Panel value="twin"><Twin id={id} /></Tabs.Panel>
        <Tabs.Panel value="commands"><Commands id={id} online={data.status === "online"} /></Tabs.Panel>
        <Tabs.Panel value="timeline"><Timeline id={id} /></Tabs.Panel>
        <Tabs.Panel value="credentials"><Credentials id={id} /></Tabs.Panel>
      </Tabs>
      {dialog === "edit" && <Edit device={data} close={() => setDialog(null)} />}
      {dialog === "kick" && (
        <Confirm title="Drop the connection?" action="Drop connection" close={() => setDialog(null)} run={act("Connection dropped", () => kickSession(id))}>
          <b className="mono">{id}</b> will be disconnected. Nothing keeps it from connecting again.
        </Confirm>
      )}
      {dialog === "disable" && (
        <Confirm title="Disable this device?" action="Disable device" close={() => setDialog(null)} run={act("Disabled", () => updateDevice(id, { disabled: true }))}>
          <b className="mono">{id}</b> is disconnected and cannot connect until somebody enables it. Its readings are kept.
        </Confirm>
      )}
      {dialog === "delete" && (
        <Confirm title="Delete this device?" action="Delete device" type={id} close={() => setDialog(null)}
          run={async () => { await deleteDevice(id); told(`${id} was deleted`); void navigate("/devices"); queries.removeQueries({ queryKey: ["devices", "one", id] }); await queries.invalidateQueries({ queryKey: ["devices", "list"] }); }}>
          <b className="mono">{id}</b> with its credentials, twin and history will be gone. This cannot be undone.
        </Confirm>
      )}
    </>
  );
}

function Facts({ device }: { device: DeviceData }) {
  const facts: [string, React.ReactNode][] = [
    ["Last seen", <Ago at={device.last_seen} />],
    ["Firmware", device.firmware ? <span className="mono" data-testid="device-firmware">{clip(device.firmware, 40)}</span> : <span className="dim">not reported</span>],
    ...(device.target_firmware && device.target_firmware !== device.firmware ? [["Updating to", <span className="mono">{clip(device.target_firmware, 40)}</span>] as [string, React.ReactNode]] : []),
    ["Link", device.link ? `${clip(device.link, 24)}${device.address ? ` from ${clip(device.address, 48)}` : ""}` : <span className="dim">–</span>],
    ...(device.tags.length ? [["Tags", device.tags.slice(0, 12).map((tag, i) => <span key={tag}>{i > 0 && ", "}<Link className="plain" to={`/devices?tag=${encodeURIComponent(tag)}`}>{clip(tag, 32)}</Link></span>)] as [string, React.ReactNode]] : []),
    ["Added", <Ago at={device.created_at} />],
  ];
  return (
    <div style={{ display: "flex", flexWrap: "wrap", gap: "4px 28px", fontSize: "0.8125rem" }}>
      {facts.map(([name, value]) => <span key={name} style={{ minWidth: 0, overflowWrap: "anywhere" }}><span className="dim">{name}</span>&ensp;{value}</span>)}
    </div>
  );
}

function Edit({ device, close }: { device: DeviceData; close: () => void }) {
  const queries = useQueryClient();
  const [name, setName] = useState(device.name ?? "");
  const [tags, setTags] = useState(device.tags);
  const [busy, setBusy] = useState(false);
  const save = async (): Promise<void> => {
    setBusy(true);
    try {
      await updateDevice(device.id, { ...(name.trim() ? { name: name.trim() } : {}), tags });
      await queries.invalidateQueries({ queryKey: ["devices"] });
      told("Saved");
      close();
    } catch (error) {
      failed("Not saved", error);
      setBusy(false);
    }
  };
  return (
    <Modal opened onClose={close} title={<b>Edit {clip(device.id, 40)}</b>}>
      <form onSubmit={(event) => { event.preventDefault(); void save(); }}>
        <Stack gap="sm">
          <TextInput label="Name" value={name} onChange={(event) => setName(event.currentTarget.value)} maxLength={128} data-autofocus data-testid="edit-name" />
          <TagsInput label="Tags" value={tags} onChange={setTags} maxTags={64} splitChars={[",", " "]} data-testid="edit-tags" />
          <Group justify="flex-end" gap="xs"><Button variant="default" onClick={close}>Cancel</Button><Button type="submit" loading={busy} data-testid="edit-save">Save</Button></Group>
        </Stack>
      </form>
    </Modal>
  );
}
