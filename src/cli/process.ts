/** The process of the command, as it should be before it loads anything else. */
import { statSync } from "node:fs"
import { enableCompileCache } from "node:module"
import { join } from "node:path"
import { setFlagsFromString } from "node:v8"

// The process may wait for days and has next to nothing to compute: it needs neither the optimizing compiler nor much
// room for garbage.
setFlagsFromString("--no-opt")
setFlagsFromString("--semi-space-growth-factor=1")

// Each start spares itself what an earlier one has compiled. What lies in that folder is executed, so it is one of the
// user who runs this process: not Node's own, which all users share, nor that of the user who has called sudo.
const { HOME = "", XDG_CACHE_HOME = "" } = process.env
const isOurs = statSync(XDG_CACHE_HOME || HOME, { throwIfNoEntry: false })?.uid === process.getuid?.()
if (isOurs) enableCompileCache(join(XDG_CACHE_HOME || join(HOME, ".cache"), "etcd-lock"))

// Node warns of how gRPC names an IP address in TLS. That is nothing that the user of this command could change.
process.noDeprecation = true

// What there is to say is no reason to fail.
process.stderr.on("error", () => {})

export const words: ReadonlyArray<string> = process.argv.slice(2)
