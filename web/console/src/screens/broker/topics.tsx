// What is published, as a tree that is loaded as it is unfolded. Counts move while the page is looked at.
import { ActionIcon, Anchor, Button, Skeleton } from "@mantine/core";
import { useQueries, useQueryClient, type QueryClient } from "@tanstack/react-query";
import { useEffect, useState } from "react";
import { Link } from "react-router";
import { listTopics } from "../../api/calls";
import { useAddress } from "../../parts/address";
import { CopyButton } from "../../parts/copy";
import { DataTable, type Column } from "../../parts/data-table";
import { Icon } from "../../parts/icons";
import { SearchField } from "../../parts/search-field";
import { Empty, Lines } from "../../parts/states";
import { useSteady } from "../../parts/steady";
import { clip, middle } from "../../text/clip";
import { count, plural, rate, tally } from "../../text/numbers";
import { withSample } from "./samples";
import { flatten, parentOf, pollMs, wanted, type Branch, type TopicRow } from "./topic-tree";
import { Connect, isElsewhere, Trouble, unlessElsewhere } from "./trouble";

const SOME = 200;
const MOST = 500; // what the server gives at once; beyond, the search leads on

type Level = Extract<TopicRow, { kind: "level" }>;

/** What was unfolded stays so when one comes back from another page. */
let remembered: ReadonlySet<string> = new Set(["devices/"]);

export function Topics() {
  const address = useAddress();
  const prefix = address.get("prefix");
  const [unfolded, setUnfolded] = useState(remembered);
  const [long, setLong] = useState<ReadonlySet<string>>(new Set());
  useEffect(() => void (remembered = unfolded), [unfolded]);
  const { root, stateOf, retry } = useBranches(prefix, unfolded, long);
  const newest = flatten(prefix, unfolded, stateOf);
  const onlyOurs = prefix === "" && root.branch?.items.every(({ level }) => level.startsWith("$"));
  // The first device's topics come by themselves: that is what is waited for.
  const steady = useSteady(root.branch && newest.rows, ({ id }) => id, `${onlyOurs} ${newest.key}`);
  const fold = (row: Level, isUnfolded: boolean): void =>
    setUnfolded((before) => {
      const after = new Set(before);
      if (isUnfolded) after.add(row.path);
      else after.delete(row.path);
      return after;
    });
  const toggle = (row: TopicRow): void => {
    if (row.kind === "level" && row.level.children > 0) fold(row, !row.unfolded);
  };
  const columns = topicColumns({
    parent: parentOf(prefix),
    toggle,
    retry,
    showMost: (of) => setLong((before) => new Set(before).add(of)),
    searchIn: (of) => {
      address.set({ prefix: of });
      document.querySelector<HTMLInputElement>("[data-page-search]")?.focus();
    },
  });
  return (
    <>
      {!isElsewhere(root.error) && (
        <div className="filters" role="search">
          <SearchField
            value={prefix}
            onChange={(text) => address.set({ prefix: text }, { replace: true })}
            placeholder="Topic, from its beginning"
            width={360}
          />
        </div>
      )}
      {root.error && !root.branch ? (
        <Trouble what="The topics could not be loaded" error={root.error} retry={() => retry(prefix)} />
      ) : !root.branch ? (
        <Lines rows={8} />
      ) : steady.rows.length === 0 ? (
        <Nothing prefix={prefix} clear={() => address.set({ prefix: null })} />
      ) : (
        <>
          {onlyOurs && <OnlyOurs />}
          {steady.waiting > 0 && (
            <button type="button" className="waiting" onClick={steady.show}>
              {plural(steady.waiting, "topic")} came or went. Show
            </button>
          )}
          <DataTable
            label="Topics"
            testid="topic-table"
            around={290}
            columns={columns}
            rows={steady.rows}
            rowId={({ id }) => id}
            rowData={(row): Record<string, string> =>
              row.kind === "level"
                ? { "data-testid": "topic-row", "data-topic": row.level.topic }
                : { "data-testid": `topic-${row.kind}`, "data-whole": "" }
            }
            onOpen={toggle}
            tree={{
              depth: ({ depth }) => depth,
              unfolded: (row) => (row.kind === "level" && row.level.children > 0 ? row.unfolded : undefined),
              fold: (row, isUnfolded) => row.kind === "level" && fold(row, isUnfolded),
            }}
          />
          <p className="table-foot" style={{ margin: 0 }}>
            Counts of a level are those of all topics below it, since the broker remembers them. Subscribers are MQTT
            clients: this server takes what devices send without subscribing.
          </p>
        </>
      )}
    </>
  );
}

const keyOf = (prefix: string, limit: number) => ["topics", prefix, limit];

async function askFor(queries: QueryClient, prefix: string, limit: number): Promise<Branch> {
  const page = await listTopics({ prefix, limit });
  const sample = { at: Date.now(), counts: new Map(page.items.map(({ topic, messages }) => [topic, messages])) };
  const before = queries.getQueryData<Branch>(keyOf(prefix, limit))?.samples ?? [];
  return { items: page.items, total: page.total ?? page.items.length, samples: withSample(before, sample) };
}

/** The root and all that is unfolded, asked for again every few seconds. */
function useBranches(root: string, unfolded: ReadonlySet<string>, long: ReadonlySet<string>) {
  const queries = useQueryClient();
  const limitOf = (prefix: string): number => (long.has(prefix) ? MOST : SOME);
  const branchOf = (prefix: string): Branch | undefined =>
    queries.getQueryData<Branch>(keyOf(prefix, limitOf(prefix))) ?? queries.getQueryData<Branch>(keyOf(prefix, SOME));
  const prefixes = wanted(root, unfolded, branchOf);
  const results = useQueries({
    queries: prefixes.map((prefix) => ({
      queryKey: keyOf(prefix, limitOf(prefix)),
      queryFn: () => askFor(queries, prefix, limitOf(prefix)),
      refetchInterval: unlessElsewhere(pollMs(prefixes.length)),
    })),
  });
  // What is read of a result here is what the page is drawn again for.
  const states = new Map(
    results.map(({ data, error }, i) => [prefixes[i]!, { branch: data ?? branchOf(prefixes[i]!), error }]),
  );
  return {
    root: states.get(root)!,
    stateOf: (prefix: string) => {
      const state = states.get(prefix);
      return { branch: state?.branch, failed: Boolean(state?.error) };
    },
    retry: (prefix: string) => void queries.refetchQueries({ queryKey: keyOf(prefix, limitOf(prefix)) }),
  };
}

function Nothing({ prefix, clear }: { prefix: string; clear: () => void }) {
  return prefix ? (
    <Empty
      title="No topic begins so"
      action={
        <Button variant="default" onClick={clear}>
          Clear the search
        </Button>
      }
    >
      Nothing was published lately to a topic that begins with <b className="mono">{clip(prefix, 100)}</b>. Upper and
      lower case differ.
    </Empty>
  ) : (
    <Empty title="Nothing has been published yet" action={<Connect />}>
      Topics appear here as devices publish to them.
    </Empty>
  );
}

function OnlyOurs() {
  return (
    <Empty title="No device has published yet" action={<Connect />}>
      Topics appear here as devices publish to them. So far there are only the broker's own.
    </Empty>
  );
}

interface Acts {
  /** What is before the levels of the root, shown before each of them. */
  parent: string;
  toggle: (row: TopicRow) => void;
  retry: (prefix: string) => void;
  showMost: (prefix: string) => void;
  searchIn: (prefix: string) => void;
}

function topicColumns(acts: Acts): Column<TopicRow>[] {
  const figure = (of: (row: Level) => React.ReactNode) => (row: TopicRow) => (row.kind === "level" ? of(row) : null);
  return [
    { id: "topic", header: "Topic", cell: (row) => <TopicCell row={row} acts={acts} /> },
    {
      id: "messages",
      header: "Messages",
      width: 110,
      align: "right",
      cell: figure(({ level }) => (
        <span data-testid="topic-messages" title={count(level.messages)}>
          {tally(level.messages)}
        </span>
      )),
    },
    {
      id: "rate",
      header: "Per second",
      width: 92,
      align: "right",
      cell: figure((row) => (row.rate === null ? <span className="dim">–</span> : rate(row.rate))),
    },
    {
      id: "subscribers",
      header: "Subscribers",
      width: 100,
      align: "right",
      hide: "sm",
      cell: figure(({ level }) => (level.subscribers === null ? null : count(level.subscribers))),
    },
    {
      id: "retained",
      header: "Retained",
      width: 84,
      align: "right",
      hide: "sm",
      cell: figure(({ level }) => (level.retained > 0 ? count(level.retained) : null)),
    },
    {
      id: "actions",
      header: "",
      free: true,
      width: 96,
      align: "right",
      hide: "sm",
      cell: figure(({ level }) => (
        <span className="topic-acts">
          {deviceOf(level.topic) && (
            <Anchor component={Link} to={`/devices/${encodeURIComponent(deviceOf(level.topic)!)}`} size="xs">
              Device
            </Anchor>
          )}
          <CopyButton text={level.topic} label="Copy the topic" />
        </span>
      )),
    },
  ];
}

function deviceOf(topic: string): string | undefined {
  return /^devices\/([^/]+)$/.exec(topic)?.[1];
}

function TopicCell({ row, acts }: { row: TopicRow; acts: Acts }) {
  const indent = { paddingLeft: row.depth * 20 };
  if (row.kind === "level") return <LevelCell row={row} acts={acts} />;
  if (row.kind === "loading")
    return (
      <span className="topic" style={indent} aria-busy="true" aria-label="Loading">
        <span className="topic-fold" />
        <Skeleton height={10} width={160} />
      </span>
    );
  if (row.kind === "failed")
    return (
      <span className="topic" style={indent}>
        <span className="topic-fold" />
        <span style={{ color: "var(--bad)" }}>Could not be loaded.</span>
        <Anchor component="button" type="button" size="xs" onClick={() => acts.retry(row.prefix)}>
          Try again
        </Anchor>
      </span>
    );
  const toMost = row.shown < MOST;
  return (
    <span className="topic" style={indent}>
      <span className="topic-fold" />
      <Anchor
        component="button"
        type="button"
        size="xs"
        onClick={() => (toMost ? acts.showMost(row.prefix) : acts.searchIn(row.prefix))}
        data-testid="topic-show-more"
      >
        {toMost ? showing(Math.min(row.hidden, MOST - row.shown), row.hidden) : `${count(row.hidden)} more: search`}
      </Anchor>
    </span>
  );
}

function showing(next: number, hidden: number): string {
  return next === hidden ? `Show ${count(hidden)} more` : `Show ${count(next)} of ${count(hidden)} more`;
}

function LevelCell({ row, acts }: { row: Level; acts: Acts }) {
  const { level } = row;
  return (
    <span className="topic" style={{ paddingLeft: row.depth * 20 }} title={clip(level.topic, 300)}>
      {level.children > 0 ? (
        <ActionIcon
          className="topic-fold"
          variant="subtle"
          color="gray"
          size={20}
          aria-label={`${row.unfolded ? "Fold" : "Unfold"} ${clip(level.topic, 80)}`}
          onClick={() => acts.toggle(row)}
          data-testid="topic-toggle"
          data-unfolded={row.unfolded || undefined}
        >
          <Icon name="unfold" size={12} />
        </ActionIcon>
      ) : (
        <span className="topic-fold" />
      )}
      <span className="mono cut">
        {row.depth === 0 && <span className="dim hide-sm">{clip(acts.parent, 60)}</span>}
        {level.level === "" ? <span className="dim">(empty)</span> : middle(level.level, 64)}
      </span>
      {level.children > 0 ? (
        <span className="dim topic-note hide-sm">{plural(level.children, "topic")}</span>
      ) : (
        level.retained > 0 && (
          <span className="dim topic-mark" role="img" aria-label="Retained" title="Retained: new subscribers get it">
            <Icon name="retained" size={11} />
          </span>
        )
      )}
    </span>
  );
}
