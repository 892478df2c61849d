import { assert, describe, it } from "@effect/vitest"
import { Cause, type Config, Effect, Exit } from "effect"
import * as Fs from "node:fs"
import * as Os from "node:os"
import * as Path from "node:path"
import { fromVariables } from "../support/connect.ts"
import * as Tls from "../support/Tls.ts"

describe("layerConfig", () => {
  const file = (name: string, content: string) => {
    const path = Path.join(Fs.mkdtempSync(Path.join(Os.tmpdir(), "etcd-config-")), name)
    Fs.writeFileSync(path, content)
    return path
  }

  it.effect("names the variable that it cannot use", () =>
    Effect.gen(function*() {
      const noPem = yield* Effect.acquireRelease(
        Effect.sync(() => file("no.pem", "hello")),
        (path) => Effect.sync(() => Fs.rmSync(Path.dirname(path), { recursive: true }))
      )
      const cases: ReadonlyArray<readonly [Record<string, string>, string]> = [
        [{ ETCDCTL_ENDPOINTS: "etcd" }, "cannot use host \"etcd\" of ETCDCTL_ENDPOINTS: it has no port"],
        [{ ETCDCTL_ENDPOINTS: " , " }, "ETCDCTL_ENDPOINTS is empty"],
        [{ ETCDCTL_ENDPOINTS: "http://a:1,https://b:1" }, "ETCDCTL_ENDPOINTS mixes https:// with plain addresses"],
        [{ ETCDCTL_CACERT: "/nowhere/ca.pem" }, "ETCDCTL_CACERT: cannot read \"/nowhere/ca.pem\""],
        [{ ETCDCTL_CACERT: noPem }, `ETCDCTL_CACERT: ${JSON.stringify(noPem)} is no PEM file`],
        [
          { ETCDCTL_CERT: "/nowhere/c.pem", ETCDCTL_KEY: Tls.client.key },
          "ETCDCTL_CERT: cannot read \"/nowhere/c.pem\""
        ],
        [{ ETCDCTL_CERT: Tls.client.cert, ETCDCTL_KEY: "/nowhere/k" }, "ETCDCTL_KEY: cannot read \"/nowhere/k\""],
        [{ ETCDCTL_CERT: Tls.client.cert }, "ETCDCTL_CERT is set without ETCDCTL_KEY"],
        [{ ETCDCTL_KEY: Tls.client.key }, "ETCDCTL_KEY is set without ETCDCTL_CERT"],
        [{ ETCDCTL_CERT: Tls.client.cert, ETCDCTL_KEY: Tls.foreignClient.key }, "ETCDCTL_KEY cannot be used: "],
        [
          { ETCDCTL_ENDPOINTS: "http://a:1", ETCDCTL_CACERT: Tls.ca },
          "ETCDCTL_CACERT or ETCDCTL_CERT is set, but host \"http://a:1\" of ETCDCTL_ENDPOINTS says http://"
        ],
        [{ ETCDCTL_USER: "ann" }, "ETCDCTL_USER has no password; write it as name:password, or set ETCDCTL_PASSWORD"],
        [
          { ETCDCTL_COMMAND_TIMEOUT: "5" },
          "ETCDCTL_COMMAND_TIMEOUT: \"5\" is no duration; write it as 5s, 500ms or 1m30s"
        ],
        [
          { ETCDCTL_COMMAND_TIMEOUT: "0s" },
          "ETCDCTL_COMMAND_TIMEOUT must be between 1 millisecond and 24 days, got 0"
        ],
        [{ ETCDCTL_COMMAND_TIMEOUT: "1000h" }, "ETCDCTL_COMMAND_TIMEOUT must be between 1 millisecond and 24 days"]
      ]
      for (const [variables, told] of cases) {
        const exit = yield* Effect.exit(Effect.scoped(fromVariables(variables)))
        const error: Config.ConfigError | undefined = Exit.isFailure(exit)
          ? exit.cause.reasons.find((reason) => reason._tag === "Fail")?.error
          : undefined
        assert.strictEqual(error?._tag, "ConfigError", `${JSON.stringify(variables)}: ${exit}`)
        assert.include(error?.message, told)
      }
    }))

  it.effect("keeps the password to itself", () =>
    Effect.gen(function*() {
      const exit = yield* Effect.exit(fromVariables({ ETCDCTL_ENDPOINTS: "etcd", ETCDCTL_USER: "ann:hunter2" }))
      assert.notInclude(String(Exit.isFailure(exit) && Cause.pretty(exit.cause)), "hunter2")
    }))
})
