// Makes src/api/schema.d.ts from the server's own OpenAPI document (`python -m web.openapi`).
// The Python to ask: $PYTHON, else the repository's .venv, else python3. Only the type check needs the result.
import { execFileSync } from "node:child_process";
import { existsSync, writeFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import openapiTS, { astToString } from "openapi-typescript";

const root = fileURLToPath(new URL("../../..", import.meta.url));
const venv = ["bin/python", "Scripts/python.exe"].map((path) => `${root}.venv/${path}`).find(existsSync);
const python = process.env.PYTHON ?? venv ?? "python3";
const out = fileURLToPath(new URL("../src/api/schema.d.ts", import.meta.url));

let text;
try {
  text = execFileSync(python, ["-m", "web.openapi"], {
    cwd: root,
    encoding: "utf8",
    maxBuffer: 64 << 20,
    stdio: "pipe",
  });
} catch (error) {
  console.error(
    String(error.stderr || error.message)
      .trim()
      .split("\n")
      .at(-1),
  );
  process.exit(1);
}
writeFileSync(out, astToString(await openapiTS(JSON.parse(text), { defaultNonNullable: false })));
console.log(`wrote ${out}`);
