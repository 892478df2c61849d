/**
 * How each kind of contender is started.
 */
import { Effect } from "effect"
import * as Fs from "node:fs"
import * as Path from "node:path"
import * as Tools from "../interop/tools.ts"
import type { Kind } from "./history.ts"

export interface Entrant {
  readonly kind: Kind
  readonly what: string
  readonly command: ReadonlyArray<string>
}

export const kinds: ReadonlyArray<Kind> = ["ours", "go", "etcd3"]

export const titles: { readonly [K in Kind]: string } = {
  ours: "effect-etcd-lock",
  go: "Go's `Mutex`",
  etcd3: "npm etcd3's lock"
}

export const muster = (kind: Kind): Effect.Effect<Entrant, Tools.ToolMissing> => {
  switch (kind) {
    case "ours": {
      return Effect.succeed({
        kind,
        what: `this library, on effect ${versionOf("effect")} and etcd3 ${
          versionOf("etcd3")
        }, Node ${process.versions.node}`,
        command: onNode("ours.ts")
      })
    }
    case "go": {
      const program = Tools.goFrom("fault", Path.join(import.meta.dirname, "go/main.go"))
      return Effect.zipWith(program, Tools.goClientVersion, (binary, version) => ({
        kind,
        what: `Mutex of Go's concurrency package, client ${version}`,
        command: [binary]
      }))
    }
    case "etcd3": {
      return Effect.succeed({
        kind,
        what: `Lock of npm etcd3 ${versionOf("etcd3")}, tried again every 50 ms`,
        command: onNode("etcd3Lock.ts")
      })
    }
  }
}

const onNode = (file: string): ReadonlyArray<string> => [
  process.execPath,
  "--expose-gc",
  "--conditions=@effect-etcd-lock/source",
  Path.join(import.meta.dirname, "contenders", file)
]

const versionOf = (name: string): string =>
  JSON.parse(
    Fs.readFileSync(Path.resolve(import.meta.dirname, "../../node_modules", name, "package.json"), "utf8")
  ).version
