// Copying, also over plain http on a LAN, where browsers give no clipboard.
import { ActionIcon, Tooltip } from "@mantine/core";
import { useState } from "react";
import { middle } from "../text/clip";
import { Icon } from "./icons";

export async function copyText(text: string): Promise<boolean> {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    const area = document.createElement("textarea");
    area.value = text;
    area.style.position = "fixed";
    area.style.opacity = "0";
    (document.querySelector("[role=dialog]") ?? document.body).append(area);
    area.select();
    const copied = document.execCommand("copy");
    area.remove();
    return copied;
  }
}

export function useCopy(): [copied: boolean, copy: (text: string) => void] {
  const [copied, setCopied] = useState(false);
  return [
    copied,
    (text) =>
      void copyText(text).then((ok) => {
        if (!ok) return;
        setCopied(true);
        setTimeout(() => setCopied(false), 1500);
      }),
  ];
}

export function CopyButton({ text, label = "Copy" }: { text: string; label?: string }) {
  const [copied, copy] = useCopy();
  return (
    <Tooltip label={copied ? "Copied" : label}>
      <ActionIcon
        variant="subtle"
        color="gray"
        size="sm"
        aria-label={copied ? "Copied" : label}
        onClick={(event) => {
          event.stopPropagation();
          copy(text);
        }}
      >
        <Icon name={copied ? "check" : "copy"} size={14} />
      </ActionIcon>
    </Tooltip>
  );
}

/** A long id: cut in the middle, whole on hover, copied with a click. */
export function LongId({ id, limit = 16 }: { id: string; limit?: number }) {
  const [copied, copy] = useCopy();
  return (
    <button
      type="button"
      className="mono"
      title={`${id.slice(0, 200)} (click to copy)`}
      onClick={(event) => {
        event.stopPropagation();
        copy(id);
      }}
      style={{ all: "unset", cursor: "copy", fontFamily: "var(--mantine-font-family-monospace)", fontSize: "0.93em" }}
    >
      {copied ? "copied" : middle(id, limit)}
    </button>
  );
}

export function Secret({ text, testid }: { text: string; testid: string }) {
  return (
    <div className="secret">
      <code data-testid={testid}>{text}</code>
      <CopyButton text={text} />
    </div>
  );
}

export function Snippet({ text, testid }: { text: string; testid?: string }) {
  return (
    <div style={{ position: "relative" }}>
      <pre className="payload code" data-testid={testid} tabIndex={0} style={{ paddingRight: 40 }}>
        {text}
      </pre>
      <span style={{ position: "absolute", right: 1, top: 1, padding: 5, background: "var(--sunken)" }}>
        <CopyButton text={text} />
      </span>
    </div>
  );
}
