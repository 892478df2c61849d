import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import * as Fs from "node:fs"
import * as Path from "node:path"
import { inject } from "vitest"
import { accepts } from "../support/accepts.ts"
import { collector } from "../support/Otlp.ts"
import { examples, linesOf, printsInOrder, run } from "./run.ts"

/** What `npm run demo` runs an example through. */
const withEtcd = Path.join(import.meta.dirname, "withEtcd.ts")
const withPostgres = Path.join(import.meta.dirname, "withPostgres.ts")

const etcds = () =>
  [
    ["a real etcd", { ETCD_ENDPOINTS: inject("etcdEndpoint") }],
    ["an etcd in memory", {}]
  ] as const

describe.concurrent("examples", { timeout: 180_000 }, () => {
  it.live("tutorial: held, refused, released, the same again, lost and taken again", () =>
    Effect.gen(function*() {
      const lines = yield* linesOf("tutorial", { ETCD_ENDPOINTS: inject("etcdEndpoint") })
      printsInOrder(lines, [
        "Anna has a lease of 5 s",
        "Anna holds the lock and works for 4 s",
        "Ben has a lease of 5 s",
        /^Ben is refused: the lock is held by Anna, on .+ \(process \d+\) since /,
        "Ben has revoked the lease",
        "Anna has renewed the lease",
        "Anna has renewed the lease",
        "Anna has done the work",
        "Anna has released the lock",
        "Anna has revoked the lease",
        "Ben holds the lock and works for 2 s",
        "Ben has renewed the lease",
        "Ben has done the work",
        "Ben has released the lock",
        "Ben has revoked the lease",
        "Dora holds the lock and works for 60 s",
        "Operator deletes the lock's key in etcd",
        "Dora is interrupted in the middle of the work",
        /^Dora fails with LockLost, KeyDeleted: Lock 'tutorial\/nightly-report' was lost/,
        "Dora holds the lock and works for 1 s",
        "Dora has done the work",
        "Dora has released the lock",
        "Dora has revoked the lease"
      ])
    }))

  it.live("critical-section: in turn, timed out, skipped, and fenced", () =>
    Effect.gen(function*() {
      const lines = yield* linesOf("critical-section", { ETCD_ENDPOINTS: inject("etcdEndpoint") })
      printsInOrder(lines, [
        "Anna deposits 10, which makes 10",
        "Ben deposits 20, which makes 30",
        "Dora deposits 30, which makes 60",
        "Anna has waited long enough: Auditor holds the lock",
        "Account has 60",
        "Anna is done",
        "Anna holds the lock",
        "Operator deletes the lock's key in etcd",
        "Ben holds the lock",
        "Ben writes to the store",
        "Ben writes to etcd",
        "Anna is refused by the store, which has seen a greater token",
        "Anna is refused by etcd: LockLost, KeyDeleted"
      ])
      assert.include(lines, "Ben leaves it, since another client cleans up already")
    }))

  it.live.each(etcds())("fenced-sql on %s: fenced off, and no such row", ([, environment]) =>
    Effect.gen(function*() {
      assert.deepStrictEqual(withoutEtcd(yield* linesOf("fenced-sql", environment)), [
        "Anna has written the morning edition",
        "Anna is frozen",
        "Operator deletes the lock's key in etcd",
        "Ben has written the morning edition",
        "Ben has found no evening edition",
        "Anna is fenced off from the morning edition: a later holder has written it",
        "Anna learns that the lock is lost: KeyDeleted",
        "Database has: Sun"
      ])
    }))

  it.live.each(etcds())("nightly-job on %s: begun twice, done once", ([, environment]) =>
    Effect.gen(function*() {
      const lines = yield* linesOf("nightly-job", environment)
      printsInOrder(lines, [
        "Ada has two o'clock",
        "Ada begins the report",
        "Ada dies in the middle of the report",
        "Ben begins the report",
        "Ben has finished the report",
        "Cleo finds that this night's run is done"
      ])
      assert.deepStrictEqual(lines.filter((line) => / has (finished|done) /.test(line)), [
        "Ben has finished the report",
        "Ben has done the run of this night"
      ])
    }))

  it.live.each(etcds())(
    "leader-health on %s: who leads, and the next one",
    ([, environment]) =>
      Effect.gen(function*() {
        assert.deepStrictEqual(withoutEtcd(yield* linesOf("leader-health", environment)), [
          "Client asks Ada for /leading: 200 {\"leads\":true}",
          "Client asks Ada for /leader: 200 {\"leader\":\"Ada\"}",
          "Client asks Ben for /leading: 503 {\"leads\":false}",
          "Client asks Ben for /leader: 200 {\"leader\":\"Ada\"}",
          "Operator shuts Ada down",
          "Client asks Ben for /leading: 200 {\"leads\":true}",
          "Client asks Ben for /leader: 200 {\"leader\":\"Ben\"}"
        ])
      })
  )

  it.live("command: one runs, one waits, one does not, and an operator looks at them", () =>
    Effect.gen(function*() {
      const lines = yield* linesOf("command", { ETCDCTL_ENDPOINTS: inject("etcdEndpoint") })
      printsInOrder(lines, [
        /^Anna works with the token \d+$/,
        /^Ben etcd-lock: Waits for 'report', held by .* \(process \d+\) since /,
        /^Cleo etcd-lock: warning: Lock 'report' is held by /,
        "Cleo ends with 75",
        /^Operator holds {2}exclusive .*\{"job":"nightly"\}$/,
        /^Operator waits {2}exclusive /,
        "Anna is done",
        /^Ben works with the token \d+$/,
        "Ben is done"
      ])
    }))

  it.live("singleton-worker: one works, whatever happens to the processes", () =>
    Effect.gen(function*() {
      const lines = yield* linesOf("singleton-worker", { ETCD_ENDPOINTS: inject("etcdEndpoint") })
      const [, second] = /^Operator sends SIGSTOP to (Ben|Cleo)$/m.exec(lines.join("\n"))!
      const third = second === "Ben" ? "Cleo" : "Ben"
      printsInOrder(lines, [
        "Observer sees that Ada leads",
        "Operator sends SIGKILL to Ada",
        `Observer sees that ${second} leads`,
        `Operator sends SIGSTOP to ${second}`,
        `Observer sees that ${third} leads`,
        `Operator sends SIGCONT to ${second}`,
        `${second} has stopped working`,
        `Operator sends SIGTERM to ${third}`,
        `${third} has stopped working`,
        `${second} begins to work`,
        `Operator sends SIGTERM to ${second}`,
        `${second} has stopped working`
      ])
      // No two work at a time. The one that was frozen could not know: it may do the step that was due before it stops.
      let working: string | undefined
      const late: Array<string> = []
      for (const line of lines) {
        const [, who, what] = /^(Ada|Ben|Cleo) (begins to work|works|has stopped working)$/.exec(line) ?? []
        if (what === "begins to work") working = who
        if (what === "works" && who !== working) late.push(line)
      }
      assert.deepStrictEqual(late.filter((line) => line !== `${second} works`), [], lines.join("\n"))
      assert.isAtMost(late.length, 1, lines.join("\n"))
    }))

  it.live("cluster: a singleton, a job and entities move from a runner that is killed, and from one that ends", () =>
    Effect.gen(function*() {
      const { code, errors, lines } = yield* run("cluster", { ETCD_ENDPOINTS: inject("etcdEndpoint") })
      const all = lines.join("\n")
      assert.strictEqual(code, 0, `${errors}\n${all}`)
      const [, killed] = /^Operator sends SIGKILL to (\w+)$/m.exec(all)!
      const [[, ended], [, last]] = [...all.matchAll(/^Operator sends SIGTERM to (\w+)$/gm)] as any
      assert.sameMembers([killed, ended, last], ["Ada", "Ben", "Cleo"])
      printsInOrder(lines, [
        / is the courier$/,
        /^Client has 24 orders packed: (\d+ by (Ada|Ben|Cleo)(, )?)+$/,
        `Operator sends SIGKILL to ${killed}`,
        new RegExp(`^Client has 24 orders packed: ((\\d+ by (${ended}|${last})(, )?)+)$`),
        `Operator sends SIGTERM to ${ended}`,
        /writes invoices$/,
        `Client has 24 orders packed: 24 by ${last}`,
        `Operator sends SIGTERM to ${last}`,
        `${last} is the courier no more`
      ])
      // On a busy machine, shards may also move when a runner joins.
      const courierBefore = (line: string) =>
        lines.slice(0, lines.indexOf(line)).findLast((line) => line.endsWith(" is the courier"))
      assert.include(
        [`${ended} is the courier`, `${last} is the courier`],
        courierBefore(`Operator sends SIGTERM to ${ended}`)
      )
      assert.strictEqual(courierBefore(`Operator sends SIGTERM to ${last}`), `${last} is the courier`)
    }))

  it.live.each(["cluster", "singleton-worker"])(
    "%s says in one sentence that it needs an etcd that can be shared",
    (example) =>
      Effect.gen(function*() {
        const { code, errors } = yield* run(example, {})
        assert.strictEqual(code, 1)
        assert.match(
          errors.trim(),
          /^The processes of this example need an etcd that they share: set ETCD_ENDPOINTS, .*$/
        )
      })
  )

  it.live("cluster-messages says in one sentence that it needs a PostgreSQL", () =>
    Effect.gen(function*() {
      const environment = { ETCD_ENDPOINTS: inject("etcdEndpoint") }
      const alone = yield* run("cluster-messages", environment)
      assert.strictEqual(alone.code, 1)
      assert.match(alone.errors.trim(), /^This example needs a PostgreSQL: set DATABASE_URL, or run it through .*$/)
      const through = yield* run("cluster-messages", { ...environment, POSTGRES_BIN: "/nowhere" }, withPostgres)
      assert.strictEqual(through.code, 1)
      assert.match(
        through.errors.trim(),
        /^There is no PostgreSQL in \/nowhere: install .*, or DATABASE_URL to one that runs\.$/
      )
    }))

  it.live.each(etcds())("http-api on %s: 409 with Retry-After, and 503", ([, environment]) =>
    Effect.gen(function*() {
      assert.deepStrictEqual(withoutEtcd(yield* linesOf("http-api", environment)), [
        "Server has cancelled order 6",
        "Server responds 204",
        "Server has cancelled order 8",
        "Server responds 204",
        "Server responds 409, Retry-After: 3",
        "Cleo gives up, since Anna holds the order's lock",
        "Server responds 409, Retry-After: 3",
        "Ben tries again in 3s, since Anna holds the order's lock",
        "Server has changed order 7 to 3 pieces",
        "Server responds 204",
        "Server has changed order 7 to 5 pieces",
        "Server responds 204",
        "Operator starts a server for which etcd is out of reach",
        "Server responds 503",
        "Cleo gives up, since the server cannot lock orders now"
      ])
    }))

  it.live.each(etcds())(
    "fan-out on %s: never more calls than allowed, and a replica's permits go on",
    ([, environment]) =>
      Effect.gen(function*() {
        const lines = yield* linesOf("fan-out", environment)
        const count = (pattern: RegExp) => lines.filter((line) => pattern.test(line)).length
        printsInOrder(lines, [
          "API receives invoice 11",
          "Ben is shut down",
          /^Ben breaks off invoice 1\d$/,
          /^API receives invoice [23]\d$/,
          /^(Ada|Cleo) has sent all$/,
          /^(Ada|Cleo) has sent all$/,
          "API has received up to 4 calls at once"
        ])
        assert.strictEqual(count(/^API receives invoice 1/), count(/^Ben breaks off/))
        assert.strictEqual(count(/^API receives invoice [23]/), 10)
        assert.strictEqual(count(/has sent invoice [23]/), 10)
      })
  )

  it.live.each(etcds())("cache-refresh on %s: no page of half a refresh", ([, environment]) =>
    Effect.gen(function*() {
      const lines = withoutEtcd(yield* linesOf("cache-refresh", environment))
      const pages = lines.filter((line) => line.includes(" renders "))
      assert.lengthOf(pages, 24)
      for (const page of pages) assert.match(page, /^(Ada|Ben|Cleo) renders names (\d) with prices \2$/)
      assert.deepStrictEqual(lines.filter((line) => !pages.includes(line)), [
        "Ada begins refresh 2",
        "Ada has finished refresh 2",
        "Ada begins refresh 3",
        "Ada has finished refresh 3",
        "Cache has names 3 and prices 3"
      ])
      for (const version of [2, 3]) {
        assert.strictEqual(
          lines.indexOf(`Ada has finished refresh ${version}`),
          lines.indexOf(`Ada begins refresh ${version}`) + 1
        )
      }
    }))

  it.live.each(etcds())(
    "transfer on %s: in all directions at once, and no money is lost",
    ([, environment]) =>
      Effect.gen(function*() {
        const lines = yield* linesOf("transfer", environment)
        printsInOrder(lines, [
          "Operator takes the lock of ben away",
          "Dora moves nothing from anna to ben: LockLost, KeyDeleted",
          "Dora is done",
          "Bank has 100 + 100 + 100 = 300"
        ])
        for (const who of ["Ada", "Bob", "Eve"]) {
          assert.lengthOf(lines.filter((line) => line.startsWith(`${who} moves 5 from `)), 3)
        }
      })
  )

  it.live.each(etcds())(
    "promises on %s: saved, timed out, and aborted on loss",
    ([, environment]) =>
      Effect.gen(function*() {
        const lines = yield* linesOf("promises", environment)
        printsInOrder(lines, [
          "Anna holds the lock",
          /^Ben is rejected: LockTimeout: Lock 'promises\/report' was not acquired .+; it is held by .+ since /,
          "Anna has downloaded page 4",
          "Anna has saved the report and released the lock",
          "Dora holds the lock",
          "Operator deletes the lock's key in etcd",
          /^Dora breaks off the download: LockLost: Lock 'promises\/report' was lost .*: its key was deleted from etcd$/,
          /^Dora is rejected: LockLost: Lock 'promises\/report' was lost .*: its key was deleted from etcd$/
        ])
        assert.match(lines.at(-1)!, /^Dora is rejected: /)
      })
  )

  it.live.each(etcds())(
    "observability on %s: a loss in the metrics, the trace and the log",
    ([, environment]) =>
      Effect.gen(function*() {
        const { endpoint, logs, metrics, spans } = yield* collector
        const { code, errors, lines } = yield* run("observability", {
          ...environment,
          METRICS_PORT: "0",
          RUN_FOR: "8 seconds",
          OTEL_EXPORTER_OTLP_ENDPOINT: endpoint
        })
        assert.strictEqual(code, 0)
        printsInOrder(lines, [
          /^Metrics are at http:\/\/127\.0\.0\.1:\d+\/metrics$/,
          /^Operator takes the lock away from (Ada|Ben|Cleo)$/,
          /^(Ada|Ben|Cleo) is interrupted in the middle of the report$/,
          "Metrics have etcd_lock_losses{recipe=\"lock\",lock=\"report\",reason=\"KeyDeleted\"} 1"
        ])
        assert.match(errors, /Lock 'observability\/report' was lost after .*: its key was deleted from etcd/)
        assert.isTrue(logs().some(({ body }) => /was lost after .*: its key was deleted/.test(body!.stringValue)))
        const lost = spans().filter(({ events = [] }) => events.some(({ name }) => name === "lock.lost"))
        assert.deepStrictEqual(lost.map(({ name, status }) => [name, status?.code]), [["Lock.hold", 2]])
        const trace = spans().filter(({ traceId }) => traceId === lost[0]!.traceId)
        assert.sameMembers(trace.map(({ name }) => name), ["report", "Lock.acquire", "Lock.hold"])
        assert.deepInclude(metrics(), {
          name: "etcd_lock_losses",
          attributes: { recipe: "lock", lock: "report", reason: "KeyDeleted" },
          value: 1
        })
      })
  )

  it.live("run on an etcd that the demo starts, and takes with it", () =>
    Effect.gen(function*() {
      const lines = yield* linesOf("critical-section", {}, withEtcd)
      assert.match(lines[0]!, /^etcd etcd \d+\.\d+\.\d+ \(.+\), started for this program$/)
      const [, endpoint] = /^etcd at (\S+), as the environment says$/.exec(lines[1]!) ?? []
      assert.isFalse(yield* accepts(endpoint!))
    }))

  it.live("run in memory, and say why, where the demo can start no etcd", () =>
    Effect.gen(function*() {
      const lines = yield* linesOf("critical-section", { ETCD_BINARY: "/nowhere/etcd" }, withEtcd)
      assert.match(lines[0]!, /^etcd cannot be started: '\/nowhere\/etcd' is not an etcd that runs here: /)
      assert.strictEqual(lines[1], "etcd in memory, since ETCD_ENDPOINTS names no other")
    }))

  it.live("run on an etcd in memory when the environment names no other, and say so", () =>
    Effect.gen(function*() {
      const lines = yield* linesOf("critical-section", {})
      assert.strictEqual(lines[0], "etcd in memory, since ETCD_ENDPOINTS names no other")
      assert.strictEqual(lines.at(-1), "Anna is refused by etcd: LockLost, KeyDeleted")
    }))

  it("import nothing but what can be installed, and each other", () => {
    for (const file of Fs.readdirSync(examples).filter((file) => file.endsWith(".ts"))) {
      const source = Fs.readFileSync(Path.join(examples, file), "utf8")
      const relative = [...source.matchAll(/from "(\.[^"]*)"/g)].map(([, path]) => path!)
      assert.deepStrictEqual(relative.filter((path) => !path.startsWith("./")), [], file)
    }
  })

  it.live("testing: a job's test that needs no etcd", () =>
    Effect.gen(function*() {
      const lines = yield* linesOf("testing", {})
      assert.deepStrictEqual(lines, ["The job stopped when its lease ran out, and put its work back"])
    }))

  it.live.each(
    [
      ["etcd does not answer", { ETCDCTL_ENDPOINTS: "127.0.0.1:1" }, /^etcd \w+ failed \(Unavailable\): [^\n]+$/],
      ["the address is none", { ETCD_ENDPOINTS: "localhost" }, /^[^\n]*"localhost"[^\n]*port[^\n]*$/]
    ] as const
  )("say in one sentence that %s", ([, environment, sentence]) =>
    Effect.gen(function*() {
      const { code, errors } = yield* run("tutorial", environment)
      assert.strictEqual(code, 1)
      assert.match(errors.trim(), sentence)
    }))
})

/** The lines but those about where etcd is. */
const withoutEtcd = (lines: ReadonlyArray<string>) => lines.filter((line) => !line.startsWith("etcd "))
