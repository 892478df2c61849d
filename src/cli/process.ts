/** The process of the command, as it should be before it loads anything else. */
import { mkdirSync, statSync } from "node:fs"
import { enableCompileCache } from "node:module"
import { isAbsolute, join } from "node:path"
import { setFlagsFromString } from "node:v8"

// The process may wait for days and has next to nothing to compute: it needs neither the optimizing compiler nor much
// room for garbage.
setFlagsFromString("--no-opt")
setFlagsFromString("--semi-space-growth-factor=1")

/**
 * The folder for what Node compiles, which a later start then need not compile again. What lies there is executed, so nobody
 * but the user of this process may write to it: not Node's own folder, which all users share, nor that of the user who has
 * called sudo.
 */
const cacheFolder = (): string | undefined => {
  const { HOME = "", XDG_CACHE_HOME = "" } = process.env
  const caches = isAbsolute(XDG_CACHE_HOME) ? XDG_CACHE_HOME : join(HOME, ".cache")
  if (!isAbsolute(caches)) return undefined
  const folder = join(caches, "etcd-lock")
  mkdirSync(folder, { recursive: true, mode: 0o700 })
  const { mode, uid } = statSync(folder)
  return uid === process.getuid?.() && (mode & 0o022) === 0 ? folder : undefined
}

try {
  const folder = cacheFolder()
  if (folder !== undefined) enableCompileCache(folder)
} catch {
  // It starts without a cache where there can be none.
}

// Node warns of how gRPC names an IP address in TLS. That is nothing that the user of this command could change.
process.noDeprecation = true

// What there is to say is no reason to fail.
process.stderr.on("error", () => {})

export const words: ReadonlyArray<string> = process.argv.slice(2)
