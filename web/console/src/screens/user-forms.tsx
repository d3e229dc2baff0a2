// The dialogs for an account.
import { Button, Group, Modal, PasswordInput, Select, Stack, TextInput } from "@mantine/core";
import { useState } from "react";
import { createUser, updateUser } from "../api/calls";
import { asProblem, type Problem } from "../api/problem";
import type { Role, User } from "../api/shapes";
import { failed, told } from "../parts/toast";
import { clip } from "../text/clip";

export const roles: { value: Role; label: string }[] = [
  { value: "viewer", label: "Viewer: looks" },
  { value: "operator", label: "Operator: acts on devices" },
  { value: "admin", label: "Administrator: everything" },
];

export function AddUser({ close, done }: { close: () => void; done: (username: string) => void }) {
  const [username, setUsername] = useState("");
  const [password, setPassword] = useState("");
  const [role, setRole] = useState<Role>("operator");
  const [busy, setBusy] = useState(false);
  const [problem, setProblem] = useState<Problem | null>(null);
  const submit = async (): Promise<void> => {
    setBusy(true);
    try {
      await createUser({ username, password, role });
      done(username);
    } catch (error) {
      setProblem(asProblem(error));
      setBusy(false);
    }
  };
  return (
    <Modal opened onClose={close} title={<b>Add a user</b>}>
      <form
        onSubmit={(event) => {
          event.preventDefault();
          void submit();
        }}
        data-testid="user-form"
      >
        <Stack gap="sm">
          {problem && problem.errors.length === 0 && (
            <div className="notice" data-tone="bad" role="alert">
              {problem.status === 409 ? "There is a user of this name already." : problem.message}
            </div>
          )}
          <TextInput
            label="User name"
            value={username}
            onChange={(event) => setUsername(event.currentTarget.value.trim())}
            required
            withAsterisk={false}
            maxLength={64}
            data-autofocus
            data-testid="user-name"
            error={problem?.of("username")}
            autoComplete="off"
            autoCapitalize="none"
            spellCheck={false}
          />
          <PasswordInput
            label="Password"
            description="At least 8 characters"
            value={password}
            onChange={(event) => setPassword(event.currentTarget.value)}
            required
            withAsterisk={false}
            minLength={8}
            data-testid="user-password"
            error={problem?.of("password")}
            autoComplete="new-password"
          />
          <Select
            label="Role"
            data={roles}
            value={role}
            onChange={(next) => setRole((next ?? "operator") as Role)}
            data-testid="user-role"
          />
          <Group justify="flex-end" gap="xs">
            <Button variant="default" onClick={close}>
              Cancel
            </Button>
            <Button type="submit" loading={busy} data-testid="user-submit">
              Add user
            </Button>
          </Group>
        </Stack>
      </form>
    </Modal>
  );
}

export function NewPassword({ user, close }: { user: User; close: () => void }) {
  const [password, setPassword] = useState("");
  const [busy, setBusy] = useState(false);
  const submit = async (): Promise<void> => {
    setBusy(true);
    try {
      await updateUser(user.id, { password });
      told(`${user.username} has a new password`);
      close();
    } catch (error) {
      failed("Not changed", error);
      setBusy(false);
    }
  };
  return (
    <Modal opened onClose={close} title={<b>New password for {clip(user.username, 40)}</b>}>
      <form
        onSubmit={(event) => {
          event.preventDefault();
          void submit();
        }}
      >
        <Stack gap="sm">
          <PasswordInput
            label="Password"
            description="At least 8 characters"
            value={password}
            onChange={(event) => setPassword(event.currentTarget.value)}
            required
            withAsterisk={false}
            minLength={8}
            data-autofocus
            autoComplete="new-password"
          />
          <Group justify="flex-end" gap="xs">
            <Button variant="default" onClick={close}>
              Cancel
            </Button>
            <Button type="submit" loading={busy}>
              Set password
            </Button>
          </Group>
        </Stack>
      </form>
    </Modal>
  );
}
