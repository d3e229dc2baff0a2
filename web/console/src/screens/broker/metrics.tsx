// How the broker does: plain figures, and what each of them means.
import { useQuery, useQueryClient } from "@tanstack/react-query";
import { Fragment } from "react";
import { getBroker } from "../../api/calls";
import type { BrokerFacts, BrokerFigure } from "../../api/shapes";
import { CopyButton } from "../../parts/copy";
import { Lines } from "../../parts/states";
import { Status } from "../../parts/status";
import { clip } from "../../text/clip";
import { bytes, rate, tally } from "../../text/numbers";
import { duration } from "../../text/time";
import { rateOf, withSample, type Sample } from "./samples";
import { Trouble, unlessElsewhere } from "./trouble";

interface Seen {
  facts: BrokerFacts;
  samples: Sample[];
}

const groups: Record<string, string> = {
  connections: "Connections",
  sessions: "Sessions",
  messages: "Messages and topics",
  refused: "Refused",
  dropped: "Dropped",
  disk: "Disk",
};

/** Told above the table, in words. */
const told = new Set(["uptime_s", "persistence_failing"]);

export function Metrics() {
  const queries = useQueryClient();
  const broker = useQuery({
    queryKey: ["broker"],
    queryFn: async (): Promise<Seen> => {
      const facts = await getBroker();
      const counts = new Map(facts.figures.map(({ name, value }) => [name, value]));
      const before = queries.getQueryData<Seen>(["broker"])?.samples ?? [];
      return { facts, samples: withSample(before, { at: Date.now(), counts }) };
    },
    refetchInterval: unlessElsewhere(2_000),
  });
  if (broker.isError && !broker.data)
    return <Trouble what="The metrics could not be loaded" error={broker.error} retry={() => void broker.refetch()} />;
  if (!broker.data) return <Lines rows={12} />;
  const { facts, samples } = broker.data;
  return (
    <>
      <Facts facts={facts} />
      <div className="table-box" style={{ marginTop: 20 }}>
        <table className="rows" aria-label="Metrics of the broker" data-testid="metrics-table">
          <thead>
            <tr>
              <th>What</th>
              <th className="num" style={{ width: 100 }}>
                Value
              </th>
              <th className="num hide-sm" style={{ width: 92 }}>
                Per second
              </th>
              <th className="num hide-sm" style={{ width: 100 }}>
                At most
              </th>
              <th className="hide-md" style={{ width: 400 }}>
                At /metrics
              </th>
            </tr>
          </thead>
          {Object.entries(groups).map(([group, name]) => {
            const figures = facts.figures.filter((each) => each.group === group && !told.has(each.name));
            return figures.length === 0 ? null : (
              <tbody key={group}>
                <tr className="group">
                  <th colSpan={5} scope="rowgroup">
                    {name}
                  </th>
                </tr>
                {figures.map((figure) => (
                  <FigureRow key={figure.name} figure={figure} samples={samples} />
                ))}
              </tbody>
            );
          })}
        </table>
      </div>
      <p className="table-foot" style={{ margin: 0 }}>
        What has a rate counts from the start of the broker; the rest is what there is now.
      </p>
    </>
  );
}

const disks = {
  off: ["off", "Off"],
  ok: ["ok", "OK"],
  failing: ["down", "Failing"],
} as const;
const meanings = {
  off: "Sessions and retained messages end with the broker.",
  ok: "Sessions, what waits for them, and retained messages outlive the broker.",
  failing: "Nothing can be written: acknowledgements wait until it can.",
} as const;

function Facts({ facts }: { facts: BrokerFacts }) {
  const { disk } = facts;
  const [state, word] = disks[disk.state];
  return (
    <dl className="facts" data-testid="broker-facts">
      <dt>Listens on</dt>
      <dd>
        {facts.listeners.map(({ transport, address }, i) => (
          <Fragment key={transport}>
            {i > 0 && " · "}
            <span className="nowrap">
              <span className="mono">{clip(address, 100)}</span> <span className="dim">{transports[transport]}</span>
            </span>
          </Fragment>
        ))}
      </dd>
      <dt>Kept on disk</dt>
      <dd>
        <Status state={state} word={word} testid="disk-status" />{" "}
        <span className="dim">
          {meanings[disk.state]}
          {disk.detail && ` (${clip(disk.detail, 200)})`}
        </span>
      </dd>
      <dt>Up for</dt>
      <dd>
        {duration(facts.uptime_s * 1000)} <span className="dim">version {clip(facts.version, 40)}</span>
      </dd>
    </dl>
  );
}

const transports: Record<string, string> = {
  tcp: "MQTT",
  tls: "MQTT over TLS",
  ws: "MQTT over WebSocket",
  wss: "MQTT over WebSocket and TLS",
  unix: "MQTT over a Unix socket",
};

function FigureRow({ figure, samples }: { figure: BrokerFigure; samples: Sample[] }) {
  const shown = figure.unit === "bytes" ? bytes : tally;
  const perSecond = figure.kind === "counter" ? rateOf(samples, figure.name) : null;
  const share = figure.bound ? figure.value / figure.bound : 0;
  return (
    <tr data-testid="metric-row" data-metric={figure.name}>
      <td className="wrap">
        {figure.about}
        {share >= 0.8 && (
          <>
            {" "}
            <Status
              state={share >= 1 ? "full" : "waiting"}
              word={share >= 1 ? "At its bound" : "Near its bound"}
              testid="metric-bound"
            />
          </>
        )}
      </td>
      <td className="num" data-testid="metric-value">
        {shown(figure.value)}
      </td>
      <td className="num hide-sm">
        {perSecond === null ? "" : figure.unit === "bytes" ? bytes(Math.round(perSecond)) : rate(perSecond)}
      </td>
      <td className="num hide-sm dim">{figure.bound === null ? "" : shown(figure.bound)}</td>
      <td className="hide-md">
        <span className="topic">
          <span className="mono dim cut">{figure.metric}</span>
          <CopyButton text={figure.metric} label="Copy the name" />
        </span>
      </td>
    </tr>
  );
}
