// Firmware: what can be sent to devices. Upload with progress, and a check of the digest by the server.
import { Anchor, Button, FileInput, Group, Modal, Progress, Stack, Textarea, TextInput } from "@mantine/core";
import { useQuery, useQueryClient } from "@tanstack/react-query";
import { useRef, useState } from "react";
import { Link } from "react-router";
import { deleteArtifact, listArtifacts, uploadArtifact } from "../api/calls";
import { asProblem, type Problem } from "../api/problem";
import { useMay } from "../api/session";
import type { Artifact } from "../api/shapes";
import { useAddress } from "../parts/address";
import { Ago } from "../parts/ago";
import { Confirm } from "../parts/confirm";
import { LongId } from "../parts/copy";
import { DataTable, type Column } from "../parts/data-table";
import { Pager } from "../parts/pager";
import { Empty, Failure, Lines } from "../parts/states";
import { told } from "../parts/toast";
import { clip } from "../text/clip";
import { bytes } from "../text/numbers";

export default function Firmware() {
  const address = useAddress();
  const queries = useQueryClient();
  const mayAct = useMay("operator");
  const cursor = address.get("cursor");
  const artifacts = useQuery({ queryKey: ["artifacts", "list", cursor], queryFn: () => listArtifacts({ cursor, limit: 100 }) });
  const [deleting, setDeleting] = useState<Artifact | null>(null);
  const uploading = address.get("upload") === "1" && mayAct;
  const reload = () => queries.invalidateQueries({ queryKey: ["artifacts"] });
  const columns: Column<Artifact>[] = [
    { id: "version", header: "Version", width: 150, value: (each) => each.version, cell: (each) => <b className="mono" style={{ fontWeight: 600 }} title={clip(each.version, 64)}>{clip(each.version, 24)}</b> },
    { id: "name", header: "Name", value: (each) => each.name, cell: (each) => <span title={clip(`${each.name}\n${each.description}`, 600)}>{clip(each.name, 64)}{each.description && <span className="dim hide-sm"> {clip(each.description, 80)}</span>}</span> },
    { id: "size", header: "Size", width: 86, align: "right", value: (each) => each.size, cell: (each) => bytes(each.size) },
    { id: "sha256", header: "SHA-256", width: 160, hide: "md", cell: (each) => <LongId id={each.sha256} /> },
    { id: "created", header: "Uploaded", width: 110, align: "right", hide: "sm", value: (each) => each.created_at, cell: (each) => <Ago at={each.created_at} /> },
    {
      id: "actions", header: "", free: true, width: mayAct ? 142 : 1, align: "right",
      cell: (each) => mayAct && (
        <>
          <Button variant="subtle" color="gray" size="compact-xs" component={Link} to={`/campaigns/new?artifact=${each.id}`} data-testid="artifact-roll-out">Update…</Button>
          <Button variant="subtle" color="gray" size="compact-xs" onClick={() => setDeleting(each)} data-testid="artifact-delete">Delete</Button>
        </>
      ),
    },
  ];
  const items = artifacts.data?.items ?? [];
  const add = mayAct && <Button onClick={() => address.set({ upload: "1" })} data-testid="upload-open">Upload firmware</Button>;
  return (
    <>
      <div className="head"><h1>Firmware</h1>{items.length > 0 && add}</div>
      {artifacts.isError && !artifacts.data ? <Failure what="The firmware could not be loaded" error={artifacts.error} retry={() => void artifacts.refetch()} />
        : artifacts.isLoading ? <Lines />
        : items.length === 0 ? <Empty title="Upload your first firmware" action={add}>An image with a version. Devices get it by an update that you start; each reports back which version it runs.</Empty>
        : (
          <>
            <DataTable label="Firmware" testid="artifact-table" columns={columns} rows={items} rowId={({ id }) => id} rowData={({ version }) => ({ "data-testid": "artifact-row", "data-version": version })} />
            <Pager address={address} next={artifacts.data?.next_cursor} total={artifacts.data?.total} shown={items.length} noun="images" />
          </>
        )}
      {uploading && <Upload close={() => address.set({ upload: null }, { replace: true })} done={(artifact) => {
        address.set({ upload: null }, { replace: true });
        told(`Version ${artifact.version} was uploaded.`, { to: `/campaigns/new?artifact=${artifact.id}`, text: "Update devices" });
        void reload();
      }} />}
      {deleting && (
        <Confirm title="Delete this firmware?" action="Delete firmware" type={deleting.version} close={() => setDeleting(null)}
          run={async () => { await deleteArtifact(deleting.id); told(`Version ${deleting.version} was deleted`); await reload(); }}>
          {clip(deleting.name, 80)}, {bytes(deleting.size)}, will be gone. Devices that run it are not touched.
        </Confirm>
      )}
    </>
  );
}

function Upload({ close, done }: { close: () => void; done: (artifact: Artifact) => void }) {
  const [file, setFile] = useState<File | null>(null);
  const [version, setVersion] = useState("");
  const [description, setDescription] = useState("");
  const [sha256, setSha256] = useState("");
  const [share, setShare] = useState<number | null>(null);
  const [problem, setProblem] = useState<Problem | null>(null);
  const stop = useRef<AbortController | null>(null);
  const digestBad = sha256 !== "" && !/^[0-9a-fA-F]{64}$/.test(sha256);
  const pick = (next: File | null): void => {
    setFile(next);
    // "pump-1.2.0.bin" says its version; it can be changed.
    const found = next && /\d+\.\d+(?:\.\d+)?(?:[-+][0-9A-Za-z.]+?)?(?=\.[a-z]+$|$|[_-])/.exec(next.name);
    if (found && version === "") setVersion(found[0]);
  };
  const send = async (): Promise<void> => {
    if (!file) return;
    stop.current = new AbortController();
    setShare(0);
    setProblem(null);
    try {
      done(await uploadArtifact({ version: version.trim(), name: file.name.slice(0, 128), description: description.trim(), sha256: sha256.toLowerCase() }, file, setShare, stop.current.signal));
    } catch (error) {
      setProblem(asProblem(error));
      setShare(null);
    }
  };
  const busy = share !== null;
  return (
    <Modal opened onClose={() => { stop.current?.abort(); close(); }} title={<b>Upload firmware</b>} closeOnClickOutside={!busy} closeOnEscape={!busy}>
      <form onSubmit={(event) => { event.preventDefault(); if (!digestBad && !busy) void send(); }} data-testid="upload-form">
        <Stack gap="sm">
          {problem && <div className="notice" data-tone="bad" role="alert" data-testid="upload-error">{clip(problem.of("sha256") ?? problem.of("version") ?? problem.message, 300)}</div>}
          <FileInput label="File" placeholder="Choose an image" value={file} onChange={pick} required withAsterisk={false} disabled={busy} data-testid="upload-file" size="sm" clearable fileInputProps={{ "data-testid": "upload-file-input" } as object} />
          {file && <span className="dim" style={{ fontSize: "0.75rem" }}>{bytes(file.size)}</span>}
          <TextInput label="Version" description="Exactly what the device reports once it runs this image" placeholder="1.2.0" value={version} onChange={(event) => setVersion(event.currentTarget.value)} required withAsterisk={false} maxLength={64} disabled={busy} data-testid="upload-version" classNames={{ input: "mono" }} />
          <Textarea label="Description" description="Optional" value={description} onChange={(event) => setDescription(event.currentTarget.value)} maxLength={4096} autosize minRows={1} maxRows={6} disabled={busy} data-testid="upload-description" />
          <TextInput label="SHA-256" description="Optional: the server refuses a file with another digest" value={sha256} onChange={(event) => setSha256(event.currentTarget.value.trim())} disabled={busy} data-testid="upload-sha256"
            classNames={{ input: "mono" }} error={digestBad ? "64 characters of 0-9 and a-f" : undefined} autoComplete="off" spellCheck={false} />
          {busy && <div><Progress value={share * 100} aria-label="Upload" size="md" color="var(--seg-busy)" /><span className="dim" style={{ fontSize: "0.75rem" }}>{share < 1 ? `${Math.floor(share * 100)} % of ${bytes(file?.size ?? 0)}` : "Checking and storing…"}</span></div>}
          <Group justify="flex-end" gap="xs">
            {busy ? <Anchor component="button" type="button" size="sm" onClick={() => stop.current?.abort()}>Stop</Anchor> : <Button variant="default" onClick={close}>Cancel</Button>}
            <Button type="submit" disabled={!file || !version.trim() || digestBad} loading={busy} data-testid="upload-submit">Upload{file ? ` ${bytes(file.size)}` : ""}</Button>
          </Group>
        </Stack>
      </form>
    </Modal>
  );
}
