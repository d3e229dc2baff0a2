// What is going on: every number leads to the list it counts.
import { Anchor, Button } from "@mantine/core";
import { useQuery, useQueryClient } from "@tanstack/react-query";
import type { ReactNode } from "react";
import { Link } from "react-router";
import { getOverview, listCampaigns } from "../api/calls";
import { useMay } from "../api/session";
import type { Overview as OverviewData } from "../api/shapes";
import { useLive } from "../live/hooks";
import { Empty, Failure, Lines } from "../parts/states";
import { CampaignProgress, useCampaignEvents } from "../parts/campaign-progress";
import { clip } from "../text/clip";
import { bytes, count, plural, rate } from "../text/numbers";
import { duration } from "../text/time";
import { Tail } from "./overview-tail";
import { PartFacts } from "./part-facts";

export default function Overview() {
  const queries = useQueryClient();
  const overview = useQuery({ queryKey: ["overview"], queryFn: getOverview });
  useLive("overview", undefined, (data) => queries.setQueryData(["overview"], data));
  const mayAct = useMay("operator");
  const data = overview.data;
  if (overview.isError && !data)
    return (
      <Failure what="The overview could not be loaded" error={overview.error} retry={() => void overview.refetch()} />
    );
  if (!data)
    return (
      <>
        <div className="head">
          <h1>Overview</h1>
        </div>
        <Lines rows={8} />
      </>
    );
  return (
    <>
      <div className="head">
        <h1>Overview</h1>
      </div>
      {data.devices.total === 0 ? (
        <Empty
          title="Connect your first device"
          action={
            mayAct && (
              <Button component={Link} to="/devices?add=1" data-testid="first-device">
                Add a device
              </Button>
            )
          }
        >
          A device gets an id and a token here, then sends its readings over MQTT or HTTP. The dialog shows the commands
          to try it from a terminal.
        </Empty>
      ) : (
        <Figures data={data} />
      )}
      <div className="two" style={{ marginTop: 24 }}>
        <div style={{ display: "grid", gap: 24 }}>
          {data.devices.total > 0 && <Firmware versions={data.firmware} />}
          <Running />
          <Server data={data} />
        </div>
        <Tail />
      </div>
    </>
  );
}

function Figure({
  to,
  value,
  unit,
  name,
  tone,
  testid,
}: {
  to?: string;
  value: ReactNode;
  unit?: string;
  name: string;
  tone?: string;
  testid: string;
}) {
  const content = (
    <>
      <b data-testid={testid} style={tone ? { color: `var(--${tone})` } : undefined}>
        {value}
        {unit && <small> {unit}</small>}
      </b>
      <span>{name}</span>
    </>
  );
  return to ? (
    <Link className="figure" to={to}>
      {content}
    </Link>
  ) : (
    <div className="figure">{content}</div>
  );
}

function Figures({ data }: { data: OverviewData }) {
  const { devices, journal, store } = data;
  return (
    <div className="figures">
      <Figure
        testid="count-online"
        to="/devices?status=online"
        name="Online"
        value={count(devices.online)}
        unit={`of ${count(devices.total)}`}
      />
      <Figure testid="count-offline" to="/devices?status=offline" name="Offline" value={count(devices.offline)} />
      {devices.stale > 0 && (
        <Figure testid="count-stale" to="/devices?status=stale" name="Stale" value={count(devices.stale)} />
      )}
      <Figure
        testid="count-never-seen"
        to="/devices?status=never_seen"
        name="Never seen"
        value={count(devices.never_seen)}
      />
      {devices.disabled > 0 && (
        <Figure testid="count-disabled" to="/devices?status=disabled" name="Disabled" value={count(devices.disabled)} />
      )}
      <Figure
        testid="rate-messages"
        to="/broker?tab=topics"
        name="Messages"
        value={rate(data.messages_per_s)}
        unit="/s"
      />
      <Figure testid="rate-readings" name="Readings" value={rate(data.readings_per_s)} unit="/s" />
      <Figure
        testid="rate-refused"
        to="/dead-letters"
        name="Refused"
        value={rate(data.refused_per_s)}
        unit="/s"
        tone={data.refused_per_s > 0 ? "wait" : undefined}
      />
      <Figure
        testid="ingest-lag"
        name="Ingest lag"
        value={journal.lag_s < 10 ? journal.lag_s.toFixed(1) : count(Math.round(journal.lag_s))}
        unit="s"
        tone={journal.lag_s > 60 ? "bad" : journal.lag_s > 10 ? "wait" : undefined}
      />
      {journal.bytes > journal.limit_bytes / 2 && (
        <Figure
          testid="journal-fill"
          name="Journal"
          value={Math.round((100 * journal.bytes) / journal.limit_bytes)}
          unit="% full"
          tone="bad"
        />
      )}
      <Figure
        testid="dead-letters"
        to="/dead-letters"
        name="Dead letters"
        value={count(data.dead_letters.total)}
        tone={data.dead_letters.total > 0 ? "wait" : undefined}
      />
      <Figure
        testid="store-state"
        name="Store"
        value={store.state === "ok" ? "OK" : clip(store.state, 16)}
        tone={store.state === "ok" ? undefined : "wait"}
        unit={store.size_bytes ? bytes(store.size_bytes) : undefined}
      />
      <Figure testid="commands-pending" name="Commands" value={count(data.commands.pending)} unit="waiting" />
      <Figure
        testid="campaigns-running"
        to="/campaigns"
        name="Updates"
        value={count(data.campaigns.running)}
        unit="running"
      />
    </div>
  );
}

const shades = ["#3b6ea5", "#6f9bc8", "#a3bfdc", "#7d8b98", "#a9b4bd", "#c9d1d8"];

function Firmware({ versions }: { versions: { [version: string]: number } }) {
  const all = Object.entries(versions).sort((a, b) => b[1] - a[1]);
  const shown = all.slice(0, 6);
  const rest = all.slice(6).reduce((sum, [, n]) => sum + n, 0);
  return (
    <section data-testid="firmware-distribution">
      <div className="section">
        <h2>Firmware in the fleet</h2>
        <Anchor component={Link} to="/devices?sort=firmware" size="xs">
          Devices by firmware
        </Anchor>
      </div>
      {all.length === 0 ? (
        <span className="dim">No device has reported its firmware yet.</span>
      ) : (
        <>
          <div
            className="stack"
            style={{ height: 14 }}
            role="img"
            aria-label={shown.map(([version, n]) => `${clip(version, 40)}: ${n}`).join(", ")}
          >
            {shown.map(([version, n], i) => (
              <i
                key={version}
                style={{ flexGrow: n, background: shades[i] }}
                title={`${clip(version, 64)}: ${plural(n, "device")}`}
              />
            ))}
            {rest > 0 && <i style={{ flexGrow: rest }} />}
          </div>
          <div className="legend">
            {shown.map(([version, n], i) => (
              <Link key={version} className="key plain" to={`/devices?firmware=${encodeURIComponent(version)}`}>
                <i style={{ background: shades[i] }} />
                <span className="mono">{clip(version, 24)}</span> {count(n)}
              </Link>
            ))}
            {rest > 0 && (
              <span className="key">
                <i />
                {plural(all.length - 6, "other version")} {count(rest)}
              </span>
            )}
          </div>
        </>
      )}
    </section>
  );
}

function Running() {
  const campaigns = useQuery({ queryKey: ["campaigns", "list", "", ""], queryFn: () => listCampaigns({ limit: 50 }) });
  useCampaignEvents();
  const running = campaigns.data?.items.filter(({ status }) => status === "running") ?? [];
  return (
    <section>
      <div className="section">
        <h2>Running updates</h2>
        <Anchor component={Link} to="/campaigns" size="xs">
          All updates
        </Anchor>
      </div>
      {campaigns.isError && !campaigns.data ? (
        <Failure
          what="The updates could not be loaded"
          error={campaigns.error}
          retry={() => void campaigns.refetch()}
        />
      ) : campaigns.isLoading ? (
        <Lines rows={2} />
      ) : running.length === 0 ? (
        <span className="dim">None is running.</span>
      ) : (
        running.slice(0, 6).map((campaign) => (
          <div key={campaign.id} style={{ padding: "6px 0 12px" }}>
            <Link className="plain cut" style={{ display: "block", fontWeight: 500 }} to={`/campaigns/${campaign.id}`}>
              {clip(campaign.name, 80)}
            </Link>
            <CampaignProgress campaign={campaign} legend />
          </div>
        ))
      )}
    </section>
  );
}

function Server({ data }: { data: OverviewData }) {
  return (
    <section>
      <div className="section">
        <h2>Server</h2>
        <span className="dim" style={{ fontSize: "0.75rem" }}>
          {data.version} · up {duration(data.uptime_s * 1000)}
        </span>
      </div>
      <dl className="facts">
        <PartFacts overview={data} />
      </dl>
    </section>
  );
}
