// One's own account, accounts of people, and what this server is.
import { useQuery } from "@tanstack/react-query";
import { getOverview } from "../api/calls";
import { useMay } from "../api/session";
import { Failure, Lines } from "../parts/states";
import { clip } from "../text/clip";
import { duration } from "../text/time";
import { Account } from "./account";
import { ApiKeys } from "./api-keys";
import { PartFacts } from "./part-facts";
import { Users } from "./users";

export default function Settings() {
  const mayAdmin = useMay("admin");
  return (
    <>
      <div className="head">
        <h1>Settings</h1>
      </div>
      <div style={{ display: "grid", gap: 32, maxWidth: 980 }}>
        <Account />
        <ApiKeys />
        {mayAdmin && <Users />}
        <About />
      </div>
    </>
  );
}

function About() {
  const overview = useQuery({ queryKey: ["overview"], queryFn: getOverview });
  return (
    <section>
      <div className="section">
        <h2>About this server</h2>
      </div>
      {overview.isError && !overview.data ? (
        <Failure
          what="The server's state could not be loaded"
          error={overview.error}
          retry={() => void overview.refetch()}
        />
      ) : !overview.data ? (
        <Lines rows={4} />
      ) : (
        <dl className="facts">
          <dt>Version</dt>
          <dd data-testid="about-version">{clip(overview.data.version, 40)}</dd>
          <dt>Running for</dt>
          <dd>{duration(overview.data.uptime_s * 1000)}</dd>
          <PartFacts overview={overview.data} />
          <dt>API</dt>
          <dd>
            <a
              className="plain"
              style={{ textDecoration: "underline" }}
              href="/api/docs"
              target="_blank"
              rel="noreferrer"
            >
              Reference
            </a>
            ,{" "}
            <a
              className="plain"
              style={{ textDecoration: "underline" }}
              href="/api/openapi.json"
              target="_blank"
              rel="noreferrer"
            >
              OpenAPI document
            </a>
          </dd>
        </dl>
      )}
    </section>
  );
}
