// What a device may log in with: two of a type at most, so that one can be changed without losing the device.
import { Button, Group, Modal, Stack, Text } from "@mantine/core";
import { useQuery, useQueryClient } from "@tanstack/react-query";
import { useState } from "react";
import { addCredential, listCredentials, revokeCredential } from "../../api/calls";
import { useMay } from "../../api/session";
import type { Credential } from "../../api/shapes";
import { Ago } from "../../parts/ago";
import { Confirm } from "../../parts/confirm";
import { Secret } from "../../parts/copy";
import { DataTable, type Column } from "../../parts/data-table";
import { Empty, Failure, Lines } from "../../parts/states";
import { Status } from "../../parts/status";
import { failed, told } from "../../parts/toast";
import { clip } from "../../text/clip";
import { Snippets } from "../snippets";

export function Credentials({ id }: { id: string }) {
  const queries = useQueryClient();
  const mayAct = useMay("operator");
  const [token, setToken] = useState<string | null>(null);
  const [revoking, setRevoking] = useState<Credential | null>(null);
  const credentials = useQuery({ queryKey: ["credentials", id], queryFn: () => listCredentials(id) });
  const reload = () => queries.invalidateQueries({ queryKey: ["credentials", id] });
  const items = credentials.data?.items ?? [];
  const isOver = (each: Credential) => each.expires_at !== null && Date.parse(each.expires_at) <= Date.now();
  const valid = items.filter((each) => each.type === "token" && each.revoked_at === null && !isOver(each)).length;
  const add = (): void => {
    addCredential(id)
      .then((made) => {
        setToken(made.token);
        void reload();
      })
      .catch((error: unknown) => failed("No token was added", error));
  };
  const columns: Column<Credential>[] = [
    {
      id: "state",
      header: "State",
      width: 110,
      cell: (each) => (
        <Status state={each.revoked_at ? "revoked" : isOver(each) ? "expired" : "active"} testid="credential-status" />
      ),
    },
    { id: "type", header: "Type", width: 80, cell: (each) => each.type },
    { id: "name", header: "Name", cell: (each) => clip(each.name, 60) },
    {
      id: "hint",
      header: "Ends with",
      width: 100,
      cell: (each) => each.hint && <span className="mono">…{clip(each.hint, 8)}</span>,
    },
    {
      id: "expires",
      header: "Expires",
      width: 110,
      align: "right",
      cell: (each) => (each.expires_at ? <Ago at={each.expires_at} /> : "never"),
    },
    { id: "created", header: "Added", width: 110, align: "right", cell: (each) => <Ago at={each.created_at} /> },
    { id: "used", header: "Last used", width: 110, align: "right", cell: (each) => <Ago at={each.last_used_at} /> },
    {
      id: "revoke",
      header: "",
      free: true,
      width: 96,
      align: "right",
      cell: (each) =>
        mayAct &&
        !each.revoked_at && (
          <Button
            variant="subtle"
            color="gray"
            size="compact-xs"
            onClick={() => setRevoking(each)}
            data-testid="credential-revoke"
          >
            Revoke
          </Button>
        ),
    },
  ];
  return (
    <>
      <Group mb={10} justify="space-between">
        <Text size="sm" c="dimmed" maw={620}>
          To change a token without losing the device: add a second one, give it to the device, then revoke the first.
        </Text>
        {mayAct && (
          <Button
            onClick={add}
            disabled={valid >= 2 || !credentials.data}
            title={valid >= 2 ? "Two may be valid at once: revoke one first" : undefined}
            data-testid="credential-add"
          >
            Add a token
          </Button>
        )}
      </Group>
      {credentials.isError && !credentials.data ? (
        <Failure
          what="The credentials could not be loaded"
          error={credentials.error}
          retry={() => void credentials.refetch()}
        />
      ) : credentials.isLoading ? (
        <Lines rows={2} />
      ) : items.length === 0 ? (
        <Empty title="This device has no credentials">Without one it cannot connect.</Empty>
      ) : (
        <DataTable
          label="Credentials"
          testid="credential-table"
          columns={columns}
          rows={items}
          rowId={(each) => each.id}
          rowData={(each) => ({ "data-testid": "credential-row", ...(each.revoked_at ? { "data-muted": "" } : {}) })}
        />
      )}
      {token !== null && (
        <Modal opened onClose={() => setToken(null)} title={<b>New token</b>} size="lg" closeOnClickOutside={false}>
          <Stack gap="sm">
            <Text size="sm">It is shown this once. Keep it where the device can read it.</Text>
            <Secret text={token} testid="device-token" />
            <Snippets id={id} token={token} />
            <Group justify="flex-end">
              <Button onClick={() => setToken(null)}>Done</Button>
            </Group>
          </Stack>
        </Modal>
      )}
      {revoking && (
        <Confirm
          title="Revoke this token?"
          action="Revoke token"
          close={() => setRevoking(null)}
          run={async () => {
            await revokeCredential(id, revoking.id);
            told("The token was revoked");
            await reload();
          }}
        >
          The token ending in <b className="mono">{clip(revoking.hint, 8)}</b> stops working at once, and a connection
          made with it is dropped.
          {valid === 1 && (
            <>
              {" "}
              It is the only valid one: <b>the device will not be able to connect.</b>
            </>
          )}
        </Confirm>
      )}
    </>
  );
}
