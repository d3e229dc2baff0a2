// What a view shows while it has nothing to show: loading in the final shape, empty with the next step, failed with a
// way on.
import { Button, Skeleton } from "@mantine/core";
import type { ReactNode } from "react";
import { asProblem } from "../api/problem";
import { clip } from "../text/clip";

export function Failure({ error, what, retry }: { error: unknown; what: string; retry?: () => void }) {
  const problem = asProblem(error);
  return (
    <div className="failure" role="alert" data-testid="failure">
      <div>
        <b>{what}</b>
        <br />
        {clip(problem.message, 300)}
        {hint(problem.status)}
      </div>
      {retry && (
        <Button variant="default" onClick={retry} data-testid="retry">
          Try again
        </Button>
      )}
    </div>
  );
}

function hint(status: number): string {
  if (status === 403) return " Ask an administrator for a role that may do this.";
  if (status === 404) return " It may have been deleted.";
  return "";
}

export function Empty({ title, children, action }: { title: string; children?: ReactNode; action?: ReactNode }) {
  return (
    <div className="empty" data-testid="empty">
      <h2>{title}</h2>
      {children && <p>{children}</p>}
      {action}
    </div>
  );
}

export function Lines({ rows = 6, height = 36 }: { rows?: number; height?: number }) {
  return (
    <div aria-busy="true" aria-label="Loading" data-testid="loading">
      {Array.from({ length: rows }, (_, i) => (
        <div key={i} style={{ height, display: "flex", alignItems: "center", borderBottom: "1px solid var(--line)" }}>
          <Skeleton height={10} width={`${90 - ((i * 13) % 40)}%`} />
        </div>
      ))}
    </div>
  );
}
