// First step of an update: which firmware.
import { Anchor } from "@mantine/core";
import type { Artifact } from "../../api/shapes";
import { Ago } from "../../parts/ago";
import { DataTable, type Column } from "../../parts/data-table";
import { clip } from "../../text/clip";
import { bytes } from "../../text/numbers";

export function PickArtifact({ items, pick }: { items: Artifact[]; pick: (id: string) => void }) {
  const columns: Column<Artifact>[] = [
    {
      id: "version",
      header: "Version",
      width: 160,
      value: (each) => each.version,
      cell: (each) => (
        <Anchor
          component="button"
          type="button"
          size="sm"
          c="inherit"
          className="mono cut"
          display="block"
          underline="hover"
          fw={600}
          title={clip(each.version, 64)}
          onClick={() => pick(each.id)}
          data-testid="pick-artifact"
        >
          {clip(each.version, 24)}
        </Anchor>
      ),
    },
    {
      id: "name",
      header: "Name",
      value: (each) => each.name,
      cell: (each) => (
        <>
          {clip(each.name, 64)} <span className="dim">{clip(each.description, 80)}</span>
        </>
      ),
    },
    {
      id: "size",
      header: "Size",
      width: 90,
      align: "right",
      value: (each) => each.size,
      cell: (each) => bytes(each.size),
    },
    {
      id: "created",
      header: "Uploaded",
      width: 110,
      align: "right",
      hide: "sm",
      value: (each) => each.created_at,
      cell: (each) => <Ago at={each.created_at} />,
    },
  ];
  return (
    <DataTable
      label="Pick a firmware"
      testid="artifact-picker"
      columns={columns}
      rows={items}
      rowId={({ id }) => id}
      rowData={({ version }) => ({ "data-testid": "artifact-choice", "data-version": version })}
      onOpen={({ id }) => pick(id)}
    />
  );
}
