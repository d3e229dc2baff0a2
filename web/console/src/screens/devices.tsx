// All devices: the server filters, sorts and pages; the URL holds the question.
import { Button } from "@mantine/core";
import { keepPreviousData, useQuery, useQueryClient } from "@tanstack/react-query";
import { useNavigate } from "react-router";
import { listDevices } from "../api/calls";
import { useMay } from "../api/session";
import type { Device, DeviceStatus, Page } from "../api/shapes";
import { useLive } from "../live/hooks";
import { useAddress } from "../parts/address";
import { DataTable } from "../parts/data-table";
import { Pager } from "../parts/pager";
import { Empty, Failure, Lines } from "../parts/states";
import { useSteady } from "../parts/steady";
import { AddDevice } from "./add-device";
import { deviceColumns } from "./device-columns";
import { clearFilter, deviceFilter, DeviceFilters } from "./device-filters";

export default function Devices() {
  const address = useAddress();
  const navigate = useNavigate();
  const queries = useQueryClient();
  const mayAct = useMay("operator");
  const filter = deviceFilter(address);
  const isFiltered = [filter.q, filter.tag, filter.status, filter.firmware, filter.cursor].some(
    (value) => value !== "",
  );
  const devices = useQuery({
    queryKey: ["devices", "list", filter],
    queryFn: () => listDevices(filter),
    placeholderData: keepPreviousData,
    refetchInterval: 10_000,
  });
  const steady = useSteady(
    devices.isPlaceholderData ? undefined : devices.data?.items,
    ({ id }) => id,
    JSON.stringify(filter),
  );
  useLive("presence", undefined, (data) => {
    const change = data as { device?: string; status?: DeviceStatus; at?: string };
    if (!change.device || !change.status) return;
    const changed = (device: Device): Device => ({
      ...device,
      status: change.status!,
      since: change.at ?? device.since,
      last_seen: change.at ?? device.last_seen,
    });
    queries.setQueryData<Page<Device>>(
      ["devices", "list", filter],
      (page) =>
        page && {
          ...page,
          items: page.items.map((device) => (device.id === change.device ? changed(device) : device)),
        },
    );
  });
  const rows = devices.isPlaceholderData ? (devices.data?.items ?? []) : steady.rows;
  const adding = address.get("add") === "1" && mayAct;
  const add = (): void => address.set({ add: "1" }, { keepPage: true });
  return (
    <>
      <div className="head">
        <h1>Devices</h1>
        {mayAct && (
          <Button onClick={add} data-testid="add-device">
            Add a device
          </Button>
        )}
      </div>
      <DeviceFilters address={address} />
      {devices.isError && (
        <div style={{ marginBottom: 10 }}>
          <Failure what="The devices could not be loaded" error={devices.error} retry={() => void devices.refetch()} />
        </div>
      )}
      {steady.waiting > 0 && (
        <button type="button" className="waiting" onClick={steady.show} data-testid="list-changed">
          The list has changed: {steady.waiting} {steady.waiting === 1 ? "row" : "rows"}. Show
        </button>
      )}
      {devices.isLoading ? (
        <Lines rows={12} />
      ) : rows.length > 0 ? (
        <>
          <DataTable
            label="Devices"
            testid="device-table"
            columns={deviceColumns}
            rows={rows}
            rowId={({ id }) => id}
            rowData={(device) => ({ "data-testid": "device-row", "data-device": device.id })}
            sort={filter.sort || "id"}
            onSort={(sort) => address.set({ sort: sort === "id" ? null : sort })}
            onOpen={({ id }) => void navigate(`/devices/${encodeURIComponent(id)}`)}
          />
          <Pager
            address={address}
            next={devices.data?.next_cursor}
            total={devices.data?.total}
            shown={rows.length}
            noun="devices"
          />
        </>
      ) : devices.data && isFiltered ? (
        <Empty
          title="No device matches"
          action={
            <Button variant="default" onClick={() => clearFilter(address)}>
              Clear the filter
            </Button>
          }
        >
          The filter looks at id and name, status, tag and firmware.
        </Empty>
      ) : (
        devices.data && (
          <Empty
            title="Connect your first device"
            action={
              mayAct && (
                <Button onClick={add} data-testid="first-device">
                  Add a device
                </Button>
              )
            }
          >
            A device gets an id and a token, then sends its readings over MQTT or HTTP. You will see the commands to try
            it from a terminal.
          </Empty>
        )
      )}
      {adding && (
        <AddDevice
          close={() => {
            address.set({ add: null }, { replace: true, keepPage: true });
            void queries.invalidateQueries({ queryKey: ["devices"] });
          }}
        />
      )}
    </>
  );
}
