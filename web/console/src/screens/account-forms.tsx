// The dialogs for one's own account.
import { Anchor, Button, Group, Modal, PasswordInput, Stack, Text, TextInput } from "@mantine/core";
import { useState, type ReactNode } from "react";
import { confirmSecondFactor, enrolSecondFactor, removeSecondFactor } from "../api/calls";
import { asProblem, type Problem } from "../api/problem";
import { changePassword, lookAgain } from "../api/session";
import { Secret, Snippet } from "../parts/copy";
import { told } from "../parts/toast";

/** A dialog with one form. What was wrong is shown in it; it closes when `run` says so. */
function Asking({
  title,
  action,
  run,
  close,
  children,
}: {
  title: string;
  action: string;
  run: () => Promise<unknown>;
  close: () => void;
  children: (problem: Problem | null) => ReactNode;
}) {
  const [busy, setBusy] = useState(false);
  const [problem, setProblem] = useState<Problem | null>(null);
  const go = async (): Promise<void> => {
    setBusy(true);
    setProblem(null);
    await run().catch((error: unknown) => setProblem(asProblem(error)));
    setBusy(false);
  };
  return (
    <Modal opened onClose={close} title={<b>{title}</b>} closeOnClickOutside={false}>
      <form
        onSubmit={(event) => {
          event.preventDefault();
          if (!busy) void go();
        }}
      >
        <Stack gap="sm">
          {problem && problem.errors.length === 0 && (
            <div className="notice" data-tone="bad" role="alert">
              {problem.message}
            </div>
          )}
          {children(problem)}
          <Group justify="flex-end" gap="xs">
            <Button variant="default" onClick={close}>
              Cancel
            </Button>
            <Button type="submit" loading={busy} data-testid="account-submit">
              {action}
            </Button>
          </Group>
        </Stack>
      </form>
    </Modal>
  );
}

function Present({ value, set, problem }: { value: string; set: (value: string) => void; problem: Problem | null }) {
  return (
    <PasswordInput
      label="Your password"
      value={value}
      onChange={(event) => set(event.currentTarget.value)}
      required
      withAsterisk={false}
      error={problem?.of("password")}
      autoComplete="current-password"
      data-autofocus
      data-testid="present-password"
    />
  );
}

export function OwnPassword({ close }: { close: () => void }) {
  const [password, setPassword] = useState("");
  const [fresh, setFresh] = useState("");
  const run = async (): Promise<void> => {
    await changePassword(password, fresh);
    told("Your password was changed; your other sessions have ended");
    close();
  };
  return (
    <Asking title="Change your password" action="Change password" run={run} close={close}>
      {(problem) => (
        <>
          <Present value={password} set={setPassword} problem={problem} />
          <PasswordInput
            label="New password"
            description="At least 8 characters. All your sessions but this one end."
            value={fresh}
            onChange={(event) => setFresh(event.currentTarget.value)}
            required
            withAsterisk={false}
            minLength={8}
            error={problem?.of("new_password")}
            autoComplete="new-password"
            data-testid="new-password"
          />
        </>
      )}
    </Asking>
  );
}

export function RemoveSecondFactor({ close }: { close: () => void }) {
  const [password, setPassword] = useState("");
  const run = async (): Promise<void> => {
    await removeSecondFactor(password);
    await lookAgain();
    told("You log in with your password alone");
    close();
  };
  return (
    <Asking title="Remove the second factor?" action="Remove" run={run} close={close}>
      {(problem) => (
        <>
          <Text size="sm">Logins will ask for your password alone, and your recovery codes become void.</Text>
          <Present value={password} set={setPassword} problem={problem} />
        </>
      )}
    </Asking>
  );
}

/** Three steps: the password, the secret with a first code, the recovery codes. */
export function SetUpSecondFactor({ close }: { close: () => void }) {
  const [begun, setBegun] = useState<{ secret: string; uri: string } | null>(null);
  const [recovery, setRecovery] = useState<string[] | null>(null);
  if (begun === null) return <Begin close={close} done={setBegun} />;
  if (recovery === null) return <FirstCode {...begun} close={close} done={setRecovery} />;
  // Only now: with the news that it is on, the page takes this dialog away.
  const kept = (): void => void lookAgain().finally(close);
  return (
    <Modal opened onClose={kept} title={<b>Recovery codes</b>} closeOnClickOutside={false}>
      <Stack gap="sm">
        <Text size="sm">
          The second factor is on. Each of these lets you in once without the app. They are shown this once: keep them
          where the app is not.
        </Text>
        <Snippet text={recovery.join("\n")} testid="recovery-codes" />
        <Group justify="flex-end">
          <Button onClick={kept} data-testid="recovery-done">
            I have kept them
          </Button>
        </Group>
      </Stack>
    </Modal>
  );
}

function Begin({ close, done }: { close: () => void; done: (begun: { secret: string; uri: string }) => void }) {
  const [password, setPassword] = useState("");
  const run = async (): Promise<void> => done(await enrolSecondFactor(password));
  return (
    <Asking title="Set up a second factor" action="Go on" run={run} close={close}>
      {(problem) => (
        <>
          <Text size="sm">Logins will ask for a code from an app on your phone, besides your password.</Text>
          <Present value={password} set={setPassword} problem={problem} />
        </>
      )}
    </Asking>
  );
}

function FirstCode({
  secret,
  uri,
  close,
  done,
}: {
  secret: string;
  uri: string;
  close: () => void;
  done: (recovery: string[]) => void;
}) {
  const [code, setCode] = useState("");
  const run = async (): Promise<void> => done((await confirmSecondFactor(code)).recovery_codes);
  return (
    <Asking title="Set up a second factor" action="Confirm" run={run} close={close}>
      {(problem) => (
        <>
          <Text size="sm">
            Type this into your authenticator app, or <Anchor href={uri}>open it there</Anchor>. Then type the code that
            the app shows.
          </Text>
          <Secret text={secret} testid="factor-secret" />
          <TextInput
            label="Code"
            value={code}
            onChange={(event) => setCode(event.currentTarget.value)}
            required
            withAsterisk={false}
            maxLength={16}
            inputMode="numeric"
            error={problem?.of("code")}
            autoComplete="one-time-code"
            data-autofocus
            data-testid="factor-code"
          />
        </>
      )}
    </Asking>
  );
}
