// Edit what is desired of a device. The server refuses the edit when somebody else was faster; then both are shown.
import { Button, Group, Modal, Stack, Text, Textarea } from "@mantine/core";
import { useQueryClient } from "@tanstack/react-query";
import { useState } from "react";
import { getTwin, patchTwin } from "../../api/calls";
import { asProblem } from "../../api/problem";
import type { Json, JsonObject, Twin } from "../../api/shapes";
import { Payload, pretty } from "../../parts/payload";
import { told } from "../../parts/toast";
import { clip } from "../../text/clip";
import { mergePatch } from "../../text/merge-patch";

export function TwinEditor({ id, twin, close }: { id: string; twin: Twin; close: () => void }) {
  const queries = useQueryClient();
  const [from, setFrom] = useState(twin);
  const [text, setText] = useState(() => pretty(twin.desired));
  const [conflict, setConflict] = useState<Twin | null>(null);
  const [problem, setProblem] = useState<string | null>(null);
  const [busy, setBusy] = useState(false);
  const wanted = parsed(text);
  const patch = typeof wanted === "string" ? null : mergePatch(from.desired as JsonObject, wanted);
  const save = async (version: number): Promise<void> => {
    if (!patch) return;
    setBusy(true);
    setProblem(null);
    try {
      queries.setQueryData(["twin", id], await patchTwin(id, patch, version));
      told("The desired state was saved");
      close();
      return;
    } catch (error) {
      const fresh = asProblem(error).status === 412 ? await getTwin(id).catch(() => null) : null;
      if (fresh) {
        queries.setQueryData(["twin", id], fresh);
        setConflict(fresh);
      } else setProblem(asProblem(error).message);
    }
    setBusy(false);
  };
  const startAgain = (there: Twin): void => {
    setFrom(there);
    setText(pretty(there.desired));
    setConflict(null);
  };
  return (
    <Stack gap="xs">
      <Textarea
        value={text}
        onChange={(event) => setText(event.currentTarget.value)}
        autosize
        minRows={8}
        maxRows={24}
        classNames={{ input: "mono" }}
        spellCheck={false}
        aria-label="Desired state, JSON"
        data-testid="twin-editor"
        error={typeof wanted === "string" ? wanted : undefined}
        autoFocus
      />
      <Text size="xs" c="dimmed">
        Only what you change is sent. A key that you remove is removed from the desired state.
      </Text>
      {problem && (
        <div className="notice" data-tone="bad" role="alert">
          {clip(problem, 300)}
        </div>
      )}
      <Group gap="xs" justify="flex-end">
        <Button variant="default" onClick={close}>
          Cancel
        </Button>
        <Button onClick={() => void save(from.version)} loading={busy} disabled={!patch} data-testid="twin-save">
          Save desired state
        </Button>
      </Group>
      {conflict && (
        <Conflict
          began={from.version}
          there={conflict}
          mine={patch}
          busy={busy}
          close={() => setConflict(null)}
          drop={close}
          startAgain={() => startAgain(conflict)}
          apply={() => void save(conflict.version)}
        />
      )}
    </Stack>
  );
}

function Conflict({
  began,
  there,
  mine,
  busy,
  close,
  drop,
  startAgain,
  apply,
}: {
  began: number;
  there: Twin;
  mine: JsonObject | null;
  busy: boolean;
  close: () => void;
  drop: () => void;
  startAgain: () => void;
  apply: () => void;
}) {
  return (
    <Modal
      opened
      onClose={close}
      size="xl"
      title={<b>Somebody else changed the desired state</b>}
      data-testid="twin-conflict"
    >
      <Stack gap="sm">
        <Text size="sm">
          You began at version {began}; it is now version {there.version}. Nothing of yours is saved yet.
        </Text>
        <div className="two">
          <section>
            <div className="section">
              <h2>There now</h2>
            </div>
            <Payload value={there.desired} />
          </section>
          <section>
            <div className="section">
              <h2>Your changes</h2>
            </div>
            <Payload value={mine} />
          </section>
        </div>
        <Group justify="flex-end" gap="xs">
          <Button variant="default" onClick={drop}>
            Drop my changes
          </Button>
          <Button variant="default" onClick={startAgain}>
            Edit what is there now
          </Button>
          <Button onClick={apply} loading={busy} data-testid="twin-conflict-apply">
            Apply my changes on top
          </Button>
        </Group>
      </Stack>
    </Modal>
  );
}

/** The object in the field, or what is wrong with it. */
function parsed(text: string): JsonObject | string {
  try {
    const value = JSON.parse(text) as Json;
    const isObject = typeof value === "object" && value !== null && !Array.isArray(value);
    return isObject ? value : "The desired part is a JSON object: {…}";
  } catch (error) {
    return `Not JSON: ${error instanceof Error ? error.message.slice(0, 140) : ""}`;
  }
}
