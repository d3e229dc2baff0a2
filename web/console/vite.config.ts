// Build and development server of the console. The output is made of hashed files that load under
// `script-src 'self'`; each text file gets .br and .gz neighbours, which aiohttp's FileResponse serves by itself.
import { readdirSync, readFileSync, statSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { brotliCompressSync, gzipSync } from "node:zlib";
import react from "@vitejs/plugin-react";
import { defineConfig, type Plugin } from "vite";

function precompress(): Plugin {
  return {
    name: "precompress",
    apply: "build",
    writeBundle({ dir: outDir = "" }) {
      for (const name of readdirSync(outDir, { recursive: true }) as string[]) {
        const path = join(outDir, name);
        if (!/\.(js|css|html|svg)$/.test(name) || statSync(path).size < 1024) continue;
        const text = readFileSync(path);
        writeFileSync(`${path}.br`, brotliCompressSync(text));
        writeFileSync(`${path}.gz`, gzipSync(text, { level: 9 }));
      }
    },
  };
}

export default defineConfig({
  plugins: [react(), precompress()],
  build: {
    outDir: "../console_dist",
    emptyOutDir: true,
    assetsInlineLimit: 0,
    target: "es2022",
    modulePreload: { polyfill: false },
  },
  server: { proxy: { "/api": { target: process.env.MOORING_URL ?? "http://127.0.0.1:8080", ws: true } } },
});
