import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import * as Fs from "node:fs"
import * as Path from "node:path"
import * as Consumer from "./consumer.ts"

describe("a git dependency", () => {
  // npm installs all that the project is developed with, to build it.
  it.live("is built by npm, and can be imported", () =>
    Effect.gen(function*() {
      const repository = yield* Consumer.repository
      const { stdout: commit } = yield* Consumer.run(repository, "git", ["rev-parse", "HEAD"])
      const url = `git+file://${repository}`
      const { directory } = yield* Consumer.install(url, `${url}#${commit.trim()}`)
      Fs.writeFileSync(
        Path.join(directory, "program.js"),
        `
          import { Lock } from "effect-etcd-lock"
          import { withLock } from "effect-etcd-lock/Lock"
          console.log(import.meta.resolve("effect-etcd-lock"), withLock === Lock.withLock)
        `
      )
      const module = Path.join(directory, "node_modules/effect-etcd-lock/dist/index.js")
      assert.strictEqual(yield* Consumer.runModule(directory, "program.js"), `file://${module} true`)
    }), 300_000)
})
