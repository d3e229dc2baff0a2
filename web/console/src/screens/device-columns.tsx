// How a device looks in a list: among all devices, and where some are picked for an update.
import { Link } from "react-router";
import type { Device } from "../api/shapes";
import { Ago } from "../parts/ago";
import type { Column } from "../parts/data-table";
import { Status } from "../parts/status";
import { clip, middle } from "../text/clip";

export const deviceColumns: Column<Device>[] = [
  {
    id: "status",
    header: "Status",
    width: 118,
    sortable: true,
    cell: (device) => <Status state={device.status} testid="device-status" />,
  },
  {
    id: "id",
    header: "Id",
    sortable: true,
    width: "24%",
    cell: (device) => (
      <Link
        className="plain mono"
        style={{ fontWeight: 500 }}
        title={device.id}
        to={`/devices/${encodeURIComponent(device.id)}`}
      >
        {middle(device.id, 40)}
      </Link>
    ),
  },
  {
    id: "name",
    header: "Name",
    sortable: true,
    hide: "sm",
    // Without a name of its own it goes by its id, which stands beside.
    cell: (device) => device.name !== device.id && <span title={clip(device.name, 200)}>{clip(device.name, 64)}</span>,
  },
  { id: "tags", header: "Tags", hide: "md", cell: (device) => <Tags tags={device.tags} /> },
  {
    id: "firmware",
    header: "Firmware",
    sortable: true,
    width: 150,
    hide: "sm",
    cell: (device) => (
      <span className="mono" title={clip(device.firmware ?? "", 200)}>
        {device.firmware ? clip(device.firmware, 20) : <span className="dim">–</span>}
        {device.target_firmware && device.target_firmware !== device.firmware && (
          <span className="dim"> → {clip(device.target_firmware, 12)}</span>
        )}
      </span>
    ),
  },
  {
    id: "last_seen",
    header: "Last seen",
    sortable: true,
    width: 112,
    align: "right",
    cell: (device) => <Ago at={device.last_seen} />,
  },
];

function Tags({ tags }: { tags: string[] }) {
  if (tags.length === 0) return null;
  const shown = tags.slice(0, 3);
  return (
    <span
      title={tags
        .slice(0, 30)
        .map((tag) => clip(tag, 64))
        .join(", ")}
    >
      {shown.map((tag, i) => (
        <span key={tag}>
          {i > 0 && ", "}
          <Link className="plain" to={`/devices?tag=${encodeURIComponent(tag)}`}>
            {clip(tag, 24)}
          </Link>
        </span>
      ))}
      {tags.length > shown.length && <span className="dim"> +{tags.length - shown.length}</span>}
    </span>
  );
}
