import { assert, describe, it } from "@effect/vitest"
import { Effect, Exit, Scope } from "effect"
import { spawn } from "node:child_process"
import * as Fs from "node:fs"
import * as Https from "node:https"
import { accepts } from "./accepts.ts"
import * as EtcdServer from "./EtcdServer.ts"
import { until } from "./eventually.ts"
import * as Tls from "./Tls.ts"

const inContainers = process.env.ETCD_FROM === "docker"

describe("EtcdServer", () => {
  it.live("serves while its scope is open, and leaves nothing behind", () =>
    Effect.gen(function*() {
      const scope = yield* Scope.make()
      const server = yield* Scope.provide(EtcdServer.start(), scope)
      assert.match(server.endpoint, /^[\w.]+:\d+$/)
      assert.match(server.description, /^etcd \d+\.\d+\.\d+ \(.+\)$/)
      yield* put(server, "a", "1")
      assert.strictEqual(yield* get(server, "a"), "1")
      const dataDirs = dataDirsOf(server.endpoint)

      yield* Scope.close(scope, Exit.void)
      assert.isFalse(yield* accepts(server.endpoint))
      assert.deepStrictEqual(dataDirsOf(server.endpoint), [])
      assert.isFalse(dataDirs.some((dataDir) => Fs.existsSync(dataDir)))
    }))

  it.live("pauses and resumes", () =>
    Effect.gen(function*() {
      const server = yield* EtcdServer.start()
      yield* server.pause
      assert.isTrue(yield* accepts(server.endpoint))
      // etcd may still read this request once it goes on, before or after any other
      assert.isTrue(Exit.isFailure(yield* Effect.exit(put(server, "a", "1"))))
      yield* server.resume
      yield* put(server, "b", "2")
      assert.strictEqual(yield* get(server, "b"), "2")
    }))

  it.live("is killed and restarted on the same data and port", () =>
    Effect.gen(function*() {
      const server = yield* EtcdServer.start()
      yield* put(server, "a", "1")
      yield* server.kill
      assert.isFalse(yield* accepts(server.endpoint))
      yield* server.restart
      assert.strictEqual(yield* get(server, "a"), "1")
    }))

  it.live("is killed while paused when its scope closes", () =>
    Effect.gen(function*() {
      const server = yield* Effect.scoped(Effect.tap(EtcdServer.start(), (server) => server.pause))
      assert.isFalse(yield* accepts(server.endpoint))
    }))

  // containers outlive it where the cleaner of testcontainers is switched off
  it.live.skipIf(process.env.TESTCONTAINERS_RYUK_DISABLED === "true")(
    "does not outlive a process that is killed",
    () =>
      Effect.gen(function*() {
        const { dataDirs, endpoint } = yield* startInKilledProcess
        yield* until("etcd to be gone", Effect.map(accepts(endpoint), (accepts) => !accepts))
        yield* until("its data to be gone", Effect.sync(() => !dataDirs.some((dataDir) => Fs.existsSync(dataDir))))
      })
  )

  it.live("takes more arguments", () =>
    Effect.gen(function*() {
      const server = yield* EtcdServer.start({ args: ["--max-request-bytes=1024"] })
      yield* put(server, "a", "small")
      yield* put(server, "a", "x".repeat(10_000))
      assert.strictEqual(yield* get(server, "a"), "small")
    }))

  it.live("tells why etcd does not start", () =>
    Effect.gen(function*() {
      const exit = yield* Effect.exit(EtcdServer.start({ args: ["--no-such-flag"] }))
      assert.include(String(Exit.isFailure(exit) && exit.cause), "no-such-flag")
    }))

  it.live("serves TLS and asks for the client's certificate", () =>
    Effect.gen(function*() {
      const server = yield* EtcdServer.start({ tls: { ...Tls.server, clientCertAuth: true } })
      assert.strictEqual(yield* httpsStatus(server, Tls.client), 200)
      assert.isUndefined(yield* httpsStatus(server, { ca: Tls.ca }))
      assert.isUndefined(yield* httpsStatus(server, { ...Tls.client, ca: Tls.foreignCa }))
      assert.isUndefined(yield* httpsStatus(server, { ...Tls.foreignClient, ca: Tls.ca }))
    }))

  it.live("starts a cluster that survives the loss of a member", () =>
    Effect.gen(function*() {
      const [first, second, third] = yield* EtcdServer.startCluster(3)
      yield* put(first!, "a", "1")
      assert.strictEqual(yield* get(third!, "a"), "1")
      yield* first!.kill
      yield* until("the others to go on", Effect.isSuccess(put(second!, "a", "2")))
      assert.strictEqual(yield* get(third!, "a"), "2")
      yield* first!.restart
      assert.strictEqual(yield* get(first!, "a"), "2")
    }))

  it.live.skipIf(inContainers)("goes on as another etcd on the same data and port", () =>
    Effect.gen(function*() {
      const server = yield* EtcdServer.start()
      yield* put(server, "a", "1")
      const [, version, binary] = /^etcd (\S+) \((.+)\)$/.exec(server.description)!
      assert.strictEqual(yield* server.upgrade(binary!), version)
      assert.strictEqual(yield* get(server, "a"), "1")
      const exit = yield* Effect.exit(server.upgrade("/nowhere/etcd"))
      assert.include(String(Exit.isFailure(exit) && exit.cause), "/nowhere/etcd")
      assert.isFalse(yield* accepts(server.endpoint))
    }))

  it.live.each(
    [
      [{ ETCD_BINARY: "/nowhere/etcd" }, "'/nowhere/etcd' is not an etcd that runs here"],
      [{ ETCD_FROM: "path", PATH: "/nowhere" }, "There is no etcd on the PATH: install one, or set ETCD_BINARY to it"],
      [{ ETCD_FROM: "elsewhere" }, "ETCD_FROM is 'elsewhere': use path, docker or package"]
    ] as const
  )("says what is missing with %j", ([variables, sentence]) =>
    Effect.gen(function*() {
      yield* environment({ ETCD_BINARY: "", ...variables })
      const error = yield* Effect.flip(EtcdServer.start())
      assert.strictEqual(error._tag, "EtcdNotFound")
      assert.include(error.message, sentence)
    }))
})

const post = (server: EtcdServer.EtcdServer, path: string, body: Record<string, string>) =>
  Effect.tryPromise((signal) =>
    fetch(`http://${server.endpoint}/v3/kv/${path}`, { method: "POST", body: JSON.stringify(body), signal })
      .then((response) => response.json() as Promise<{ readonly kvs?: ReadonlyArray<{ readonly value: string }> }>)
  ).pipe(Effect.timeout("3 seconds"))

const put = (server: EtcdServer.EtcdServer, key: string, value: string) =>
  post(server, "put", { key: btoa(key), value: btoa(value) })

const get = (server: EtcdServer.EtcdServer, key: string) =>
  Effect.map(post(server, "range", { key: btoa(key) }), ({ kvs }) => kvs?.map(({ value }) => atob(value)).join())

const httpsStatus = (
  server: EtcdServer.EtcdServer,
  files: { readonly ca: string; readonly cert?: string; readonly key?: string }
): Effect.Effect<number | undefined> =>
  Effect.callback((resume) => {
    const options = Object.fromEntries(Object.entries(files).map(([name, path]) => [name, Fs.readFileSync(path)]))
    Https.get(`https://${server.endpoint}/health`, { ...options, agent: false }, (response) => {
      response.resume()
      resume(Effect.succeed(response.statusCode))
    }).on("error", () => resume(Effect.undefined))
  })

// Of all processes that run for the endpoint, where the system tells.
const dataDirsOf = (endpoint: string): ReadonlyArray<string> =>
  (Fs.existsSync("/proc/self/cmdline") ? Fs.readdirSync("/proc") : []).flatMap((pid) => {
    if (!/^\d+$/.test(pid)) {
      return []
    }
    try {
      const commandLine = Fs.readFileSync(`/proc/${pid}/cmdline`, "utf8")
      const dataDir = /--data-dir=([^\0]+)/.exec(commandLine)?.[1]
      return dataDir !== undefined && commandLine.includes(endpoint) ? [dataDir] : []
    } catch {
      return []
    }
  })

const startInKilledProcess = Effect.callback<
  { readonly endpoint: string; readonly dataDirs: ReadonlyArray<string> }
>((resume) => {
  const program = `
    import { Effect } from "effect"
    import { start } from "./test/support/EtcdServer.ts"
    const announce = (server) => Effect.sync(() => console.log(server.endpoint))
    setInterval(() => {}, 60_000)
    await Effect.runPromise(Effect.scoped(Effect.andThen(Effect.tap(start(), announce), Effect.never)))
  `
  const child = spawn(process.execPath, ["--input-type=module", "--eval", program], {
    stdio: ["ignore", "pipe", "inherit"]
  })
  child.stdout.once("data", (line) => {
    const endpoint = String(line).trim()
    const dataDirs = dataDirsOf(endpoint)
    child.once("exit", () => resume(Effect.succeed({ endpoint, dataDirs })))
    child.kill("SIGKILL")
  })
})

const environment = (variables: Record<string, string>) =>
  Effect.acquireRelease(
    Effect.sync(() => {
      const before = { ...process.env }
      Object.assign(process.env, variables)
      return before
    }),
    (before) =>
      Effect.sync(() => {
        process.env = before
      })
  )
