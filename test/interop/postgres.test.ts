/** A cluster whose messages are in PostgreSQL, and the PostgreSQL that such tests run on. */
import { PgClient } from "@effect/sql-pg"
import { assert, describe, it } from "@effect/vitest"
import { Effect, Redacted } from "effect"
import { SqlClient } from "effect/sql/SqlClient"
import * as Path from "node:path"
import { inject } from "vitest"
import { printsInOrder, run } from "../examples/run.ts"
import { accepts } from "../support/accepts.ts"
import * as PostgresServer from "../support/PostgresServer.ts"
import { need } from "./need.ts"
import * as Tools from "./tools.ts"

const withPostgres = Path.resolve(import.meta.dirname, "../examples/withPostgres.ts")

describe.runIf(inject("postgres")).concurrent("PostgreSQL", { timeout: 180_000 }, () => {
  need(Tools.postgres)

  it.live("is started, answers, and is gone with the scope", () =>
    Effect.gen(function*() {
      const url = yield* Effect.scoped(Effect.gen(function*() {
        const { url } = yield* PostgresServer.start
        const answer = SqlClient.pipe(
          Effect.flatMap((sql) => sql`SELECT 6 * 7 AS answer`),
          Effect.provide(PgClient.layer({ url: Redacted.make(url) }))
        )
        assert.deepStrictEqual(yield* answer, [{ answer: 42 }])
        return url
      }))
      assert.isFalse(yield* accepts(new URL(url).host))
    }))

  it.live("cluster-messages: what a runner was doing when it was killed is done by the next one, and no run is left out", () =>
    Effect.gen(function*() {
      const environment = { ETCD_ENDPOINTS: inject("etcdEndpoint") }
      const { code, errors, lines } = yield* run("cluster-messages", environment, withPostgres)
      // A runner may log that the connections of the one that was killed were reset.
      const all = lines.join("\n")
      assert.strictEqual(code, 0, `${errors}\n${all}`)
      const [, killed] = /^Operator sends SIGKILL to (Ada|Ben)$/m.exec(all)!
      const other = killed === "Ada" ? "Ben" : "Ada"
      printsInOrder(lines, [
        `${killed} packs a lamp`,
        `Operator sends SIGKILL to ${killed}`,
        `${other} packs a lamp`,
        `${other} has packed a lamp`,
        `Client is answered: ${other} has packed it`,
        "Client has a lamp packed",
        `Client is answered: ${other} has packed it`,
        `Operator sends SIGTERM to ${other}`
      ])
      assert.notInclude(lines, `${killed} has packed a lamp`)

      // The second answer is the stored one.
      const answered = lines.indexOf(`Client is answered: ${other} has packed it`)
      assert.notInclude(lines.slice(answered), `${other} packs a lamp`)

      // Each run is two seconds after another one, save the first.
      const times = [...all.matchAll(/^(?:Ada|Ben) writes the invoices of (..):(..):(..)$/gm)].map(
        ([, hours, minutes, seconds]) => Number(hours) * 3600 + Number(minutes) * 60 + Number(seconds)
      )
      const day = 24 * 3600
      assert.isAtLeast(new Set(times).size, 3)
      assert.lengthOf(new Set(times.filter((time) => !times.includes((time + day - 2) % day))), 1, all)
      printsInOrder(lines, [`Operator sends SIGKILL to ${killed}`, new RegExp(`^${other} writes the invoices of`)])
    }))
})
