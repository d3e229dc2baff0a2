// Log in, by password or by the code of a one-time link.
import { Button, PasswordInput, Stack, TextInput } from "@mantine/core";
import { useEffect, useState } from "react";
import { useLocation, useNavigate } from "react-router";
import { asProblem } from "../api/problem";
import { exchange, login, useSession } from "../api/session";
import { Icon } from "../parts/icons";

export function Login() {
  const session = useSession();
  const location = useLocation();
  const navigate = useNavigate();
  const code = location.pathname === "/login" ? new URLSearchParams(location.search).get("code") : null;
  const [username, setUsername] = useState("");
  const [password, setPassword] = useState("");
  const [otp, setOtp] = useState("");
  const [asked, setAsked] = useState(false);
  const [busy, setBusy] = useState(code !== null);
  const [problem, setProblem] = useState<string | null>(null);

  useEffect(() => {
    if (code === null) return;
    exchange(code)
      .then(() => navigate("/", { replace: true }))
      .catch((error: unknown) => {
        setBusy(false);
        const { status, message } = asProblem(error);
        setProblem(
          status >= 400 && status < 500
            ? "This login link was used already or has run out. Log in with your password."
            : message,
        );
        void navigate("/login", { replace: true });
      });
  }, [code, navigate]);

  const submit = async (): Promise<void> => {
    setBusy(true);
    setProblem(null);
    try {
      await login(username, password, otp);
    } catch (error) {
      const { status, message, code } = asProblem(error);
      setBusy(false);
      if (code === "otp_required") return setAsked(true);
      setOtp("");
      if (code === "otp_invalid") return setProblem("The code is wrong, or was used already.");
      setProblem(status === 401 ? "User name or password is wrong." : message);
      if (status === 401) setAsked(false);
      setPassword("");
    }
  };

  return (
    <main className="centre">
      <div className="slip">
        <form
          onSubmit={(event) => {
            event.preventDefault();
            void submit();
          }}
          data-testid="login-form"
        >
          <Stack gap="md">
            <div className="brand">
              <Icon name="anchor" size={22} />
              Mooring
            </div>
            {problem ? (
              <div className="notice" data-tone="bad" role="alert" data-testid="login-error">
                {problem}
              </div>
            ) : session.phase === "out" && session.why ? (
              <div className="notice" role="status">
                {session.why}
              </div>
            ) : session.phase === "out" && session.setupNeeded ? (
              <div className="notice" data-testid="setup-hint">
                This server has no administrator yet. Open the set-up link that{" "}
                <span className="mono">mooring serve</span> printed when it started.
              </div>
            ) : null}
            <TextInput
              label="User name"
              value={username}
              onChange={(event) => setUsername(event.currentTarget.value)}
              required
              withAsterisk={false}
              autoComplete="username"
              autoFocus
              data-testid="login-username"
              disabled={busy}
              autoCapitalize="none"
              spellCheck={false}
            />
            <PasswordInput
              label="Password"
              value={password}
              onChange={(event) => setPassword(event.currentTarget.value)}
              required
              withAsterisk={false}
              autoComplete="current-password"
              data-testid="login-password"
              disabled={busy}
            />
            {asked && (
              <TextInput
                label="Code"
                description="From your authenticator app, or a recovery code"
                value={otp}
                onChange={(event) => setOtp(event.currentTarget.value)}
                required
                withAsterisk={false}
                maxLength={64}
                autoComplete="one-time-code"
                autoFocus
                data-testid="login-otp"
                disabled={busy}
                autoCapitalize="none"
                spellCheck={false}
              />
            )}
            <Button type="submit" size="sm" loading={busy} data-testid="login-submit">
              Log in
            </Button>
          </Stack>
        </form>
      </div>
    </main>
  );
}
