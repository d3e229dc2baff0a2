// Second step of an update: which devices. What is picked stays picked while the filter changes.
import { Button, Group, SegmentedControl, Select, TextInput } from "@mantine/core";
import { keepPreviousData, useQuery } from "@tanstack/react-query";
import { useState } from "react";
import { listDevices, type DeviceFilter } from "../../api/calls";
import type { DeviceStatus } from "../../api/shapes";
import { DataTable } from "../../parts/data-table";
import { SearchField } from "../../parts/search-field";
import { Empty, Failure, Lines } from "../../parts/states";
import { failed } from "../../parts/toast";
import { count, plural } from "../../text/numbers";
import { deviceColumns } from "../device-columns";

const MOST = 10_000;
const statuses = [
  { value: "", label: "All" },
  { value: "online", label: "Online" },
  { value: "offline", label: "Offline" },
];

export function PickDevices({
  picked,
  onPick,
  back,
  next,
}: {
  picked: ReadonlySet<string>;
  onPick: (picked: ReadonlySet<string>) => void;
  back: () => void;
  next: () => void;
}) {
  const [q, setQ] = useState("");
  const [tag, setTag] = useState("");
  const [status, setStatus] = useState<DeviceStatus | "">("");
  const [sort, setSort] = useState<NonNullable<DeviceFilter["sort"]>>("id");
  const [pages, setPages] = useState<string[]>([""]);
  const [gathering, setGathering] = useState(false);
  const filter = { q, tag, status };
  const cursor = pages.at(-1)!;
  const devices = useQuery({
    queryKey: ["devices", "picker", filter, sort, cursor],
    queryFn: () => listDevices({ ...filter, sort, cursor, limit: 200 }),
    placeholderData: keepPreviousData,
  });
  const change = (apply: () => void): void => {
    apply();
    setPages([""]);
  };
  const toggle = (ids: string[], on: boolean): void => {
    const after = new Set(picked);
    for (const id of ids)
      if (on) after.add(id);
      else after.delete(id);
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
    } catch (error) {
      failed("Not all devices could be picked", error);
    }
    setGathering(false);
  };
  const rows = devices.data?.items ?? [];
  return (
    <>
      <div className="filters">
        <SearchField value={q} onChange={(text) => change(() => setQ(text))} />
        <TextInput
          size="xs"
          w={120}
          placeholder="Tag"
          aria-label="Tag"
          value={tag}
          onChange={(event) => {
            const text = event.currentTarget.value;
            change(() => setTag(text));
          }}
          maxLength={64}
        />
        <SegmentedControl
          size="xs"
          visibleFrom="sm"
          data={statuses}
          value={status}
          onChange={(text) => change(() => setStatus(text as DeviceStatus | ""))}
        />
        <Select
          size="xs"
          hiddenFrom="sm"
          w={110}
          aria-label="Status"
          data={statuses}
          value={status}
          onChange={(text) => change(() => setStatus((text ?? "") as DeviceStatus | ""))}
        />
        {total !== null && total > rows.length && (
          <Button
            variant="subtle"
            color="gray"
            onClick={() => void pickAll()}
            loading={gathering}
            data-testid="pick-all-matching"
          >
            Pick all {count(Math.min(total, MOST))} {q || tag || status ? "that match" : ""}
          </Button>
        )}
        {picked.size > 0 && (
          <Button variant="subtle" color="gray" onClick={() => onPick(new Set())}>
            Pick none
          </Button>
        )}
      </div>
      {devices.isError && !devices.data ? (
        <Failure what="The devices could not be loaded" error={devices.error} retry={() => void devices.refetch()} />
      ) : devices.isLoading ? (
        <Lines rows={10} />
      ) : rows.length === 0 ? (
        <Empty title="No device matches">Change the filter; what you picked stays picked.</Empty>
      ) : (
        <DataTable
          label="Pick devices"
          testid="device-picker"
          columns={deviceColumns}
          rows={rows}
          rowId={({ id }) => id}
          rowData={({ id }) => ({ "data-testid": "device-choice", "data-device": id })}
          sort={sort}
          onSort={(next) => change(() => setSort(next as typeof sort))}
          picked={picked}
          onPick={toggle}
          maxHeight="calc(100dvh - 330px)"
        />
      )}
      <div className="table-foot" style={{ justifyContent: "space-between" }}>
        <span>{total !== null && `${count(rows.length)} of ${count(total)} devices`}</span>
        <Group gap="xs">
          {pages.length > 1 && (
            <Button variant="subtle" color="gray" onClick={() => setPages(pages.slice(0, -1))}>
              Page back
            </Button>
          )}
          {devices.data?.next_cursor && (
            <Button variant="subtle" color="gray" onClick={() => setPages([...pages, devices.data!.next_cursor!])}>
              Next page
            </Button>
          )}
          <Button variant="default" onClick={back}>
            Back
          </Button>
          <Button onClick={next} disabled={picked.size === 0} data-testid="campaign-next">
            {picked.size === 0 ? "Pick devices" : `Review ${plural(picked.size, "device")}`}
          </Button>
        </Group>
      </div>
    </>
  );
}
