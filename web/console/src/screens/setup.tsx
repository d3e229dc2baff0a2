// The first run: make the administrator, by the token of the link that the server printed.
import { Button, PasswordInput, Stack, Text, TextInput } from "@mantine/core";
import { useState } from "react";
import { useLocation, useNavigate } from "react-router";
import { asProblem, type Problem } from "../api/problem";
import { setUp } from "../api/session";
import { Icon } from "../parts/icons";

export function Setup() {
  const navigate = useNavigate();
  const token = new URLSearchParams(useLocation().search).get("token") ?? "";
  const [username, setUsername] = useState("admin");
  const [password, setPassword] = useState("");
  const [again, setAgain] = useState("");
  const [busy, setBusy] = useState(false);
  const [problem, setProblem] = useState<Problem | null>(null);
  const differs = again !== "" && again !== password;

  const submit = async (): Promise<void> => {
    setBusy(true);
    setProblem(null);
    try {
      await setUp(token, username, password);
      void navigate("/", { replace: true });
    } catch (error) {
      setProblem(asProblem(error));
      setBusy(false);
    }
  };

  return (
    <main className="centre">
      <div className="slip">
        <form
          onSubmit={(event) => {
            event.preventDefault();
            if (!differs) void submit();
          }}
          data-testid="setup-form"
        >
          <Stack gap="md">
            <div className="brand">
              <Icon name="anchor" size={22} />
              Mooring
            </div>
            <div>
              <Text fw={600}>Make the administrator</Text>
              <Text size="sm" c="dimmed">
                The first account of this server. It can add others.
              </Text>
            </div>
            {token === "" && (
              <div className="notice" data-tone="wait">
                The set-up link lacks its token. Open the whole link that the server printed.
              </div>
            )}
            {problem && problem.errors.length === 0 && (
              <div className="notice" data-tone="bad" role="alert" data-testid="setup-error">
                {problem.status === 401 || problem.status === 403 || problem.status === 409
                  ? "This link was used already or has run out. Restart the server to get a new one, or log in."
                  : problem.message}
              </div>
            )}
            <TextInput
              label="User name"
              value={username}
              onChange={(event) => setUsername(event.currentTarget.value)}
              required
              withAsterisk={false}
              autoComplete="username"
              data-testid="setup-username"
              error={problem?.of("username")}
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
              autoComplete="new-password"
              data-testid="setup-password"
              error={problem?.of("password")}
              autoFocus
            />
            <PasswordInput
              label="Password again"
              value={again}
              onChange={(event) => setAgain(event.currentTarget.value)}
              required
              withAsterisk={false}
              autoComplete="new-password"
              data-testid="setup-password-again"
              error={differs ? "The two passwords differ" : undefined}
            />
            <Button
              type="submit"
              size="sm"
              loading={busy}
              disabled={token === "" || differs}
              data-testid="setup-submit"
            >
              Make administrator
            </Button>
            <Button variant="subtle" color="gray" onClick={() => void navigate("/login")}>
              I have an account
            </Button>
          </Stack>
        </form>
      </div>
    </main>
  );
}
