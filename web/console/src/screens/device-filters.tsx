// Which devices are listed: the filters are in the address.
import { Button, SegmentedControl, Select, TextInput } from "@mantine/core";
import type { DeviceFilter } from "../api/calls";
import type { DeviceStatus } from "../api/shapes";
import type { Address } from "../parts/address";
import { Icon } from "../parts/icons";
import { SearchField } from "../parts/search-field";
import { wordOf } from "../parts/status";
import { clip } from "../text/clip";
import { deviceColumns } from "./device-columns";

const statuses: DeviceStatus[] = ["online", "offline", "stale", "never_seen", "disabled"];
const choices = [{ value: "", label: "All" }, ...statuses.map((value) => ({ value, label: wordOf(value) }))];
const limits = ["50", "100", "200", "500"] as const;
const sorts = deviceColumns
  .filter(({ sortable }) => sortable)
  .flatMap(({ id }) => [id, `-${id}`] as NonNullable<DeviceFilter["sort"]>[]);

/** What the address asks for; words it does not know are left out. */
export function deviceFilter(address: Address) {
  return {
    q: address.get("q").slice(0, 128),
    tag: address.get("tag").slice(0, 64),
    status: address.pick("status", statuses),
    firmware: address.get("firmware").slice(0, 128),
    sort: address.pick("sort", sorts),
    cursor: address.get("cursor"),
    limit: Number(address.pick("limit", limits) || limits[0]),
  } satisfies DeviceFilter;
}

export function clearFilter(address: Address): void {
  address.set({ q: null, tag: null, status: null, firmware: null });
}

export function DeviceFilters({ address }: { address: Address }) {
  const { q, tag, status, firmware, limit } = deviceFilter(address);
  const setTag = (text: string): void => {
    if (text.trim() !== tag) address.set({ tag: text.trim() });
  };
  return (
    <div className="filters" role="search">
      <SearchField value={q} onChange={(text) => address.set({ q: text }, { replace: true })} />
      <SegmentedControl
        size="xs"
        className="hide-sm"
        data={choices}
        value={status}
        onChange={(next) => address.set({ status: next })}
        data-testid="filter-status"
      />
      <Select
        size="xs"
        hiddenFrom="sm"
        w={120}
        aria-label="Status"
        data={choices}
        value={status}
        onChange={(next) => address.set({ status: next })}
      />
      <TextInput
        size="xs"
        w={120}
        placeholder="Tag"
        aria-label="Tag"
        defaultValue={tag}
        key={tag}
        maxLength={64}
        data-testid="filter-tag"
        onBlur={(event) => setTag(event.currentTarget.value)}
        onKeyDown={(event) => {
          if (event.key === "Enter") setTag(event.currentTarget.value);
        }}
      />
      {firmware !== "" && (
        <Button
          variant="default"
          fw={400}
          onClick={() => address.set({ firmware: null })}
          rightSection={<Icon name="close" size={11} />}
          title="Remove this filter"
          aria-label={`Firmware ${clip(firmware, 64)}: remove this filter`}
          data-testid="filter-firmware"
        >
          Firmware&ensp;<span className="mono">{clip(firmware, 24)}</span>
        </Button>
      )}
      {(q || tag || status || firmware) && (
        <Button variant="subtle" color="gray" onClick={() => clearFilter(address)} data-testid="filter-clear">
          Clear
        </Button>
      )}
      <Select
        size="xs"
        w={92}
        ml="auto"
        visibleFrom="sm"
        aria-label="Rows a page"
        data={limits.map((value) => ({ value, label: `${value} rows` }))}
        value={String(limit)}
        onChange={(next) => address.set({ limit: next === limits[0] ? null : next })}
      />
    </div>
  );
}
