/**
 * Every example of the README, of the guides in docs/ and of the docstrings, which all are complete modules: they are type-checked as the
 * sources are, and imported. Effects that they export are run with a session, layers are built, and tests that
 * they contain are run. What calls `runMain` is a program, and runs as a process of its own.
 */
import { assert, describe, it } from "@effect/vitest"
import { Effect, Layer } from "effect"
import { Etcd, Session } from "effect-etcd-lock"
import { execFile } from "node:child_process"
import * as Fs from "node:fs"
import * as Path from "node:path"
import { afterAll, inject } from "vitest"

interface Example {
  /** `src/Lock.ts:266`, where it begins. */
  readonly at: string
  readonly path: string
  readonly code: string
}

const root = Path.resolve(import.meta.dirname, "../..")
const cache = Path.join(root, ".cache")
Fs.mkdirSync(cache, { recursive: true })
const directory = Fs.mkdtempSync(Path.join(cache, "docs-"))
afterAll(() => Fs.rmSync(directory, { recursive: true, force: true }))

const examplesOf = (file: string): ReadonlyArray<Example> => {
  const examples: Array<Example> = []
  let code: Array<string> | undefined
  let at = 0
  for (const [i, line] of Fs.readFileSync(Path.join(root, file), "utf8").split("\n").entries()) {
    const text = file.endsWith(".md") ? line : line.replace(/^ *\* ?/, "")
    if (code === undefined) {
      if (!text.startsWith("```ts")) continue
      code = []
      at = i + 1
    } else if (text.startsWith("```")) {
      const path = Path.join(directory, `${file.replaceAll("/", "-")}-line-${at}.ts`)
      // errors then tell the line of the file
      examples.push({ at: `${file}:${at}`, path, code: "\n".repeat(at) + code.join("\n") + "\n" })
      code = undefined
    } else {
      code.push(text)
    }
  }
  return examples
}

const sources = Fs.readdirSync(Path.join(root, "src"), { recursive: true, encoding: "utf8" })
  .filter((file) => file.endsWith(".ts"))
  .map((file) => `src/${file}`)

const guides = Fs.readdirSync(Path.join(root, "docs")).map((file) => `docs/${file}`)

const examples = ["README.md", ...guides, ...sources].flatMap(examplesOf)

for (const { code, path } of examples) Fs.writeFileSync(path, code)
Fs.writeFileSync(
  Path.join(directory, "tsconfig.json"),
  JSON.stringify({ extends: "../../tsconfig.json", include: ["*.ts"] })
)

const isProgram = ({ code }: Example) => code.includes("runMain")

const inTest = Layer.provideMerge(
  Session.layer(),
  Layer.suspend(() => Etcd.layer({ hosts: inject("etcdEndpoint"), prefix: `docs-${crypto.randomUUID()}/` }))
)

describe("the examples in the documentation", () => {
  it("are found", () => {
    for (
      const file of [
        "README.md",
        "docs/cluster.md",
        "docs/operating.md",
        "src/Etcd.ts",
        "src/EtcdRunnerStorage.ts",
        "src/Lease.ts",
        "src/Lock.ts",
        "src/Session.ts"
      ]
    ) {
      assert.isTrue(examples.some(({ at }) => at.startsWith(`${file}:`)), `${file} has an example`)
    }
  })

  it.live("are well typed", () =>
    Effect.gen(function*() {
      const { code, output } = yield* node([Path.join(root, "node_modules/typescript/bin/tsc"), "-p", directory])
      assert.strictEqual(output, "")
      assert.strictEqual(code, 0)
    }))

  it.live.each(examples.filter(isProgram))("run as programs: $at", ({ path }) =>
    Effect.gen(function*() {
      const { code, output } = yield* node(["--conditions=@effect-etcd-lock/source", path])
      assert.strictEqual(code, 0, output)
    }))
})

for (const example of examples.filter((example) => !isProgram(example))) {
  describe(example.at, async () => {
    const imported: { readonly exports?: object; readonly error?: unknown } = await import(example.path).then(
      (exports: object) => ({ exports }),
      (error: unknown) => ({ error })
    )

    it("can be imported", () => {
      if ("error" in imported) throw imported.error
    })

    for (const [name, value] of Object.entries(imported.exports ?? {})) {
      if (Layer.isLayer(value)) {
        it.live(`builds ${name}`, () => Layer.build(value as Layer.Layer<unknown, unknown>))
      } else if (Effect.isEffect(value)) {
        it.live(`runs ${name}`, () =>
          Effect.provide(value as Effect.Effect<unknown, unknown, Etcd.Etcd | Session.Session>, inTest))
      }
    }
  })
}

const node = (args: ReadonlyArray<string>) =>
  Effect.callback<{ readonly code: number; readonly output: string }>((resume) => {
    const env = { ...process.env, ETCDCTL_ENDPOINTS: inject("etcdEndpoint") }
    const child = execFile(process.execPath, args, { cwd: root, env }, (error, stdout, stderr) => {
      resume(Effect.succeed({ code: Number(error?.code ?? 0), output: stdout + stderr }))
    })
    return Effect.sync(() => child.kill("SIGKILL"))
  })
