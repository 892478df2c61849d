/** Fails if the types that users get show anything that they cannot name: an internal module, or an internal member. */
import { spawnSync } from "node:child_process"
import * as Fs from "node:fs"
import * as Os from "node:os"
import * as Path from "node:path"

const root = Path.resolve(import.meta.dirname, "../..")
const directory = Fs.mkdtempSync(Path.join(Os.tmpdir(), "declarations-"))

const build = () => {
  const tsc = Path.join(root, "node_modules/typescript/bin/tsc")
  const args = [tsc, "-p", Path.join(root, "tsconfig.build.json"), "--outDir", directory, "--emitDeclarationOnly"]
  return spawnSync(process.execPath, args, { stdio: "inherit" }).status === 0
}

const isInternal = (line: string): boolean => /["']\.\/internal\//.test(line) || line.includes("@internal")

try {
  const files = build() ? Fs.readdirSync(directory).filter((file) => file.endsWith(".d.ts")) : []
  const faults = files.flatMap((file) =>
    Fs.readFileSync(Path.join(directory, file), "utf8").split("\n").flatMap((line, i) =>
      isInternal(line) ? [`${file}:${i + 1}: ${line.trim()}`] : []
    )
  )
  for (const fault of faults) process.stderr.write(`The built types show what is internal: ${fault}\n`)
  if (files.length === 0) process.stderr.write("No types were built.\n")
  if (faults.length > 0 || files.length === 0) process.exitCode = 1
} finally {
  Fs.rmSync(directory, { recursive: true, force: true })
}
