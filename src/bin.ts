#!/usr/bin/env node
import { createRequire } from "node:module"
import { main } from "./cli/main.ts"
import { words } from "./cli/process.ts"

const { version } = createRequire(import.meta.url)("../package.json")

// A release that etcd does not confirm may be under way still.
process.exit(await main(words, version))
