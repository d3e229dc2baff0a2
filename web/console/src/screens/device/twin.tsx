// The twin: what is wanted, what the device reports, and what still differs.
import { Button, Group } from "@mantine/core";
import { useQuery, useQueryClient } from "@tanstack/react-query";
import { useState, type ReactNode } from "react";
import { getTwin } from "../../api/calls";
import { useMay } from "../../api/session";
import type { JsonObject, Twin as TwinData } from "../../api/shapes";
import { useLive } from "../../live/hooks";
import { Ago } from "../../parts/ago";
import { Payload } from "../../parts/payload";
import { Failure, Lines } from "../../parts/states";
import { Status } from "../../parts/status";
import { plural } from "../../text/numbers";
import { leaves } from "../../text/merge-patch";
import { TwinEditor } from "./twin-editor";

export function Twin({ id }: { id: string }) {
  const queries = useQueryClient();
  const key = ["twin", id];
  const twin = useQuery({ queryKey: key, queryFn: () => getTwin(id), refetchInterval: 10_000 });
  useLive("messages", id, () => void queries.invalidateQueries({ queryKey: key }));
  const mayAct = useMay("operator");
  // The twin as it was when the edit began.
  const [editing, setEditing] = useState<TwinData | null>(null);
  if (twin.isError && !twin.data)
    return <Failure what="The twin could not be loaded" error={twin.error} retry={() => void twin.refetch()} />;
  if (!twin.data) return <Lines rows={6} />;
  const data = twin.data;
  const pending = leaves(data.delta as JsonObject);
  const edit = mayAct && !editing && (
    <Button variant="default" size="compact-xs" onClick={() => setEditing(data)} data-testid="twin-edit">
      Edit
    </Button>
  );
  return (
    <>
      <Group gap="md" mb={12} style={{ fontSize: "0.8125rem" }}>
        {pending === 0 ? (
          <Status state="succeeded" word="The device reports all that is desired" testid="twin-state" />
        ) : (
          <Status state="waiting" word={`${plural(pending, "value")} not reported yet`} testid="twin-state" />
        )}
        <span className="dim">
          version <span data-testid="twin-version">{data.version}</span>, changed <Ago at={data.updated_at} />
        </span>
      </Group>
      <div className="three">
        <Part title="Desired" action={edit}>
          {editing ? (
            <TwinEditor id={id} twin={editing} close={() => setEditing(null)} />
          ) : Object.keys(data.desired).length === 0 ? (
            <span className="dim">Nothing is desired of this device yet.</span>
          ) : (
            <Payload value={data.desired} testid="twin-desired" />
          )}
        </Part>
        <Part title="Reported">
          {Object.keys(data.reported).length === 0 ? (
            <span className="dim">The device has reported nothing yet.</span>
          ) : (
            <Payload value={data.reported} testid="twin-reported" />
          )}
        </Part>
        <Part title="Still different">
          {pending === 0 ? <span className="dim">Nothing.</span> : <Payload value={data.delta} testid="twin-delta" />}
        </Part>
      </div>
    </>
  );
}

function Part({ title, action, children }: { title: string; action?: ReactNode; children: ReactNode }) {
  return (
    <section>
      <div className="section">
        <h2>{title}</h2>
        {action}
      </div>
      {children}
    </section>
  );
}
