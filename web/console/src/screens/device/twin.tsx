// The twin: what is wanted, what the device reports, and what still differs. Edits are refused by the server when
// somebody else was faster; then both versions are shown.
import { Button, Group, Modal, Stack, Text, Textarea } from "@mantine/core";
import { useQuery, useQueryClient } from "@tanstack/react-query";
import { useState } from "react";
import { getTwin, patchTwin } from "../../api/calls";
import { asProblem } from "../../api/problem";
import { useMay } from "../../api/session";
import type { Json, JsonObject, Twin as TwinData } from "../../api/shapes";
import { useLive } from "../../live/hooks";
import { Ago } from "../../parts/ago";
import { Payload, pretty } from "../../parts/payload";
import { Failure, Lines } from "../../parts/states";
import { Status } from "../../parts/status";
import { told } from "../../parts/toast";
import { clip } from "../../text/clip";
import { plural } from "../../text/numbers";
import { leaves, mergePatch } from "../../text/merge-patch";

export function Twin({ id }: { id: string }) {
  const queries = useQueryClient();
  const key = ["twin", id];
  const twin = useQuery({ queryKey: key, queryFn: () => getTwin(id), refetchInterval: 10_000 });
  useLive("messages", id, () => void queries.invalidateQueries({ queryKey: key }));
  const mayAct = useMay("operator");
  const [edit, setEdit] = useState<{ from: TwinData; text: string } | null>(null);
  const [conflict, setConflict] = useState<TwinData | null>(null);
  const [problem, setProblem] = useState<string | null>(null);
  const [busy, setBusy] = useState(false);
  if (twin.isError && !twin.data) return <Failure what="The twin could not be loaded" error={twin.error} retry={() => void twin.refetch()} />;
  if (!twin.data) return <Lines rows={6} />;
  const data = twin.data;
  const pending = leaves(data.delta as JsonObject);

  const wanted = ((): JsonObject | string => {
    if (!edit) return "";
    try {
      const value = JSON.parse(edit.text) as Json;
      return typeof value === "object" && value !== null && !Array.isArray(value) ? value : "The desired part is a JSON object: {…}";
    } catch (error) {
      return `Not JSON: ${error instanceof Error ? error.message.slice(0, 140) : ""}`;
    }
  })();
  const save = async (version: number): Promise<void> => {
    if (!edit || typeof wanted === "string") return;
    setBusy(true);
    setProblem(null);
    try {
      const next = await patchTwin(id, mergePatch(edit.from.desired as JsonObject, wanted), version);
      queries.setQueryData(key, next);
      setEdit(null);
      setConflict(null);
      told("The desired state was saved");
    } catch (error) {
      if (asProblem(error).status === 412) {
        const fresh = await getTwin(id).catch(() => null);
        if (fresh) { queries.setQueryData(key, fresh); setConflict(fresh); }
      } else setProblem(asProblem(error).message);
    }
    setBusy(false);
  };

  return (
    <>
      <Group gap="md" mb={12} style={{ fontSize: "0.8125rem" }}>
        {pending === 0 ? <Status state="succeeded" word="The device reports all that is desired" testid="twin-state" />
          : <Status state="waiting" word={`${plural(pending, "value")} not reported yet`} testid="twin-state" />}
        <span className="dim">version <span data-testid="twin-version">{data.version}</span>{data.updated_at && <>, changed <Ago at={data.updated_at} /></>}</span>
      </Group>
      <div className="three">
        <section>
          <div className="section"><h2>Desired</h2>
            {mayAct && !edit && <Button variant="default" size="compact-xs" onClick={() => setEdit({ from: data, text: pretty(data.desired) })} data-testid="twin-edit">Edit</Button>}
          </div>
          {edit ? (
            <Stack gap="xs">
              <Textarea value={edit.text} onChange={(event) => setEdit({ ...edit, text: event.currentTarget.value })} autosize minRows={8} maxRows={24} classNames={{ input: "mono" }}
                spellCheck={false} aria-label="Desired state, JSON" data-testid="twin-editor" error={typeof wanted === "string" ? wanted : undefined} autoFocus />
              <Text size="xs" c="dimmed">Only what you change is sent. A key that you remove is removed from the desired state.</Text>
              {problem && <div className="notice" data-tone="bad" role="alert">{clip(problem, 300)}</div>}
              <Group gap="xs" justify="flex-end">
                <Button variant="default" onClick={() => { setEdit(null); setProblem(null); }}>Cancel</Button>
                <Button onClick={() => void save(edit.from.version)} loading={busy} disabled={typeof wanted === "string"} data-testid="twin-save">Save desired state</Button>
              </Group>
            </Stack>
          ) : Object.keys(data.desired).length === 0 ? <span className="dim">Nothing is desired of this device yet.</span> : <Payload value={data.desired} testid="twin-desired" />}
        </section>
        <section>
          <div className="section"><h2>Reported</h2></div>
          {Object.keys(data.reported).length === 0 ? <span className="dim">The device has reported nothing yet.</span> : <Payload value={data.reported} testid="twin-reported" />}
        </section>
        <section>
          <div className="section"><h2>Still different</h2></div>
          {pending === 0 ? <span className="dim">Nothing.</span> : <Payload value={data.delta} testid="twin-delta" />}
        </section>
      </div>
      <Modal opened={conflict !== null} onClose={() => setConflict(null)} size="xl" title={<b>Somebody else changed the desired state</b>} data-testid="twin-conflict">
        {conflict && edit && (
          <Stack gap="sm">
            <Text size="sm">You began at version {edit.from.version}; it is now version {conflict.version}. Nothing of yours is saved yet.</Text>
            <div className="two">
              <section><div className="section"><h2>There now</h2></div><Payload value={conflict.desired} /></section>
              <section><div className="section"><h2>Your changes</h2></div><Payload value={typeof wanted === "string" ? wanted : mergePatch(edit.from.desired as JsonObject, wanted)} /></section>
            </div>
            <Group justify="flex-end" gap="xs">
              <Button variant="default" onClick={() => { setConflict(null); setEdit(null); }}>Drop my changes</Button>
              <Button variant="default" onClick={() => { setEdit({ from: conflict, text: pretty(conflict.desired) }); setConflict(null); }}>Edit what is there now</Button>
              <Button onClick={() => void save(conflict.version)} loading={busy} data-testid="twin-conflict-apply">Apply my changes on top</Button>
            </Group>
          </Stack>
        )}
      </Modal>
    </>
  );
}
