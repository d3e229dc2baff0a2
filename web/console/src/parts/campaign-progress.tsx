// How far an update is: one stacked bar, by what became of its jobs; and how events change what is shown of campaigns.
import { useQueryClient } from "@tanstack/react-query";
import type { Campaign, Job, Page } from "../api/shapes";
import { useLive } from "../live/hooks";
import { count, percent } from "../text/numbers";
import { wordOf } from "./status";

const segments: [key: string, word: string, colour: string, states: string[]][] = [
  ["succeeded", "succeeded", "ok", ["succeeded"]],
  ["active", "in progress", "busy", ["offered", "downloading", "verifying", "installing", "rebooting"]],
  ["failed", "failed", "bad", ["failed", "timed_out", "rejected"]],
  ["cancelled", "cancelled", "off", ["cancelled"]],
  ["queued", "waiting", "queued", ["queued"]],
];

function sum(counts: { [state: string]: number }, states: string[]): number {
  return states.reduce((total, state) => total + (counts[state] ?? 0), 0);
}

export function failedCount(campaign: Campaign): number {
  return sum(campaign.counts, ["failed", "timed_out", "rejected"]);
}

export function CampaignProgress({ campaign, legend = false }: { campaign: Campaign; legend?: boolean }) {
  const { counts, total } = campaign;
  const parts = segments.map(([key, word, colour, states]) => ({ key, word, colour, states, n: sum(counts, states) }));
  const finished = total - sum(counts, ["queued", "offered", "downloading", "verifying", "installing", "rebooting"]);
  return (
    <div
      data-testid="campaign-progress"
      data-total={total}
      data-succeeded={counts.succeeded ?? 0}
      data-failed={failedCount(campaign)}
      data-finished={finished}
    >
      <div style={{ display: "flex", alignItems: "center", gap: 10 }}>
        <div
          className="stack"
          style={{ flex: 1 }}
          role="img"
          aria-label={parts
            .filter(({ n }) => n > 0)
            .map(({ word, n }) => `${n} ${word}`)
            .join(", ")}
        >
          {parts
            .filter(({ n }) => n > 0)
            .map(({ key, word, colour, n, states }) => (
              <i
                key={key}
                className={key === "active" ? "under-way" : undefined}
                style={{ flexGrow: n, backgroundColor: `var(--seg-${colour})` }}
                title={`${count(n)} ${word}${
                  states.length > 1
                    ? ` (${states
                        .filter((state) => counts[state])
                        .map((state) => `${wordOf(state)} ${counts[state]}`)
                        .join(", ")})`
                    : ""
                }`}
              />
            ))}
        </div>
        <span className="dim nowrap" style={{ fontSize: "0.75rem", minWidth: 64, textAlign: "right" }}>
          {count(finished)} of {count(total)}
        </span>
      </div>
      {legend && (
        <div className="legend">
          {parts
            .filter(({ n }) => n > 0)
            .map(({ key, word, colour, n }) => (
              <span key={key} className="key" data-testid={`campaign-count-${key}`} data-count={n}>
                <i
                  className={key === "active" ? "under-way" : undefined}
                  style={{ backgroundColor: `var(--seg-${colour})` }}
                />
                {count(n)} {word} <span className="dim">{percent(n, total)}</span>
              </span>
            ))}
        </div>
      )}
    </div>
  );
}

/** Campaigns and jobs that changed go into every list that shows them, in place. */
export function useCampaignEvents(onJob?: (job: Job) => void): void {
  const queries = useQueryClient();
  useLive("campaigns", undefined, (data) => {
    const { campaign, job } = (data ?? {}) as { campaign?: Campaign; job?: Job };
    if (campaign) {
      queries.setQueryData(["campaigns", "one", campaign.id], campaign);
      let known = false;
      queries.setQueriesData<Page<Campaign>>({ queryKey: ["campaigns", "list"] }, (page) => {
        if (!page?.items.some(({ id }) => id === campaign.id)) return page;
        known = true;
        return { ...page, items: page.items.map((each) => (each.id === campaign.id ? campaign : each)) };
      });
      if (!known) void queries.invalidateQueries({ queryKey: ["campaigns", "list"] });
    }
    if (job) {
      queries.setQueriesData<Page<Job>>(
        { queryKey: ["campaigns", "jobs", job.campaign] },
        (page) => page && { ...page, items: page.items.map((each) => (each.id === job.id ? job : each)) },
      );
      onJob?.(job);
    }
  });
}
