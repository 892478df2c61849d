#!/usr/bin/env node
import { createRequire } from "node:module"
import { main } from "./cli/main.ts"
import { words } from "./cli/process.ts"

const { version } = createRequire(import.meta.url)("../package.json")

const code = await main(words, version)
// A release that etcd does not confirm may be under way still. What has been printed reaches a slow reader before.
process.stdout.write("", () => process.exit(code))
