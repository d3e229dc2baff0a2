// A new profile: its name, a document to begin with, and what that makes of a payload.
import { Button, Group, Stack, TextInput } from "@mantine/core";
import { useQueryClient } from "@tanstack/react-query";
import { useState } from "react";
import { Link, useNavigate } from "react-router";
import { createProfile } from "../../api/calls";
import { asProblem, type Problem } from "../../api/problem";
import type { ProfileBody } from "../../api/shapes";
import { useAddress } from "../../parts/address";
import { pretty } from "../../parts/payload";
import { told } from "../../parts/toast";
import { parsed, starter } from "../../text/profile";
import { Editor } from "./editor";
import { TryPayload } from "./try-payload";

export default function NewProfile() {
  const address = useAddress();
  const navigate = useNavigate();
  const queries = useQueryClient();
  const [name, setName] = useState(address.get("name"));
  const [text, setText] = useState(() => pretty(starter));
  const [problem, setProblem] = useState<Problem | null>(null);
  const [busy, setBusy] = useState(false);
  const document = parsed(text);
  const body = typeof document === "string" ? null : (document as ProfileBody);
  const edit = (next: string): void => {
    setText(next);
    setProblem(null);
  };
  const save = async (): Promise<void> => {
    if (!body || !name) return;
    setBusy(true);
    setProblem(null);
    try {
      const saved = await createProfile(name.trim(), body);
      queries.setQueryData(["profiles", "one", saved.name], saved);
      void queries.invalidateQueries({ queryKey: ["profiles", "list"] });
      told(`The profile ${saved.name} was made`);
      void navigate(`/profiles/${encodeURIComponent(saved.name)}`, { replace: true });
    } catch (error) {
      setProblem(asProblem(error));
      setBusy(false);
    }
  };
  return (
    <>
      <div className="head">
        <h1>New profile</h1>
      </div>
      <div className="two">
        <Stack gap="xs">
          <TextInput
            label="Name"
            description="Devices name it in their profile: letters, digits, . _ -"
            value={name}
            onChange={(event) => setName(event.currentTarget.value)}
            maxLength={64}
            error={problem?.of("name")}
            classNames={{ input: "mono" }}
            data-testid="profile-name"
            autoFocus
          />
          <Editor text={text} onChange={edit} problem={problem} />
          <Group gap="xs" justify="flex-end">
            <Button variant="default" component={Link} to="/profiles">
              Cancel
            </Button>
            <Button
              onClick={() => void save()}
              loading={busy}
              disabled={!body || !name.trim()}
              data-testid="profile-save"
            >
              Make profile
            </Button>
          </Group>
        </Stack>
        <section>
          <div className="section">
            <h2>Try a payload</h2>
          </div>
          <TryPayload profile={body} onWrong={setProblem} />
        </section>
      </div>
    </>
  );
}
