// Upload firmware with progress, and with a check of the digest by the server.
import { Anchor, Button, FileInput, Group, Modal, Progress, Stack, Textarea, TextInput } from "@mantine/core";
import { useRef, useState } from "react";
import { uploadArtifact } from "../api/calls";
import { asProblem, type Problem } from "../api/problem";
import type { Artifact } from "../api/shapes";
import { clip } from "../text/clip";
import { bytes } from "../text/numbers";

export function Upload({ close, done }: { close: () => void; done: (artifact: Artifact) => void }) {
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
      done(
        await uploadArtifact(
          {
            version: version.trim(),
            name: file.name.slice(0, 128),
            description: description.trim(),
            sha256: sha256.toLowerCase(),
          },
          file,
          setShare,
          stop.current.signal,
        ),
      );
    } catch (error) {
      setProblem(asProblem(error));
      setShare(null);
    }
  };
  const busy = share !== null;
  return (
    <Modal
      opened
      onClose={() => {
        stop.current?.abort();
        close();
      }}
      title={<b>Upload firmware</b>}
      closeOnClickOutside={!busy}
      closeOnEscape={!busy}
    >
      <form
        onSubmit={(event) => {
          event.preventDefault();
          if (!digestBad && !busy) void send();
        }}
        data-testid="upload-form"
      >
        <Stack gap="sm">
          {problem && (
            <div className="notice" data-tone="bad" role="alert" data-testid="upload-error">
              {clip(problem.of("sha256") ?? problem.of("version") ?? problem.message, 300)}
            </div>
          )}
          <FileInput
            label="File"
            placeholder="Choose an image"
            value={file}
            onChange={pick}
            required
            withAsterisk={false}
            disabled={busy}
            data-testid="upload-file"
            size="sm"
            clearable
            fileInputProps={{ "data-testid": "upload-file-input" } as object}
          />
          {file && (
            <span className="dim" style={{ fontSize: "0.75rem" }}>
              {bytes(file.size)}
            </span>
          )}
          <TextInput
            label="Version"
            description="Exactly what the device reports once it runs this image"
            placeholder="1.2.0"
            value={version}
            onChange={(event) => setVersion(event.currentTarget.value)}
            required
            withAsterisk={false}
            maxLength={64}
            disabled={busy}
            data-testid="upload-version"
            classNames={{ input: "mono" }}
          />
          <Textarea
            label="Description"
            description="Optional"
            value={description}
            onChange={(event) => setDescription(event.currentTarget.value)}
            maxLength={4096}
            autosize
            minRows={1}
            maxRows={6}
            disabled={busy}
            data-testid="upload-description"
          />
          <TextInput
            label="SHA-256"
            description="Optional: the server refuses a file with another digest"
            value={sha256}
            onChange={(event) => setSha256(event.currentTarget.value.trim())}
            disabled={busy}
            data-testid="upload-sha256"
            classNames={{ input: "mono" }}
            error={digestBad ? "64 characters of 0-9 and a-f" : undefined}
            autoComplete="off"
            spellCheck={false}
          />
          {busy && (
            <div>
              <Progress value={share * 100} aria-label="Upload" size="md" color="var(--seg-busy)" />
              <span className="dim" style={{ fontSize: "0.75rem" }}>
                {share < 1 ? `${Math.floor(share * 100)} % of ${bytes(file?.size ?? 0)}` : "Checking and storing…"}
              </span>
            </div>
          )}
          <Group justify="flex-end" gap="xs">
            {busy ? (
              <Anchor component="button" type="button" size="sm" onClick={() => stop.current?.abort()}>
                Stop
              </Anchor>
            ) : (
              <Button variant="default" onClick={close}>
                Cancel
              </Button>
            )}
            <Button
              type="submit"
              disabled={!file || !version.trim() || digestBad}
              loading={busy}
              data-testid="upload-submit"
            >
              Upload{file ? ` ${bytes(file.size)}` : ""}
            </Button>
          </Group>
        </Stack>
      </form>
    </Modal>
  );
}
