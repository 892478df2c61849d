/** The process of the command, as it is to be before the connection loads gRPC. */
import { setFlagsFromString } from "node:v8"

// The process may wait for days and has next to nothing to compute: it needs neither the optimizing compiler nor much
// room for garbage.
setFlagsFromString("--no-opt")
setFlagsFromString("--semi-space-growth-factor=1")
// Node warns of how gRPC names an IP address in TLS. That is nothing that the user of this command could change.
process.noDeprecation = true

// What there is to say is no reason to fail.
process.stderr.on("error", () => {})

export const words: ReadonlyArray<string> = process.argv.slice(2)
