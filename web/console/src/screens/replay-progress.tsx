// How a replay of dead letters does, until it has ended and then with its result.
import { Button } from "@mantine/core";
import { useQuery } from "@tanstack/react-query";
import { useEffect } from "react";
import { getReplay } from "../api/calls";
import type { Replay } from "../api/shapes";
import { clip } from "../text/clip";
import { count } from "../text/numbers";

export function ReplayProgress({ job, changed, close }: { job: Replay; changed: () => void; close: () => void }) {
  const found = useQuery({
    queryKey: ["replays", job.id],
    queryFn: () => getReplay(job.id),
    initialData: job,
    refetchInterval: (query) => (query.state.data?.state === "running" ? 500 : false),
  });
  const { state, total, taken, refused, skipped, detail } = found.data;
  useEffect(() => {
    if (state !== "running") changed();
  }, [state, job.id]);
  const what = { running: "Replaying", done: "Replayed", failed: "The replay was broken off" }[state];
  return (
    <div
      role="status"
      data-testid="replay"
      data-state={state}
      style={{ display: "flex", flexWrap: "wrap", alignItems: "center", gap: 12, padding: "8px 0" }}
    >
      <progress max={Math.max(total, 1)} value={taken + refused + skipped} aria-label="Progress of the replay" />
      <span>
        <b style={{ color: state === "failed" ? "var(--bad)" : undefined }}>{what}</b>: {count(taken)} accepted,{" "}
        {count(refused)} refused again
        {skipped > 0 && `, ${count(skipped)} cut and not tried`}, of {count(total)}
        {state !== "done" && detail !== "" && <span className="dim"> · {clip(detail, 200)}</span>}
      </span>
      {state !== "running" && (
        <Button size="xs" variant="default" onClick={close}>
          Close
        </Button>
      )}
    </div>
  );
}
