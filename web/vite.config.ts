import { fileURLToPath } from "node:url";
import { defineConfig } from "vite";

const at = (path: string) => fileURLToPath(new URL(path, import.meta.url));

export default defineConfig({
  // `DREY_WEB=http://127.0.0.1:8080 npx vite`: work on the page against a running `drey up`
  server: process.env.DREY_WEB
    ? { proxy: { "^/(drey|grpc)\\.": process.env.DREY_WEB } }
    : {},
  resolve: { alias: { "@drey/client": at("src/client/index.ts") } },
  build: {
    outDir: at("../libs/stack/drey_stack/page"),
    emptyOutDir: true,
    target: "es2022",
    modulePreload: { polyfill: false },
    assetsInlineLimit: 0,
    chunkSizeWarningLimit: 1000,
  },
});
