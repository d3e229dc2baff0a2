// Bytes in base64 as people read them: offset, hex, and the printable characters. Pure.

export function hex(base64: string): string {
  const bytes = atob(base64);
  const lines: string[] = [];
  for (let at = 0; at < bytes.length; at += 16) {
    const row = [...bytes.slice(at, at + 16)].map((char) => char.charCodeAt(0));
    const codes = row.map((code) => code.toString(16).padStart(2, "0")).join(" ");
    const text = row.map((code) => (code >= 0x20 && code < 0x7f ? String.fromCharCode(code) : ".")).join("");
    lines.push(`${at.toString(16).padStart(4, "0")}  ${codes.padEnd(47)}  ${text}`);
  }
  return lines.join("\n");
}
