// Updates: which firmware goes to which devices, and how far each of them is.
import { Button } from "@mantine/core";
import { useQuery } from "@tanstack/react-query";
import { Link, useNavigate } from "react-router";
import { listCampaigns } from "../api/calls";
import { useMay } from "../api/session";
import type { Campaign } from "../api/shapes";
import { useAddress } from "../parts/address";
import { Ago } from "../parts/ago";
import { CampaignProgress, failedCount, useCampaignEvents } from "../parts/campaign-progress";
import { DataTable, type Column } from "../parts/data-table";
import { Pager } from "../parts/pager";
import { Empty, Failure, Lines } from "../parts/states";
import { Status } from "../parts/status";
import { clip } from "../text/clip";
import { count } from "../text/numbers";

const columns: Column<Campaign>[] = [
  {
    id: "status",
    header: "Status",
    width: 108,
    cell: (each) => <Status state={each.status} testid="campaign-status" />,
  },
  {
    id: "name",
    header: "Update",
    width: "28%",
    cell: (each) => (
      <Link className="plain" style={{ fontWeight: 500 }} title={clip(each.name, 128)} to={`/campaigns/${each.id}`}>
        {clip(each.name, 64)}
      </Link>
    ),
  },
  {
    id: "version",
    header: "Version",
    width: 120,
    hide: "sm",
    cell: (each) => (
      <span className="mono" title={clip(each.artifact.version, 64)}>
        {clip(each.artifact.version, 18)}
      </span>
    ),
  },
  { id: "progress", header: "Progress", cell: (each) => <CampaignProgress campaign={each} /> },
  {
    id: "failed",
    header: "Failed",
    width: 74,
    align: "right",
    hide: "sm",
    cell: (each) => {
      const n = failedCount(each);
      return n > 0 ? (
        <Link
          className="plain"
          style={{ color: "var(--bad)", fontWeight: 500 }}
          to={`/campaigns/${each.id}?status=failed`}
        >
          {count(n)}
        </Link>
      ) : (
        <span className="dim">0</span>
      );
    },
  },
  {
    id: "started",
    header: "Started",
    width: 110,
    align: "right",
    hide: "md",
    cell: (each) => <Ago at={each.started_at} never="not yet" />,
  },
];

export default function Campaigns() {
  const address = useAddress();
  const navigate = useNavigate();
  const mayAct = useMay("operator");
  const cursor = address.get("cursor");
  const campaigns = useQuery({
    queryKey: ["campaigns", "list", cursor, ""],
    queryFn: () => listCampaigns({ cursor, limit: 50 }),
    refetchInterval: 15_000,
  });
  useCampaignEvents();
  const items = campaigns.data?.items ?? [];
  const add = mayAct && (
    <Button component={Link} to="/campaigns/new" data-testid="new-campaign">
      Update devices
    </Button>
  );
  return (
    <>
      <div className="head">
        <h1>Updates</h1>
        {items.length > 0 && add}
      </div>
      {campaigns.isError && !campaigns.data ? (
        <Failure
          what="The updates could not be loaded"
          error={campaigns.error}
          retry={() => void campaigns.refetch()}
        />
      ) : campaigns.isLoading ? (
        <Lines />
      ) : items.length === 0 ? (
        <Empty title="No update yet" action={add}>
          An update offers a firmware to devices you pick and follows each of them until it reports the new version.
        </Empty>
      ) : (
        <>
          <DataTable
            label="Updates"
            testid="campaign-table"
            columns={columns}
            rows={items}
            rowId={({ id }) => id}
            rowData={(each) => ({ "data-testid": "campaign-row", "data-campaign": each.id })}
            onOpen={({ id }) => void navigate(`/campaigns/${id}`)}
          />
          <Pager
            address={address}
            next={campaigns.data?.next_cursor}
            total={campaigns.data?.total}
            shown={items.length}
            noun="updates"
          />
        </>
      )}
    </>
  );
}
