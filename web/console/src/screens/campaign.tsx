// One update: how far it is, device by device, live; stop it, or try again what failed.
import { Button, Group, Select } from "@mantine/core";
import { keepPreviousData, useQuery, useQueryClient } from "@tanstack/react-query";
import { useState } from "react";
import { Link, useParams } from "react-router";
import { abortCampaign, getCampaign, listJobs, retryCampaign, startCampaign } from "../api/calls";
import { asProblem } from "../api/problem";
import { useMay } from "../api/session";
import type { Campaign as CampaignData, Job, JobStatus } from "../api/shapes";
import { useAddress } from "../parts/address";
import { Ago } from "../parts/ago";
import { CampaignProgress, failedCount, useCampaignEvents } from "../parts/campaign-progress";
import { Confirm } from "../parts/confirm";
import { DataTable, type Column } from "../parts/data-table";
import { Pager } from "../parts/pager";
import { Empty, Failure, Lines } from "../parts/states";
import { Status, toneOf, wordOf } from "../parts/status";
import { useSteady } from "../parts/steady";
import { failed, told } from "../parts/toast";
import { clip, middle } from "../text/clip";
import { bytes, count, plural } from "../text/numbers";

const states: JobStatus[] = [
  "queued",
  "offered",
  "downloading",
  "verifying",
  "installing",
  "rebooting",
  "succeeded",
  "failed",
  "timed_out",
  "rejected",
  "cancelled",
];

const columns: Column<Job>[] = [
  { id: "status", header: "Status", width: 126, cell: (job) => <Status state={job.status} testid="job-status" /> },
  {
    id: "device",
    header: "Device",
    width: "26%",
    cell: (job) => (
      <Link
        className="plain mono"
        style={{ fontWeight: 500 }}
        title={job.device}
        to={`/devices/${encodeURIComponent(job.device)}`}
      >
        {middle(job.device, 36)}
      </Link>
    ),
  },
  {
    id: "progress",
    header: "Progress",
    width: 84,
    align: "right",
    hide: "sm",
    cell: (job) =>
      job.progress === null || toneOf(job.status) !== "busy" ? <span className="dim">–</span> : `${job.progress} %`,
  },
  {
    id: "from",
    header: "From",
    width: 110,
    hide: "md",
    cell: (job) => <span className="mono">{clip(job.from_version ?? "unknown", 16)}</span>,
  },
  {
    id: "error",
    header: "What happened",
    cell: (job) =>
      job.error && (
        <span title={clip(job.error, 1000)} style={{ color: toneOf(job.status) === "bad" ? "var(--bad)" : undefined }}>
          {clip(job.error, 160)}
        </span>
      ),
  },
  {
    id: "deadline",
    header: "Step ends",
    width: 104,
    align: "right",
    hide: "md",
    cell: (job) => (job.finished_at ? <span className="dim">–</span> : <Ago at={job.deadline} never="–" />),
  },
  {
    id: "updated",
    header: "Changed",
    width: 104,
    align: "right",
    hide: "sm",
    cell: (job) => <Ago at={job.updated_at} />,
  },
];

export default function Campaign() {
  const id = useParams().id!;
  const queries = useQueryClient();
  const mayAct = useMay("operator");
  const [aborting, setAborting] = useState(false);
  const campaign = useQuery({
    queryKey: ["campaigns", "one", id],
    queryFn: () => getCampaign(id),
    refetchInterval: 10_000,
  });
  useCampaignEvents();
  if (campaign.isError && !campaign.data) {
    return asProblem(campaign.error).status === 404 ? (
      <Empty
        title="There is no such update"
        action={
          <Button component={Link} to="/campaigns">
            All updates
          </Button>
        }
      />
    ) : (
      <Failure what="The update could not be loaded" error={campaign.error} retry={() => void campaign.refetch()} />
    );
  }
  if (!campaign.data) return <Lines rows={10} />;
  const data = campaign.data;
  const failures = failedCount(data);
  const waiting = data.total - states.slice(6).reduce((sum, state) => sum + (data.counts[state] ?? 0), 0);
  const act = (what: string, run: () => Promise<CampaignData>) => async (): Promise<void> => {
    const next = await run();
    queries.setQueryData(["campaigns", "one", id], next);
    told(what);
    await queries.invalidateQueries({ queryKey: ["campaigns"] });
  };
  const press = (what: string, run: () => Promise<CampaignData>) => () => {
    act(what, run)().catch((error: unknown) => failed("It did not work", error));
  };
  return (
    <>
      <div className="head">
        <div>
          <h1 data-testid="campaign-name">{clip(data.name, 128)}</h1>
          <div className="dim" style={{ fontSize: "0.8125rem" }}>
            <span className="mono">{clip(data.artifact.version, 40)}</span> · {clip(data.artifact.name, 60)},{" "}
            {bytes(data.artifact.size)} · by {clip(data.created_by ?? "the server", 40)} <Ago at={data.created_at} />
          </div>
        </div>
        <Group gap="sm">
          <Status state={data.status} testid="campaign-status" quiet={false} />
          {mayAct && data.status === "draft" && (
            <Button onClick={press("The update was started", () => startCampaign(id))} data-testid="campaign-start">
              Update {plural(data.total, "device")}
            </Button>
          )}
          {mayAct && failures > 0 && data.status !== "draft" && (
            <Button
              variant="default"
              onClick={press(`${plural(failures, "device")} will be tried again`, () => retryCampaign(id))}
              data-testid="campaign-retry"
            >
              Retry {count(failures)} failed
            </Button>
          )}
          {mayAct && (data.status === "running" || data.status === "draft") && (
            <Button variant="outline" color="var(--bad)" onClick={() => setAborting(true)} data-testid="campaign-abort">
              Abort
            </Button>
          )}
        </Group>
      </div>
      <CampaignProgress campaign={data} legend />
      <div style={{ height: 18 }} />
      <Jobs campaign={data} />
      {aborting && (
        <Confirm
          title="Abort this update?"
          action={`Abort for ${plural(waiting, "device")}`}
          type={data.name}
          close={() => setAborting(false)}
          run={act("The update was aborted", () => abortCampaign(id))}
        >
          {plural(waiting, "device")} will not be updated. Devices that already install may still finish; what succeeded
          stays as it is.
        </Confirm>
      )}
    </>
  );
}

function Jobs({ campaign }: { campaign: CampaignData }) {
  const address = useAddress();
  const status = address.pick("status", states);
  const cursor = address.get("cursor");
  const key = `${campaign.id} ${status} ${cursor}`;
  const jobs = useQuery({
    queryKey: ["campaigns", "jobs", campaign.id, status, cursor],
    queryFn: () => listJobs(campaign.id, { status, cursor, limit: 200 }),
    placeholderData: keepPreviousData,
    refetchInterval: campaign.status === "running" ? 10_000 : false,
  });
  const steady = useSteady(jobs.isPlaceholderData ? undefined : jobs.data?.items, ({ id }) => id, key);
  const rows = jobs.isPlaceholderData ? (jobs.data?.items ?? []) : steady.rows;
  const options = [
    { value: "", label: `All devices (${count(campaign.total)})` },
    ...states
      .filter((state) => campaign.counts[state] || state === status)
      .map((state) => ({ value: state as string, label: `${wordOf(state)} (${count(campaign.counts[state] ?? 0)})` })),
  ];
  return (
    <>
      <div className="filters">
        <Select
          size="xs"
          w={200}
          aria-label="Filter by status"
          data={options}
          value={status}
          onChange={(next) => address.set({ status: next })}
          data-testid="job-filter"
        />
      </div>
      {jobs.isError && !jobs.data ? (
        <Failure
          what="The devices of this update could not be loaded"
          error={jobs.error}
          retry={() => void jobs.refetch()}
        />
      ) : jobs.isLoading ? (
        <Lines />
      ) : rows.length === 0 ? (
        <Empty
          title={status ? `No device is “${wordOf(status)}”` : "No devices"}
          action={
            status && (
              <Button variant="default" onClick={() => address.set({ status: null })}>
                Show all
              </Button>
            )
          }
        />
      ) : (
        <>
          {steady.waiting > 0 && (
            <button type="button" className="waiting" onClick={steady.show}>
              The list has changed. Show
            </button>
          )}
          <DataTable
            label="Devices of this update"
            testid="job-table"
            columns={columns}
            rows={rows}
            rowId={({ id }) => id}
            rowData={(job) => ({ "data-testid": "job-row", "data-device": job.device })}
          />
          <Pager
            address={address}
            next={jobs.data?.next_cursor}
            total={jobs.data?.total}
            shown={rows.length}
            noun="devices"
          />
        </>
      )}
    </>
  );
}
