#!/usr/bin/env node
import { createRequire } from "node:module"
import type { main as Main } from "./cli/main.ts"
import { words } from "./cli/process.ts"

// A bundle of its own, which is loaded when the process is set up: Node caches what it compiles from then on.
const { main }: { readonly main: typeof Main } = await import(new URL("cli/main.js", import.meta.url).href)
const { version } = createRequire(import.meta.url)("../package.json")

const code = await main(words, version)
// A release that etcd does not confirm may be under way still. What has been printed reaches a slow reader before.
process.stdout.write("", () => process.exit(code))
