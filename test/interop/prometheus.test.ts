/**
 * Prometheus scrapes examples/observability.ts while an operator takes its lock away, and has something to say to each
 * query of the dashboard and to each alert rule.
 */
import { assert, describe, it } from "@effect/vitest"
import { Effect, type Scope } from "effect"
import { execFile } from "node:child_process"
import * as Fs from "node:fs"
import * as Os from "node:os"
import * as Path from "node:path"
import { inject } from "vitest"
import * as EtcdServer from "../support/EtcdServer.ts"
import { eventually, until } from "../support/eventually.ts"
import { freePort } from "../support/internal/ports.ts"
import { collector } from "../support/Otlp.ts"
import { need } from "./need.ts"
import * as Peer from "./Peer.ts"
import * as Tools from "./tools.ts"

const examples = Path.resolve(import.meta.dirname, "../../examples")
const alertRules = Path.join(examples, "grafana/lock-alerts.yml")

// -----------------------------------------------------------------------------
// the dashboard
// -----------------------------------------------------------------------------

interface Dashboard {
  readonly panels: ReadonlyArray<{
    readonly title: string
    readonly targets?: ReadonlyArray<{ readonly refId: string; readonly expr: string }>
  }>
}

const dashboard: Dashboard = JSON.parse(Fs.readFileSync(Path.join(examples, "grafana/lock-dashboard.json"), "utf8"))

/** What Grafana puts in place of its variables, for a job that is scraped four times a second. */
const variables = { $job: ".*", $__rate_interval: "5s", $__range: "2m" }

const queries = dashboard.panels.flatMap(({ targets = [], title }) =>
  targets.map(({ expr, refId }) => ({
    name: `${title} ${refId}`,
    query: Object.entries(variables).reduce((query, [name, value]) => query.replaceAll(name, value), expr)
  }))
)

// -----------------------------------------------------------------------------
// Prometheus
// -----------------------------------------------------------------------------

interface Sample {
  readonly metric: Readonly<Record<string, string>>
  readonly value: readonly [time: number, value: string]
}

interface Alert {
  readonly labels: Readonly<Record<string, string>>
  readonly annotations: Readonly<Record<string, string>>
  readonly state: string
}

interface Rule {
  readonly name: string
  readonly health: string
  readonly lastError?: string
  readonly alerts: ReadonlyArray<Alert>
}

interface Prometheus {
  readonly query: (query: string) => Effect.Effect<ReadonlyArray<Sample>>
  readonly rules: Effect.Effect<ReadonlyArray<Rule>>
}

const configuration = (target: string) => `
global: { scrape_interval: 250ms, evaluation_interval: 1s }
rule_files: ["${alertRules}"]
scrape_configs: [{ job_name: example, static_configs: [{ targets: ["${target}"] }] }]
`

/** Starts a Prometheus, and waits until it tries to scrape the target, which begins seconds after it is ready. */
const startPrometheus = (target: string): Effect.Effect<Prometheus, Tools.ToolMissing, Scope.Scope> =>
  Effect.gen(function*() {
    const binary = yield* Tools.prometheus
    const directory = yield* Effect.acquireRelease(
      Effect.sync(() => Fs.mkdtempSync(Path.join(Os.tmpdir(), "prometheus-"))),
      (path) => Effect.sync(() => Fs.rmSync(path, { recursive: true, force: true }))
    )
    const file = Path.join(directory, "prometheus.yml")
    yield* Effect.sync(() => Fs.writeFileSync(file, configuration(target)))
    const port = yield* freePort
    yield* Peer.start(binary, [
      `--config.file=${file}`,
      `--storage.tsdb.path=${directory}/data`,
      `--web.listen-address=127.0.0.1:${port}`
    ])
    const get = (path: string) =>
      Effect.promise((signal) => fetch(`http://127.0.0.1:${port}/${path}`, { signal }).then((reply) => reply.text()))
    yield* until("Prometheus to be ready", Effect.map(get("-/ready"), (text) => text.includes("is Ready")))
    const ask = <A>(path: string): Effect.Effect<A> =>
      Effect.map(get(`api/v1/${path}`), (text) => {
        const { data, error } = JSON.parse(text)
        if (error !== undefined) throw new Error(error)
        return data
      })
    const query = (query: string) =>
      Effect.map(
        ask<{ readonly result: ReadonlyArray<Sample> }>(`query?query=${encodeURIComponent(query)}`),
        ({ result }) => result
      )
    yield* until("the first scrape", Effect.map(query("up"), (samples) => samples.length > 0))
    return {
      query,
      rules: Effect.map(
        ask<{ readonly groups: ReadonlyArray<{ readonly rules: ReadonlyArray<Rule> }> }>("rules"),
        ({ groups }) => groups.flatMap(({ rules }) => rules)
      )
    }
  })

/** Runs the `promtool` beside Prometheus on a file. Returns its exit code and what it prints. */
const promtool = (...args: ReadonlyArray<string>) =>
  Effect.flatMap(
    Tools.prometheus,
    (prometheus) =>
      Effect.callback<{ readonly code: number; readonly output: string }>((resume) => {
        const tool = Path.join(Path.dirname(prometheus), "promtool")
        execFile(tool, args, (error, stdout, stderr) => {
          resume(Effect.succeed({ code: error === null ? 0 : Number(error.code), output: stdout + stderr }))
        })
      })
  )

/** For how many milliseconds to wait at most on a machine that is busy. */
const patience = 30_000

// -----------------------------------------------------------------------------
// the example
// -----------------------------------------------------------------------------

/** Starts the example on an etcd of its own, in which an operator takes its lock away after three seconds. */
const startExample = Effect.fnUntraced(function*(port: number) {
  const { endpoint } = yield* EtcdServer.start()
  const { endpoint: otlp, spans } = yield* collector
  yield* Peer.start(
    process.execPath,
    ["--conditions=@effect-etcd-lock/source", Path.join(examples, "observability.ts")],
    { ETCD_ENDPOINTS: endpoint, METRICS_PORT: String(port), RUN_FOR: "2 minutes", OTEL_EXPORTER_OTLP_ENDPOINT: otlp }
  )
  return { spans }
})

describe.runIf(inject("prometheus"))("Prometheus", () => {
  need(Tools.prometheus)

  it.live(
    "has data for each panel of the dashboard and each alert rule, and reports the loss",
    () =>
      Effect.gen(function*() {
        const port = yield* freePort
        const { query, rules } = yield* startPrometheus(`127.0.0.1:${port}`)
        const { spans } = yield* startExample(port)
        const losses = Effect.map(query("etcd_lock_losses > 0"), (losses) => losses.map(({ metric }) => metric.reason))
        yield* until("the loss", Effect.map(losses, ([reason]) => reason === "KeyDeleted"))

        assert.isAtLeast(queries.length, 15)
        for (const { name, query: text } of queries) {
          yield* eventually(
            Effect.map(query(text), (samples) => {
              const numbers = samples.map(({ value }) => Number(value[1])).filter(Number.isFinite)
              assert.isNotEmpty(numbers, `${name}: ${text}`)
            }),
            patience
          )
        }
        const lost = queries.find(({ name }) => name === "Losses A")!
        const reasons = (yield* query(lost.query)).filter(({ value }) => Number(value[1]) > 0)
        assert.deepInclude(reasons.map(({ metric }) => metric), {
          recipe: "lock",
          lock: "report",
          reason: "KeyDeleted"
        })

        const leaders = yield* query(queries.find(({ name }) => name === "Leaders A")!.query)
        assert.deepStrictEqual(leaders.map(({ metric, value }) => [metric, value[1]]), [
          [{ instance: `127.0.0.1:${port}`, lock: "scheduler" }, "1"]
        ])

        yield* eventually(
          Effect.map(rules, (rules) => {
            assert.deepStrictEqual(
              rules.map(({ health, lastError, name }) => ({ name, health, lastError })),
              ["EtcdLockLost", "EtcdLockLeaseMarginLow", "EtcdLockWaitLong", "EtcdLockWaitingGrows"]
                .map((name) => ({ name, health: "ok", lastError: undefined }))
            )
            const firing = rules.flatMap(({ alerts }) => alerts.filter(({ state }) => state === "firing"))
            assert.include(
              firing.map(({ annotations }) => annotations.summary),
              `127.0.0.1:${port} has lost a lock (lock report): KeyDeleted`
            )
          }),
          patience
        )

        // No scrape gets a span.
        const names = Effect.sync(() => new Set(spans().map(({ name }) => name)))
        yield* until("spans", Effect.map(names, (names) => names.size > 0))
        assert.deepStrictEqual([...yield* names].filter((name) => name === "GET"), [])
      }),
    120_000
  )

  it.live("finds no fault with the alert rules", () =>
    Effect.gen(function*() {
      const { code, output } = yield* promtool("check", "rules", alertRules)
      assert.strictEqual(code, 0, output)
    }))

  it.live("fires each alert when its time has come, and not before", () =>
    Effect.gen(function*() {
      const { code, output } = yield* promtool("test", "rules", Path.join(import.meta.dirname, "prometheus/alerts.yml"))
      assert.strictEqual(code, 0, output)
    }))
})
