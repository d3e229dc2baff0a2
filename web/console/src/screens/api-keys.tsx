// API keys: how programs come in, each in the name of a person.
import { Button, Checkbox, Group, Modal, NumberInput, Select, Stack, Text, TextInput } from "@mantine/core";
import { useQuery, useQueryClient } from "@tanstack/react-query";
import { useState } from "react";
import { createApiKey, listApiKeys, revokeApiKey } from "../api/calls";
import { asProblem, type Problem } from "../api/problem";
import { useMay } from "../api/session";
import type { ApiKey, Role } from "../api/shapes";
import { Ago, At } from "../parts/ago";
import { Confirm } from "../parts/confirm";
import { Secret } from "../parts/copy";
import { DataTable, type Column } from "../parts/data-table";
import { Empty, Failure, Lines } from "../parts/states";
import { Status } from "../parts/status";
import { told } from "../parts/toast";
import { clip } from "../text/clip";
import { roles } from "./user-forms";

const DAY_MS = 86_400_000;

function stateOf(key: ApiKey): string {
  if (key.revoked_at) return "revoked";
  return key.expires_at && Date.parse(key.expires_at) <= Date.now() ? "expired" : "active";
}

export function ApiKeys() {
  const queries = useQueryClient();
  const mayAdmin = useMay("admin");
  const [all, setAll] = useState(false);
  const [adding, setAdding] = useState(false);
  const [revoking, setRevoking] = useState<ApiKey | null>(null);
  const keys = useQuery({ queryKey: ["api-keys", all], queryFn: () => listApiKeys(all) });
  const reload = () => queries.invalidateQueries({ queryKey: ["api-keys"] });
  const items = keys.data?.items ?? [];
  const columns: Column<ApiKey>[] = [
    {
      id: "name",
      header: "Key",
      value: (each) => each.name,
      cell: (each) => (
        <>
          {clip(each.name, 48)} <span className="mono dim">…{clip(each.hint, 8)}</span>
        </>
      ),
    },
    {
      id: "owner",
      header: "Acts for",
      width: 130,
      hide: "sm",
      value: (each) => each.owner,
      cell: (each) => clip(each.owner, 64),
    },
    { id: "role", header: "Role", width: 90, value: (each) => each.role, cell: (each) => each.role },
    { id: "state", header: "State", width: 100, value: stateOf, cell: (each) => <Status state={stateOf(each)} /> },
    {
      id: "expires",
      header: "Ends",
      width: 130,
      align: "right",
      hide: "md",
      value: (each) => each.expires_at,
      cell: (each) => (each.expires_at ? <At at={each.expires_at} /> : <span className="dim">never</span>),
    },
    {
      id: "used",
      header: "Last used",
      width: 110,
      align: "right",
      hide: "sm",
      value: (each) => each.last_used_at,
      cell: (each) => <Ago at={each.last_used_at} />,
    },
    {
      id: "revoke",
      header: "",
      free: true,
      width: 96,
      align: "right",
      cell: (each) =>
        stateOf(each) === "active" && (
          <Button
            variant="subtle"
            color="gray"
            size="compact-xs"
            onClick={() => setRevoking(each)}
            data-testid="api-key-revoke"
          >
            Revoke
          </Button>
        ),
    },
  ];
  return (
    <section data-testid="api-keys">
      <div className="section" style={{ alignItems: "center" }}>
        <h2>API keys</h2>
        <Group gap="sm">
          {mayAdmin && (
            <Checkbox label="Everybody's" checked={all} onChange={(event) => setAll(event.currentTarget.checked)} />
          )}
          <Button onClick={() => setAdding(true)} data-testid="api-key-add">
            Add a key
          </Button>
        </Group>
      </div>
      {keys.isError && !keys.data ? (
        <Failure what="The API keys could not be loaded" error={keys.error} retry={() => void keys.refetch()} />
      ) : keys.isLoading ? (
        <Lines rows={2} />
      ) : items.length === 0 ? (
        <Empty title="No API keys">A script or another system uses one instead of a password.</Empty>
      ) : (
        <DataTable
          label="API keys"
          testid="api-key-table"
          columns={columns}
          rows={items}
          rowId={({ id }) => id}
          rowData={(each) => ({
            "data-testid": "api-key-row",
            ...(stateOf(each) === "active" ? {} : { "data-muted": "" }),
          })}
        />
      )}
      {adding && <AddKey close={() => setAdding(false)} made={() => void reload()} />}
      {revoking && (
        <Confirm
          title="Revoke this key?"
          action="Revoke key"
          close={() => setRevoking(null)}
          run={async () => {
            await revokeApiKey(revoking.id);
            told("The key was revoked");
            await reload();
          }}
        >
          <b>{clip(revoking.name, 48)}</b> stops working at once, and so does what uses it.
        </Confirm>
      )}
    </section>
  );
}

function AddKey({ close, made }: { close: () => void; made: () => void }) {
  const mayOperate = useMay("operator");
  const mayAdmin = useMay("admin");
  const [name, setName] = useState("");
  const [role, setRole] = useState<Role>("viewer");
  const [days, setDays] = useState<number | string>(90);
  const [busy, setBusy] = useState(false);
  const [problem, setProblem] = useState<Problem | null>(null);
  const [key, setKey] = useState<string | null>(null);
  const may: Record<Role, boolean> = { viewer: true, operator: mayOperate, admin: mayAdmin };
  const submit = async (): Promise<void> => {
    setBusy(true);
    setProblem(null);
    try {
      const ends = Number(days) > 0 ? new Date(Date.now() + Number(days) * DAY_MS).toISOString() : null;
      setKey((await createApiKey({ name, role, expires_at: ends })).key);
      made();
    } catch (error) {
      setProblem(asProblem(error));
    }
    setBusy(false);
  };
  if (key !== null)
    return (
      <Modal opened onClose={close} title={<b>New API key</b>} closeOnClickOutside={false}>
        <Stack gap="sm">
          <Text size="sm">
            It is shown this once. Send it as <span className="mono">Authorization: Bearer</span>.
          </Text>
          <Secret text={key} testid="api-key" />
          <Group justify="flex-end">
            <Button onClick={close}>Done</Button>
          </Group>
        </Stack>
      </Modal>
    );
  return (
    <Modal opened onClose={close} title={<b>Add an API key</b>}>
      <form
        onSubmit={(event) => {
          event.preventDefault();
          void submit();
        }}
      >
        <Stack gap="sm">
          {problem && problem.errors.length === 0 && (
            <div className="notice" data-tone="bad" role="alert">
              {problem.message}
            </div>
          )}
          <TextInput
            label="Name"
            description="In the audit it stands behind your user name"
            value={name}
            onChange={(event) => setName(event.currentTarget.value)}
            required
            withAsterisk={false}
            maxLength={48}
            error={problem?.of("name")}
            data-autofocus
            data-testid="api-key-name"
          />
          <Select
            label="Role"
            data={roles.filter(({ value }) => may[value])}
            value={role}
            onChange={(next) => setRole((next ?? "viewer") as Role)}
          />
          <NumberInput
            label="Ends after"
            description="Days; 0: never"
            value={days}
            onChange={setDays}
            min={0}
            max={36_500}
            allowDecimal={false}
          />
          <Group justify="flex-end" gap="xs">
            <Button variant="default" onClick={close}>
              Cancel
            </Button>
            <Button type="submit" loading={busy} data-testid="api-key-submit">
              Add key
            </Button>
          </Group>
        </Stack>
      </form>
    </Modal>
  );
}
