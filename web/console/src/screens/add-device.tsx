// Add a device: its id, then its token, shown once, with the commands that make it speak and steps that tick
// themselves.
import { Alert, Button, Group, Modal, Stack, TagsInput, Text, TextInput } from "@mantine/core";
import { useState } from "react";
import { Link } from "react-router";
import { createDevice } from "../api/calls";
import { asProblem, type Problem } from "../api/problem";
import { useLive } from "../live/hooks";
import { Secret } from "../parts/copy";
import { Status } from "../parts/status";
import { Snippets } from "./snippets";

export function AddDevice({ close }: { close: () => void }) {
  const [made, setMade] = useState<{ id: string; token: string } | null>(null);
  return (
    <Modal
      opened
      onClose={close}
      size="lg"
      title={<b>{made ? "Device added" : "Add a device"}</b>}
      closeOnClickOutside={made === null}
      closeOnEscape={made === null}
    >
      {made ? (
        <Connect id={made.id} token={made.token} close={close} />
      ) : (
        <Form onMade={(id, token) => setMade({ id, token })} close={close} />
      )}
    </Modal>
  );
}

function Form({ onMade, close }: { onMade: (id: string, token: string) => void; close: () => void }) {
  const [id, setId] = useState("");
  const [name, setName] = useState("");
  const [tags, setTags] = useState<string[]>([]);
  const [busy, setBusy] = useState(false);
  const [problem, setProblem] = useState<Problem | null>(null);
  const malformed = id !== "" && !/^[A-Za-z0-9._:-]{1,64}$/.test(id);
  const submit = async (): Promise<void> => {
    setBusy(true);
    setProblem(null);
    try {
      const device = await createDevice({ id, ...(name.trim() ? { name: name.trim() } : {}), tags });
      onMade(device.id, device.credentials.token);
    } catch (error) {
      setProblem(asProblem(error));
      setBusy(false);
    }
  };
  return (
    <form
      onSubmit={(event) => {
        event.preventDefault();
        if (!malformed) void submit();
      }}
      data-testid="add-device-form"
    >
      <Stack gap="sm">
        {problem && problem.errors.length === 0 && problem.status !== 409 && (
          <div className="notice" data-tone="bad" role="alert">
            {problem.message}
          </div>
        )}
        <TextInput
          label="Id"
          description="What the device logs in with. It cannot be changed later."
          placeholder="pump-7"
          value={id}
          required
          withAsterisk={false}
          maxLength={64}
          onChange={(event) => setId(event.currentTarget.value.trim())}
          data-autofocus
          data-testid="add-device-id"
          classNames={{ input: "mono" }}
          autoComplete="off"
          spellCheck={false}
          error={
            malformed
              ? "Letters, digits and . _ : - only"
              : problem?.status === 409
                ? "There is a device with this id already"
                : problem?.of("id")
          }
        />
        <TextInput
          label="Name"
          description="For people; optional"
          value={name}
          onChange={(event) => setName(event.currentTarget.value)}
          maxLength={128}
          data-testid="add-device-name"
          error={problem?.of("name")}
        />
        <TagsInput
          label="Tags"
          description="Enter after each; optional"
          value={tags}
          onChange={setTags}
          maxTags={64}
          splitChars={[",", " "]}
          data-testid="add-device-tags"
        />
        <Group justify="flex-end" gap="xs">
          <Button variant="default" onClick={close}>
            Cancel
          </Button>
          <Button type="submit" loading={busy} disabled={id === "" || malformed} data-testid="add-device-submit">
            Add device
          </Button>
        </Group>
      </Stack>
    </form>
  );
}

function Connect({ id, token, close }: { id: string; token: string; close: () => void }) {
  const [connected, setConnected] = useState(false);
  const [spoke, setSpoke] = useState(false);
  useLive("presence", id, (data) => {
    if ((data as { status?: string }).status === "online") setConnected(true);
  });
  useLive("telemetry", id, (data) => {
    if (Object.keys((data as { series?: object } | null)?.series ?? {}).length > 0) {
      setSpoke(true);
      setConnected(true);
    }
  });
  return (
    <Stack gap="md">
      <Alert color="gray" variant="outline" p="xs">
        The token of <b className="mono">{id}</b> is shown this once. Keep it where the device can read it.
      </Alert>
      <Secret text={token} testid="device-token" />
      <div>
        <Text size="sm" fw={600} mb={4}>
          Try it from a terminal
        </Text>
        <Snippets id={id} token={token} />
      </div>
      <Group gap="lg">
        <Status
          state={connected ? "succeeded" : "queued"}
          word={connected ? "Connected" : "Waiting for the device"}
          testid="step-connected"
        />
        <Status
          state={spoke ? "succeeded" : "queued"}
          word={spoke ? "First reading received" : "No reading yet"}
          testid="step-telemetry"
        />
      </Group>
      <Group justify="flex-end" gap="xs">
        <Button variant="default" onClick={close} data-testid="add-device-done">
          Done
        </Button>
        <Button component={Link} to={`/devices/${encodeURIComponent(id)}`} data-testid="open-device">
          Open {id.length > 24 ? "the device" : id}
        </Button>
      </Group>
    </Stack>
  );
}
