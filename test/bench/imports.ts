/**
 * Measures what `import "effect-etcd-lock"` costs over importing the modules of effect that it stands on, and fails if
 * that is too much:
 *
 *   npm run bench:import
 */
import { execFileSync } from "node:child_process"
import { machine } from "./results.ts"
import { quantile } from "./statistics.ts"

const rounds = 21
const limit = 120
const cwd = import.meta.dirname

/** Runs a program in a process of its own, and returns the JSON that it wrote. */
const run = (program: string) =>
  JSON.parse(execFileSync(process.execPath, ["--input-type=module", "--eval", program], { cwd, encoding: "utf8" }))

const imports = (specifiers: ReadonlyArray<string>) =>
  `await Promise.all([${specifiers.map((specifier) => `import(${JSON.stringify(specifier)})`).join(", ")}])`

/** In milliseconds. */
const measure = (specifiers: ReadonlyArray<string>): number =>
  run(`
    const began = performance.now()
    ${imports(specifiers)}
    process.stdout.write(JSON.stringify(performance.now() - began))
  `)

/** The modules of effect that the built package imports by itself. */
const modules: ReadonlyArray<string> = run(`
  import { registerHooks } from "node:module"
  const found = new Set()
  const dist = new URL(".", import.meta.resolve("effect-etcd-lock")).href
  registerHooks({
    resolve: (specifier, context, next) => {
      if (context.parentURL?.startsWith(dist) && specifier.startsWith("effect/")) found.add(specifier)
      return next(specifier, context)
    }
  })
  ${imports(["effect-etcd-lock"])}
  process.stdout.write(JSON.stringify([...found]))
`)

const write = (text: string) => process.stdout.write(`${text}\n`)

const median = (values: ReadonlyArray<number>) => quantile(values, 0.5)

/** Side by side, since what else the machine does changes all the time. */
const samples = Array.from({ length: rounds }, () => ({
  bare: measure(modules),
  whole: measure(["effect-etcd-lock"]),
  effect: measure(["effect"])
}))

const over = median(samples.map(({ bare, whole }) => whole - bare))

write(`On ${machine()}, median milliseconds of ${rounds} processes each:`)
write(`${median(samples.map(({ effect }) => effect)).toFixed(0).padStart(5)}  effect, all of it`)
write(`${median(samples.map(({ bare }) => bare)).toFixed(0).padStart(5)}  the ${modules.length} modules of effect`)
write(`${median(samples.map(({ whole }) => whole)).toFixed(0).padStart(5)}  effect-etcd-lock, which imports these`)
write(`${over.toFixed(0).padStart(5)}  effect-etcd-lock over these, where ${limit} are allowed`)
if (over > limit) process.exitCode = 1
