// Profiles: what the payloads of devices mean, said once for all devices of a kind.
import { Button } from "@mantine/core";
import { useQuery } from "@tanstack/react-query";
import { Link, useNavigate } from "react-router";
import { listProfiles } from "../api/calls";
import { useMay } from "../api/session";
import type { Profile } from "../api/shapes";
import { useAddress } from "../parts/address";
import { Ago } from "../parts/ago";
import { DataTable, type Column } from "../parts/data-table";
import { Pager } from "../parts/pager";
import { Empty, Failure, Lines } from "../parts/states";
import { clip } from "../text/clip";
import { count } from "../text/numbers";

const columns: Column<Profile>[] = [
  {
    id: "name",
    header: "Profile",
    width: "26%",
    cell: (each) => (
      <Link className="plain mono" style={{ fontWeight: 600 }} to={`/profiles/${encodeURIComponent(each.name)}`}>
        {clip(each.name, 64)}
      </Link>
    ),
  },
  {
    id: "description",
    header: "Description",
    hide: "sm",
    cell: (each) => <span title={clip(each.description ?? "", 500)}>{clip(each.description ?? "", 120)}</span>,
  },
  { id: "says", header: "Says", width: "26%", cell: (each) => says(each).join(", ") || <span className="dim">–</span> },
  { id: "devices", header: "Devices", width: 84, align: "right", cell: (each) => count(each.devices) },
  {
    id: "updated",
    header: "Changed",
    width: 110,
    align: "right",
    hide: "sm",
    cell: (each) => <Ago at={each.updated_at} />,
  },
];

function says({ telemetry, retention_days: days }: Profile): string[] {
  const metrics = Object.keys(telemetry?.metrics ?? {}).length;
  return [
    ...(metrics ? [metrics === 1 ? "1 metric" : `${metrics} metrics`] : []),
    ...(telemetry?.mapping?.length ? ["mapping"] : []),
    ...(telemetry?.binary ? ["binary"] : []),
    ...(telemetry?.schema ? ["schema"] : []),
    ...(days ? [`${days} d kept`] : []),
  ];
}

export default function Profiles() {
  const address = useAddress();
  const navigate = useNavigate();
  const mayAct = useMay("operator");
  const cursor = address.get("cursor");
  const profiles = useQuery({
    queryKey: ["profiles", "list", cursor],
    queryFn: () => listProfiles({ cursor, limit: 100 }),
  });
  const items = profiles.data?.items ?? [];
  const add = mayAct && (
    <Button component={Link} to="/new-profile" data-testid="new-profile">
      New profile
    </Button>
  );
  return (
    <>
      <div className="head">
        <h1>Profiles</h1>
        {items.length > 0 && add}
      </div>
      {profiles.isError && !profiles.data ? (
        <Failure what="The profiles could not be loaded" error={profiles.error} retry={() => void profiles.refetch()} />
      ) : profiles.isLoading ? (
        <Lines />
      ) : items.length === 0 ? (
        <Empty title="No profile yet" action={add}>
          A profile says what the payloads of its devices mean: metrics with units and ranges, foreign JSON, binary
          layouts. Without one, devices send what Mooring understands by itself.
        </Empty>
      ) : (
        <>
          <DataTable
            label="Profiles"
            testid="profile-table"
            columns={columns}
            rows={items}
            rowId={({ name }) => name}
            rowData={({ name }) => ({ "data-testid": "profile-row", "data-profile": name })}
            onOpen={({ name }) => void navigate(`/profiles/${encodeURIComponent(name)}`)}
          />
          <Pager
            address={address}
            next={profiles.data?.next_cursor}
            total={profiles.data?.total}
            shown={items.length}
            noun="profiles"
          />
        </>
      )}
    </>
  );
}
