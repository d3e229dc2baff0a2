// All devices: the server filters, sorts and pages; the URL holds the question.
import { Button, SegmentedControl, Select, TextInput } from "@mantine/core";
import { useDebouncedCallback } from "@mantine/hooks";
import { keepPreviousData, useQuery, useQueryClient } from "@tanstack/react-query";
import { useEffect, useState } from "react";
import { Link, useNavigate } from "react-router";
import { listDevices, type DeviceFilter } from "../api/calls";
import { useMay } from "../api/session";
import type { Device, DeviceStatus, Page } from "../api/shapes";
import { useLive } from "../live/hooks";
import { useAddress } from "../parts/address";
import { Ago } from "../parts/ago";
import { DataTable, type Column } from "../parts/data-table";
import { Icon } from "../parts/icons";
import { Pager } from "../parts/pager";
import { Empty, Failure, Lines } from "../parts/states";
import { Status } from "../parts/status";
import { useSteady } from "../parts/steady";
import { clip, middle } from "../text/clip";
import { AddDevice } from "./add-device";

export const deviceColumns: Column<Device>[] = [
  { id: "status", header: "Status", width: 118, sortable: true, cell: (device) => <Status state={device.status} testid="device-status" /> },
  {
    id: "id", header: "Id", sortable: true, width: "24%",
    cell: (device) => <Link className="plain mono" style={{ fontWeight: 500 }} title={device.id} to={`/devices/${encodeURIComponent(device.id)}`}>{middle(device.id, 40)}</Link>,
  },
  { id: "name", header: "Name", sortable: true, hide: "sm", cell: (device) => device.name && <span title={clip(device.name, 200)}>{clip(device.name, 64)}</span> },
  { id: "tags", header: "Tags", hide: "md", cell: (device) => <Tags tags={device.tags} /> },
  {
    id: "firmware", header: "Firmware", sortable: true, width: 150, hide: "sm",
    cell: (device) => (
      <span className="mono" title={clip(device.firmware ?? "", 200)}>
        {device.firmware ? clip(device.firmware, 20) : <span className="dim">–</span>}
        {device.target_firmware && device.target_firmware !== device.firmware && <span className="dim"> → {clip(device.target_firmware, 12)}</span>}
      </span>
    ),
  },
  { id: "last_seen", header: "Last seen", sortable: true, width: 112, align: "right", cell: (device) => <Ago at={device.last_seen} /> },
];

function Tags({ tags }: { tags: string[] }) {
  if (tags.length === 0) return null;
  const shown = tags.slice(0, 3);
  return (
    <span title={tags.slice(0, 30).map((tag) => clip(tag, 64)).join(", ")}>
      {shown.map((tag, i) => <span key={tag}>{i > 0 && ", "}<Link className="plain" to={`/devices?tag=${encodeURIComponent(tag)}`}>{clip(tag, 24)}</Link></span>)}
      {tags.length > shown.length && <span className="dim"> +{tags.length - shown.length}</span>}
    </span>
  );
}

const statuses = [
  { value: "", label: "All" }, { value: "online", label: "Online" }, { value: "offline", label: "Offline" },
  { value: "never_seen", label: "Never seen" }, { value: "disabled", label: "Disabled" },
];

export default function Devices() {
  const address = useAddress();
  const navigate = useNavigate();
  const queries = useQueryClient();
  const mayAct = useMay("operator");
  const filter = {
    q: address.get("q"), tag: address.get("tag"), status: address.get("status") as DeviceStatus | "",
    sort: address.get("sort") as DeviceFilter["sort"], cursor: address.get("cursor"), limit: Number(address.get("limit")) || 50,
  };
  const isFiltered = filter.q !== "" || filter.tag !== "" || filter.status !== "";
  const key = JSON.stringify(filter);
  const devices = useQuery({
    queryKey: ["devices", "list", filter], queryFn: () => listDevices(filter), placeholderData: keepPreviousData, refetchInterval: 10_000,
  });
  const steady = useSteady(devices.isPlaceholderData ? undefined : devices.data?.items, ({ id }) => id, key);
  useLive("presence", undefined, (data) => {
    const change = data as { device?: string; status?: DeviceStatus; at?: string };
    if (!change.device || !change.status) return;
    queries.setQueryData<Page<Device>>(["devices", "list", filter], (page) => page && {
      ...page,
      items: page.items.map((device) => (device.id === change.device
        ? { ...device, status: change.status!, since: change.at ?? device.since, last_seen: change.at ?? device.last_seen } : device)),
    });
  });
  const rows = devices.isPlaceholderData ? devices.data?.items ?? [] : steady.rows;
  const adding = address.get("add") === "1" && mayAct;
  return (
    <>
      <div className="head">
        <h1>Devices</h1>
        {mayAct && <Button onClick={() => address.set({ add: "1" }, { keepPage: true })} data-testid="add-device">Add a device</Button>}
      </div>
      <div className="filters" role="search">
        <SearchField value={filter.q} onChange={(q) => address.set({ q }, { replace: true })} />
        <SegmentedControl size="xs" className="hide-sm" data={statuses} value={filter.status} onChange={(status) => address.set({ status })} data-testid="filter-status" />
        <Select size="xs" hiddenFrom="sm" w={120} aria-label="Status" data={statuses} value={filter.status} onChange={(status) => address.set({ status })} />
        <TextInput size="xs" w={120} placeholder="Tag" aria-label="Tag" defaultValue={filter.tag} key={filter.tag} maxLength={64} data-testid="filter-tag"
          onBlur={(event) => { if (event.currentTarget.value !== filter.tag) address.set({ tag: event.currentTarget.value.trim() }); }}
          onKeyDown={(event) => { if (event.key === "Enter") address.set({ tag: event.currentTarget.value.trim() }); }} />
        {isFiltered && <Button variant="subtle" color="gray" onClick={() => address.set({ q: null, tag: null, status: null })} data-testid="filter-clear">Clear</Button>}
        <Select size="xs" w={92} ml="auto" visibleFrom="sm" aria-label="Rows a page" data={["50", "100", "200", "500"].map((n) => ({ value: n, label: `${n} rows` }))}
          value={String(filter.limit)} onChange={(limit) => address.set({ limit: limit === "50" ? null : limit })} />
      </div>
      {devices.isError && <div style={{ marginBottom: 10 }}><Failure what="The devices could not be loaded" error={devices.error} retry={() => void devices.refetch()} /></div>}
      {steady.waiting > 0 && <button type="button" className="waiting" onClick={steady.show} data-testid="list-changed">The list has changed: {steady.waiting} {steady.waiting === 1 ? "row" : "rows"}. Show</button>}
      {devices.isLoading ? <Lines rows={12} />
        : rows.length > 0 ? (
          <>
            <DataTable label="Devices" testid="device-table" columns={deviceColumns} rows={rows} rowId={({ id }) => id}
              rowData={(device) => ({ "data-testid": "device-row", "data-device": device.id })} sort={filter.sort || "id"}
              onSort={(sort) => address.set({ sort: sort === "id" ? null : sort })} onOpen={({ id }) => void navigate(`/devices/${encodeURIComponent(id)}`)} />
            <Pager address={address} next={devices.data?.next_cursor} total={devices.data?.total} shown={rows.length} noun="devices" />
          </>
        ) : devices.data && (isFiltered || filter.cursor
          ? <Empty title="No device matches" action={<Button variant="default" onClick={() => address.set({ q: null, tag: null, status: null })}>Clear the filter</Button>}>The filter looks at id and name, status and tag.</Empty>
          : <Empty title="Connect your first device" action={mayAct && <Button onClick={() => address.set({ add: "1" })} data-testid="first-device">Add a device</Button>}>
            A device gets an id and a token, then sends its readings over MQTT or HTTP. You will see the commands to try it from a terminal.
          </Empty>)}
      {adding && <AddDevice close={() => { address.set({ add: null }, { replace: true, keepPage: true }); void queries.invalidateQueries({ queryKey: ["devices"] }); }} />}
    </>
  );
}

export function SearchField({ value, onChange, placeholder = "Id or name" }: { value: string; onChange: (value: string) => void; placeholder?: string }) {
  const [text, setText] = useState(value);
  const say = useDebouncedCallback(onChange, 250);
  // The URL may change by itself (back button, a link): the field follows unless somebody types in it.
  useEffect(() => setText((now) => (now.trim() === value ? now : value)), [value]);
  return (
    <TextInput size="xs" w={240} style={{ flex: "0 1 240px" }} placeholder={placeholder} aria-label={`Search: ${placeholder}`} value={text} maxLength={128} data-page-search
      data-testid="search" leftSection={<Icon name="search" size={13} />} onChange={(event) => { setText(event.currentTarget.value); say(event.currentTarget.value.trim()); }} />
  );
}
