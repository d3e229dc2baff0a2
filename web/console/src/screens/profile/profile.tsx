// One profile: its document, and what it makes of a payload. The server refuses an edit of what somebody else changed.
import { Button, Group, Stack } from "@mantine/core";
import { useQuery, useQueryClient } from "@tanstack/react-query";
import { useState } from "react";
import { Link, useNavigate, useParams } from "react-router";
import { deleteProfile, getProfile, replaceProfile } from "../../api/calls";
import { asProblem, type Problem } from "../../api/problem";
import { useMay } from "../../api/session";
import type { Profile as ProfileData, ProfileBody } from "../../api/shapes";
import { Ago } from "../../parts/ago";
import { Confirm } from "../../parts/confirm";
import { CopyButton } from "../../parts/copy";
import { pretty } from "../../parts/payload";
import { Failure, Lines } from "../../parts/states";
import { told } from "../../parts/toast";
import { clip } from "../../text/clip";
import { count } from "../../text/numbers";
import { parsed, written } from "../../text/profile";
import { Editor } from "./editor";
import { TryPayload } from "./try-payload";

export default function Profile() {
  const name = useParams().name!;
  const mayAct = useMay("operator");
  const profile = useQuery({ queryKey: ["profiles", "one", name], queryFn: () => getProfile(name) });
  if (profile.isError && !profile.data) {
    return asProblem(profile.error).status === 404 ? (
      <div className="empty" data-testid="no-profile">
        <h2>There is no profile “{clip(name, 64)}”</h2>
        <p>Devices that name it send what Mooring understands by itself.</p>
        <Group justify="center" gap="xs">
          {mayAct && (
            <Button component={Link} to={`/new-profile?name=${encodeURIComponent(name)}`}>
              Make it
            </Button>
          )}
          <Button variant="default" component={Link} to="/profiles">
            All profiles
          </Button>
        </Group>
      </div>
    ) : (
      <Failure what="The profile could not be loaded" error={profile.error} retry={() => void profile.refetch()} />
    );
  }
  return (
    <>
      <Head name={name} profile={profile.data} />
      {profile.data ? <Sheet profile={profile.data} /> : <Lines rows={10} />}
    </>
  );
}

function Head({ name, profile }: { name: string; profile: ProfileData | undefined }) {
  const queries = useQueryClient();
  const navigate = useNavigate();
  const mayAct = useMay("operator");
  const [deleting, setDeleting] = useState(false);
  const remove = async (): Promise<void> => {
    await deleteProfile(name);
    told(`The profile ${name} was deleted`);
    void navigate("/profiles");
    queries.removeQueries({ queryKey: ["profiles", "one", name] });
    await queries.invalidateQueries({ queryKey: ["profiles", "list"] });
  };
  return (
    <div className="head">
      <div>
        <h1>
          <span className="mono">{clip(name, 64)}</span> <CopyButton text={name} label="Copy the name" />
        </h1>
        {profile && (
          <div className="dim" style={{ fontSize: "0.8125rem" }} data-testid="profile-facts">
            {named(profile.devices)} · version {profile.version} · changed <Ago at={profile.updated_at} />
          </div>
        )}
      </div>
      {mayAct && profile && (
        <Button variant="default" onClick={() => setDeleting(true)} data-testid="profile-delete">
          Delete
        </Button>
      )}
      {deleting && profile && (
        <Confirm
          title="Delete this profile?"
          action="Delete profile"
          type={name}
          close={() => setDeleting(false)}
          run={remove}
        >
          {profile.devices === 0
            ? "No device names it."
            : `${named(profile.devices)}: from then on ${profile.devices === 1 ? "its" : "their"} messages mean what they say, and binary ones are refused.`}
        </Confirm>
      )}
    </div>
  );
}

function named(devices: number): string {
  return devices === 1 ? "1 device names it" : `${count(devices)} devices name it`;
}

function Sheet({ profile }: { profile: ProfileData }) {
  const queries = useQueryClient();
  const mayAct = useMay("operator");
  const [from, setFrom] = useState(profile);
  const [text, setText] = useState(() => pretty(written(profile)));
  const [problem, setProblem] = useState<Problem | null>(null);
  const [newer, setNewer] = useState<ProfileData | null>(null);
  const [busy, setBusy] = useState(false);
  const document = parsed(text);
  const body = typeof document === "string" ? null : (document as ProfileBody);
  const isChanged = text !== pretty(written(from));
  const begin = (at: ProfileData): void => {
    setFrom(at);
    setText(pretty(written(at)));
    setNewer(null);
    setProblem(null);
  };
  const edit = (next: string): void => {
    setText(next);
    setProblem(null);
  };
  const save = async (version: number): Promise<void> => {
    if (!body) return;
    setBusy(true);
    setProblem(null);
    try {
      const saved = await replaceProfile(profile.name, body, version);
      queries.setQueryData(["profiles", "one", profile.name], saved);
      void queries.invalidateQueries({ queryKey: ["profiles", "list"] });
      begin(saved);
      told(`Saved: version ${saved.version} reads messages from now on`);
    } catch (error) {
      const found = asProblem(error);
      const there = found.status === 412 ? await getProfile(profile.name).catch(() => null) : null;
      if (there) setNewer(there);
      else setProblem(found);
    }
    setBusy(false);
  };
  return (
    <div className="two">
      <section>
        <div className="section">
          <h2>What its devices send</h2>
        </div>
        <Stack gap="xs">
          <Editor text={text} onChange={edit} problem={problem} readOnly={!mayAct} />
          {newer && (
            <div className="notice" data-tone="wait" role="alert" data-testid="profile-conflict">
              Somebody else saved version {newer.version} since you began at version {from.version}. Nothing of yours is
              saved yet.
              <Group gap="xs" mt={6}>
                <Button variant="default" onClick={() => begin(newer)}>
                  Drop mine, show theirs
                </Button>
                <Button onClick={() => void save(newer.version)} loading={busy}>
                  Save mine over it
                </Button>
              </Group>
            </div>
          )}
          {mayAct && (
            <Group gap="xs" justify="flex-end">
              <Button variant="default" onClick={() => begin(from)} disabled={!isChanged || busy}>
                Undo
              </Button>
              <Button
                onClick={() => void save(from.version)}
                loading={busy}
                disabled={!body || !isChanged || newer !== null}
                data-testid="profile-save"
              >
                Save for {profile.devices === 1 ? "1 device" : `${count(profile.devices)} devices`}
              </Button>
            </Group>
          )}
        </Stack>
      </section>
      {mayAct && (
        <section>
          <div className="section">
            <h2>Try a payload</h2>
          </div>
          <TryPayload profile={body} onWrong={setProblem} />
        </section>
      )}
    </div>
  );
}
