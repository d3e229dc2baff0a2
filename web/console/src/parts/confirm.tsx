// Asking before what cannot be undone. With `type`, the name has to be typed.
import { Button, Group, Modal, Stack, Text, TextInput } from "@mantine/core";
import { useState, type ReactNode } from "react";
import { failed } from "./toast";

export function Confirm({
  title,
  children,
  action,
  type,
  run,
  close,
}: {
  title: string;
  children: ReactNode;
  action: string;
  type?: string;
  run: () => Promise<unknown>;
  close: () => void;
}) {
  const [typed, setTyped] = useState("");
  const [busy, setBusy] = useState(false);
  const ready = type === undefined || typed.trim() === type;
  const go = async (): Promise<void> => {
    setBusy(true);
    try {
      await run();
      close();
    } catch (error) {
      failed(`${action}: it did not work`, error);
      setBusy(false);
    }
  };
  return (
    <Modal opened onClose={close} title={<b>{title}</b>} data-testid="confirm">
      <form
        onSubmit={(event) => {
          event.preventDefault();
          if (ready && !busy) void go();
        }}
      >
        <Stack gap="sm">
          <Text size="sm" component="div" style={{ overflowWrap: "anywhere" }}>
            {children}
          </Text>
          {type !== undefined && (
            <TextInput
              label={
                <>
                  Type{" "}
                  <b className="mono" style={{ overflowWrap: "anywhere" }}>
                    {type}
                  </b>{" "}
                  to confirm
                </>
              }
              value={typed}
              onChange={(event) => setTyped(event.currentTarget.value)}
              data-testid="confirm-name"
              autoComplete="off"
              data-autofocus
            />
          )}
          <Group justify="flex-end" gap="xs">
            <Button variant="default" onClick={close}>
              Cancel
            </Button>
            <Button
              type="submit"
              color="var(--bad)"
              c={ready ? "var(--mantine-color-body)" : undefined}
              disabled={!ready}
              loading={busy}
              data-testid="confirm-submit"
              {...(type === undefined ? { "data-autofocus": true } : {})}
            >
              {action}
            </Button>
          </Group>
        </Stack>
      </form>
    </Modal>
  );
}
